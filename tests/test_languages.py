"""The pages of docs/en and docs/zh are twins, and links between documents lead to a heading.

Twins have the same code, names, levels of headings and rows of tables, and link the same pages.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENGLISH, CHINESE = ROOT / "docs/en", ROOT / "docs/zh"
PAGES = sorted(path.relative_to(ENGLISH).as_posix() for path in ENGLISH.rglob("*.md"))
LINKING = [
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *sorted(ROOT.glob("docs/**/*.md")))
]

FENCE = re.compile(r"^( *)```.*?^\1```$", re.M | re.S)
COMMENT = re.compile(r"<!--.*?-->", re.S)
SPAN = re.compile(r"`([^`]+)`")
HEADING = re.compile(r"^(#{1,6}) +(.*?) *$", re.M)
LINK = re.compile(r"\]\(([^)\s#]*)(?:#([^)\s]+))?\)")
# Anything but letters, digits, _, - and spaces is left out of an anchor, as on GitHub.
NOT_IN_ANCHOR = re.compile(r"[^\w\- ]")
# Chinese words that are not used, and the term that is used instead, on pages and in messages.
TERMS = {
    r"(?<!主)目录": "文件夹",
    r"重排(?!序)": "重排序",
    r"维数": "维度",
    r"答复": "响应",
    r"附加依赖|附加项": "可选依赖",
    r"仪表板": "仪表盘",
    r"法条": "法律条文",
    r"状态码(?:为)? ?[123](?!\d)": "退出码",
    r"产物": "导出结果",
}
# Pages that use the words of other products.
OTHERS_WORDS = "how-to/integrations/"
# Punctuation that Chinese text has in full width.
HALF_WIDTH = re.compile(r"[\u4e00-\u9fff][,;:!?]|[\u4e00-\u9fff] ?\(|\)[\u4e00-\u9fff]")


def prose(text: str) -> str:
    """Return what a reader sees of the text, without blocks of code."""
    return COMMENT.sub("", FENCE.sub("", text))


def rows(text: str) -> Iterator[int]:
    """Yield the number of cells of every row of the tables."""
    for line in prose(text).splitlines():
        if line.startswith("|"):
            yield line.replace(r"\|", "").count("|") - 1


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    seen: Counter[str] = Counter()
    text = prose(path.read_text(encoding="utf-8"))
    for _, title in HEADING.findall(text):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title)
        anchor = NOT_IN_ANCHOR.sub("", shown.lower()).replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found | set(re.findall(r'<a (?:id|name)="([^"]+)"', text))


def both(page: str) -> tuple[str, str]:
    return (
        (ENGLISH / page).read_text(encoding="utf-8"),
        (CHINESE / page).read_text(encoding="utf-8"),
    )


def test_every_page_exists_in_both_languages() -> None:
    chinese = {path.relative_to(CHINESE).as_posix() for path in CHINESE.rglob("*.md")}
    assert chinese == set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_of_code_are_the_same(page: str) -> None:
    english, chinese = ([match[0] for match in FENCE.finditer(text)] for text in both(page))
    assert chinese == english


@pytest.mark.parametrize("page", PAGES)
def test_headings_and_tables_have_the_same_shape(page: str) -> None:
    english, chinese = both(page)
    assert levels(chinese) == levels(english)
    assert list(rows(chinese)) == list(rows(english))


def levels(text: str) -> list[int]:
    return [len(marks) for marks, _ in HEADING.findall(prose(text))]


@pytest.mark.parametrize("page", PAGES)
def test_twins_link_the_same_pages_each_in_its_language(page: str) -> None:
    """A page may link another one more often than its twin does, but no page that the twin does not link."""
    english, chinese = ({target for target, _ in LINK.findall(prose(text))} for text in both(page))
    # Pictures of the page show it in the language of the text.
    chinese = {target.replace("README.zh-CN.md", "README.md") for target in chinese}
    assert {re.sub(r"-zh\.png$", "-en.png", target) for target in chinese} == english


@pytest.mark.parametrize("page", PAGES)
def test_twins_name_the_same_settings_commands_and_files(page: str) -> None:
    """Names stand in spans of code, which are not translated."""
    english, chinese = (
        {" ".join(span.split()) for span in SPAN.findall(prose(text))} for text in both(page)
    )
    assert chinese == english


@pytest.mark.parametrize("page", PAGES)
def test_chinese_pages_are_written_in_chinese_punctuation(page: str) -> None:
    text = re.sub(r"`[^`\n]*`|\]\([^)]*\)", "", prose(both(page)[1]))
    assert HALF_WIDTH.findall(text) == []


@pytest.mark.parametrize("word", TERMS)
def test_chinese_texts_use_one_word_for_each_term(word: str) -> None:
    pages = [page for page in PAGES if not page.startswith(OTHERS_WORDS)]
    texts = {page: prose(both(page)[1]) for page in pages}
    for name in ("README.zh-CN.md", "server/messages/catalogue.json"):
        texts[name] = (ROOT / name).read_text(encoding="utf-8")
    found = [name for name, text in texts.items() if re.search(word, text)]
    assert not found, f"say {TERMS[word]}"


@pytest.mark.parametrize("name", LINKING)
def test_anchors_of_links_exist(name: str) -> None:
    path = ROOT / name
    for target, anchor in LINK.findall(prose(path.read_text(encoding="utf-8"))):
        page = (path.parent / target).resolve() if target else path
        if anchor and "://" not in target:
            assert anchor in anchors(page), f"{target}#{anchor}"
