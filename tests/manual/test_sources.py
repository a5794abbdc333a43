"""The pages of the manual come from the Markdown of the documents, with links that lead within it."""

from tests.support.manual import builder
from tests.support.processes import ROOT

PLACES = {
    "README.md": "en/readme.md",
    "docs/en/index.md": "en/index.md",
    "docs/en/how-to/clients.md": "en/how-to/clients.md",
    "docs/zh/index.md": "zh/index.md",
}


def linked(text: str, page: str) -> str:
    return str(builder().with_links(text, page, PLACES))


def test_links_lead_to_the_places_of_the_pages() -> None:
    assert linked("[a](docs/en/how-to/clients.md#x)", "README.md") == "[a](how-to/clients.md#x)"
    assert linked("[a](../../../README.md)", "docs/en/how-to/clients.md") == "[a](../readme.md)"
    assert linked("[a](#x) <https://b>", "README.md") == "[a](#x) <https://b>"


def test_link_to_the_other_language_is_an_address() -> None:
    found = linked("[a](../../README.md#x)", "docs/zh/index.md")
    assert found == '<a href="../en/readme.html#x">a</a>'


def test_link_to_a_file_that_is_no_page_is_its_text() -> None:
    assert linked("see [a](LICENSE) and [b](server/app.py)", "README.md") == "see a and b"


def test_blocks_of_code_keep_what_looks_like_a_link() -> None:
    code = "```python\na[0](LICENSE)\n```"
    assert linked(code, "README.md") == code


def test_every_document_is_a_page() -> None:
    pages = dict(builder().pages())
    documents = ROOT.glob("docs/*/**/*.md")
    assert {path.relative_to(ROOT / "docs").as_posix() for path in documents} <= pages.keys()
    assert {"en/readme.md", "zh/readme.md", "en/project/changelog.md"} <= pages.keys()


def test_index_gives_the_contents_by_its_own_headings() -> None:
    index = dict(builder().pages())["en/index.md"]
    assert ":caption: How to\n\nhow-to/" in index
    assert index.count("{toctree}") == 1 + index.count("\n## ") + 1


def test_chinese_lines_are_joined_without_a_blank() -> None:
    joined = builder().joined
    assert joined("一行，\n二行。\n\n- 三\n  四\n- 五") == "一行，二行。\n\n- 三四\n- 五"
    assert joined("见\n`--port`") == "见`--port`"
    assert joined("有 GB\n内存") == "有 GB\n内存"
    assert joined("| 表 |\n| 行 |") == "| 表 |\n| 行 |"
    assert joined("```\n一\n二\n```") == "```\n一\n二\n```"
