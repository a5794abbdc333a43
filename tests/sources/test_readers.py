"""Real files of each format, and every way in which they can be wrong."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import BadSettings
from server.sources import decoding
from server.sources.notes import Notes
from server.sources.readers import find_source, find_sources, read_documents
from server.sources.source import FORMATS
from server.store.records import MAX_ID, MAX_TITLE, Document, is_blank, text_id
from tests.support.sources import (
    Write,
    noted,
    options,
    problems,
    read,
    refusal,
    sentences,
    texts,
    wrong_line,
)

# --- a line a document ----------------------------------------------------------------------------------


def test_each_line_of_a_text_file_is_a_document(write: Write) -> None:
    found = read(write("a.txt", "民法典\n\n  \t\n 刑法 \nlast"))
    assert found == [Document(text_id(text), text) for text in ("民法典", "刑法", "last")]


def test_an_id_is_the_beginning_of_the_hash_of_the_text() -> None:
    assert text_id("甲") == "33e3580c093111e1c4ca"


def test_only_line_ends_end_a_line(write: Write) -> None:
    name = write("a.txt", "a\u2028b\r\nc\x0bd\x0ce\x85f\rg\0h\n")
    assert texts(name) == ["a\u2028b", "c\x0bd\x0ce\x85f", "g\0h"]


@pytest.mark.parametrize("name", ["empty.txt", "empty.jsonl", "empty.md"])
def test_an_empty_file_has_no_documents(write: Write, name: str) -> None:
    assert read(write(name, "")) == read(write(name, "\n \n")) == []


def test_a_text_of_many_megabytes_is_a_document(write: Write) -> None:
    text = "墨池 " * 1_000_000 + "end"
    assert texts(write("a.txt", text)) == [text]
    assert texts(write("a.jsonl", json.dumps(text))) == [text]
    assert texts(write("a.csv", f'text\n"{text}"')) == [text]


# --- JSON a line ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "A.JSONL"])
def test_each_line_of_json_is_a_document(write: Write, name: str) -> None:
    lines = [
        '{"text": " 甲\\n", "id": "x", "title": "标题", "metadata": {"n": [1, null]}}',
        "",
        '{"text": "乙", "id": 12345678901234567890123}',
        '"丙"',
        '{"_id": "b", "title": "", "text": "丁", "metadata": {}}',
        '{"text": "戊", "id": null, "title": null, "metadata": null}',
        '{"text": "a\\u0000b\\ud83d\\ude00"}',
    ]
    assert read(write(name, "\r\n".join(lines))) == [
        Document("x", " 甲\n", "标题", {"n": [1, None]}),
        Document("12345678901234567890123", "乙"),
        Document(text_id("丙"), "丙"),
        Document("b", "丁"),
        Document(text_id("戊"), "戊"),
        Document(text_id("a\0b😀"), "a\0b😀"),
    ]


def test_other_keys_of_a_line_of_json_are_metadata(write: Write) -> None:
    name = write("a.jsonl", '{"text": "甲", "year": 2020, "tags": ["a"]}')
    assert read(name)[0].metadata == {"year": 2020, "tags": ["a"]}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{'text': 1}", "not JSON: "),
        ('{"text": "a"', "not JSON: "),
        ('{"text": "a"} {}', "not JSON: "),
        ('{"text": "a", "n": NaN}', "not JSON: "),
        ('{"text": "a", "n": 1e999}', "not JSON: "),
        ("[" * 5000, "not JSON: "),
        ('{"text": "a\\ud800"}', "(a lone surrogate is half a character)"),
        ('"\\udc00"', "(a lone surrogate is half a character)"),
        ("null", "null is neither an object nor a string"),
        ('["甲"]', '["甲"] is neither an object nor a string'),
        ("{}", "no column is named text, or as texts usually are, only: none"),
        ('{"text": 7}', '"text" is 7, which is not a string'),
        ('{"text": " \\n"}', '"text" is empty'),
        ('""', '"text" is empty'),
        ('{"text": "a", "id": ""}', f'"id" has 0 characters; 1 to {MAX_ID} are allowed'),
        (json.dumps({"text": "a", "id": "i" * 513}), '"id" has 513 characters;'),
        ('{"text": "a", "id": true}', '"id" is true, which is not a string or an integer'),
        ('{"text": "a", "id": 1.5}', '"id" is 1.5, which is not a string or an integer'),
        ('{"text": "a", "id": 1, "_id": 1}', 'it has both "id" and "_id"'),
        ('{"text": "a", "title": ["b"]}', '"title" is ["b"], which is not a string'),
        ('{"text": "a", "metadata": "b"}', '"metadata" is "b", which is not an object'),
        ('{"text": "a", "metadata": {}, "b": 1}', '"b" stands beside "metadata"'),
        (json.dumps({"text": list(range(999))}), "19,20,21,22,…, which is not a string"),
    ],
)
def test_a_line_of_json_that_is_no_document_is_named(write: Write, line: str, reason: str) -> None:
    name = write("a.jsonl", f'"甲"\n\n{line}\n"乙"')
    documents = read_documents(find_source(name))
    assert next(documents)[0].text == "甲"
    with pytest.raises(BadSettings):
        next(documents)
    assert reason in wrong_line(name, 3)


# --- files and folders ------------------------------------------------------------------------------------


def test_each_file_of_a_folder_is_a_document(write: Write, tmp_path: Path) -> None:
    write("f/b.txt", "\ufeff# no heading\r\n乙\r\n")
    write("f/a.MD", "intro\n```\n# code\n```\n## 二\n#tag\n# \n# 标题 #\n# more\n")
    write("f/B/c d.md", "# C#\n")
    write("f/B/e.md", "no heading")
    write("f/blank.txt", " \n")
    write("f/other.pdf", "x")
    write("f/.hidden.txt", "x")
    write("f/.git/x.txt", "x")
    write("outside.txt", "x")
    os.symlink(tmp_path / "outside.txt", tmp_path / "f" / "link.txt")
    os.symlink(tmp_path, tmp_path / "f" / "loop")
    assert [(d.id, d.title, d.metadata) for d in read(str(tmp_path / "f"))] == [
        ("B/c d.md", "C#", {"file": "B/c d.md"}),
        ("B/e.md", "e", {"file": "B/e.md"}),
        ("a.MD", "标题", {"file": "a.MD"}),
        ("b.txt", "b", {"file": "b.txt"}),
    ]
    assert texts(str(tmp_path / "f"))[-1] == "# no heading\n乙\n"


def test_a_markdown_file_is_one_document(write: Write) -> None:
    assert read(write("a.md", "# 标题\n\n甲\n")) == [
        Document("a.md", "# 标题\n\n甲\n", "标题", {"file": "a.md"})
    ]
    assert texts(write("b.log", "a\nb\n"), format="md") == ["a\nb\n"]


def test_a_wrong_file_of_a_folder_is_named(write: Write, tmp_path: Path) -> None:
    write("f/a.txt", "甲")
    name = write("f/b.txt", b"\xff")
    documents = read_documents(find_source(str(tmp_path / "f")))
    assert next(documents)[0].id == "a.txt"
    with pytest.raises(BadSettings, match=f"{name} is not utf-8: wrong bytes at offset 0;"):
        next(documents)


def test_a_file_name_that_cannot_be_an_id_is_refused(write: Write, tmp_path: Path) -> None:
    write("f/" + "/".join(["d" * 100] * 6) + "/a.txt", "x")
    assert '"id" has 611 characters' in refusal(str(tmp_path / "f")).english


def named(folder: Path, name: bytes) -> Path:
    return Path(os.fsdecode(os.fsencode(folder) + b"/" + name))


def test_a_file_name_that_is_not_utf_8_becomes_an_id_with_escapes(tmp_path: Path) -> None:
    name = "中文.txt".encode("gb18030")
    named(tmp_path, name).write_text("甲")
    named(tmp_path, b"\xff").mkdir()
    Path(named(tmp_path, b"\xff"), "b.md").write_text("乙")
    Path(tmp_path, "c.txt").write_text("丙")
    assert [(d.id, d.title, d.metadata, d.text) for d in read(str(tmp_path))] == [
        ("c.txt", "c", {"file": "c.txt"}, "丙"),
        (r"\xd6\xd0\xce\xc4.txt", r"\xd6\xd0\xce\xc4", {"file": r"\xd6\xd0\xce\xc4.txt"}, "甲"),
        (r"\xff/b.md", "b", {"file": r"\xff/b.md"}, "乙"),
    ]
    assert sentences(noted(str(tmp_path))) == [
        "file names that are not UTF-8, with escapes in the documents' ids: "
        r"\xd6\xd0\xce\xc4.txt and 1 more"
    ]
    named(tmp_path, name).write_bytes(b"\xff")
    assert r"\xd6\xd0\xce\xc4.txt is not utf-8" in refusal(str(tmp_path)).english


def test_two_file_names_never_become_one_id(tmp_path: Path) -> None:
    named(tmp_path, b"\xff.txt").write_text("甲")
    Path(tmp_path, r"\xff.txt").write_text("乙")
    assert "two files would be the document" in refusal(str(tmp_path)).english


def test_files_behind_links_within_the_folder_are_read(tmp_path: Path) -> None:
    """A ConfigMap as Kubernetes mounts it: links to a hidden folder, of which the newest is taken."""
    mount = tmp_path / "mount"
    (mount / "..2026_01/sub").mkdir(parents=True)
    (mount / "..2026_01/a.txt").write_text("甲")
    (mount / "..2026_01/sub/b.md").write_text("乙")
    (mount / "..2026_01/sub/loop").symlink_to("..")
    (mount / "..data").symlink_to("..2026_01")
    (mount / "a.txt").symlink_to("..data/a.txt")
    (mount / "sub").symlink_to("..data/sub")
    (mount / "whole").symlink_to(mount)
    assert [document.id for document in read(str(mount))] == ["a.txt", "sub/b.md"]
    assert sentences(noted(str(mount))) == []
    (tmp_path / "link").symlink_to("mount")
    assert [document.id for document in read(str(tmp_path / "link"))] == ["a.txt", "sub/b.md"]


def test_a_file_is_read_once_under_its_own_path(write: Write, tmp_path: Path) -> None:
    write("f/z/a.txt", "甲")
    for name, target in (("a.txt", "z/a.txt"), ("b.txt", "z/a.txt"), ("y", "z"), ("z/up", "..")):
        (tmp_path / "f" / name).symlink_to(target)
    assert [document.id for document in read(str(tmp_path / "f"))] == ["z/a.txt"]
    (tmp_path / "f/.hidden").mkdir()
    (tmp_path / "f/.hidden/c.txt").write_text("丙")
    for name in ("q.txt", "p.txt"):
        (tmp_path / "f" / name).symlink_to(".hidden/c.txt")
    assert [document.id for document in read(str(tmp_path / "f"))] == ["p.txt", "z/a.txt"]


def test_links_that_lead_out_of_the_folder_or_nowhere_are_reported(
    write: Write, tmp_path: Path
) -> None:
    folder = tmp_path / "f"
    write("f/a.txt", "甲")
    write("f2/secret.txt", "x")
    write("photo.jpg", "x")
    links = {
        "out.txt": "../f2/secret.txt",
        "no.md": "none",
        "me.txt": "me.txt",
        "p.jpg": "../photo.jpg",
    }
    for name, target in {**links, "f2": "../f2"}.items():
        (folder / name).symlink_to(target)
    assert [document.id for document in read(str(folder))] == ["a.txt"]
    assert sentences(noted(str(folder))) == [
        f"links that lead out of the folder or nowhere, left out: {folder}/f2 and 3 more"
    ]


def test_a_folder_without_texts_is_refused(write: Write, tmp_path: Path) -> None:
    write("f/a.jpg", "text")
    assert f"{tmp_path / 'f'} has no files that are read" in refusal(str(tmp_path / "f")).english
    assert read(str(tmp_path / "f"), allow_empty=True) == []


def test_a_folder_takes_no_format(tmp_path: Path) -> None:
    error = refusal(str(tmp_path), format="txt")
    assert "--format txt is for files and patterns" in error.english


def test_a_folder_is_read_in_all_formats_with_ids_that_do_not_meet(
    write: Write, tmp_path: Path
) -> None:
    write("f/a.txt", "甲\n乙\n")
    write("f/b.csv", "序号,正文,n\n1,甲,5\n2,乙,6\n")
    write("f/in/c.jsonl", '{"id": 1, "text": "丙"}\n"丁"')
    write("f/in/d.tsv", "text\tfile\n戊\t己\n")
    assert read(str(tmp_path / "f")) == [
        Document("a.txt", "甲\n乙\n", "a", {"file": "a.txt"}),
        Document("b.csv#1", "甲", None, {"file": "b.csv", "n": 5}),
        Document("b.csv#2", "乙", None, {"file": "b.csv", "n": 6}),
        Document("in/c.jsonl#1", "丙", None, {"file": "in/c.jsonl"}),
        Document(f"in/c.jsonl#{text_id('丁')}", "丁", None, {"file": "in/c.jsonl"}),
        Document(f"in/d.tsv#{text_id('戊')}", "戊", None, {"file": "己"}),
    ]


# --- several sources, patterns, selections --------------------------------------------------------------


def test_several_sources_are_read_in_order(write: Write, tmp_path: Path) -> None:
    names = [write("x.txt", "甲\n乙"), write("f/a.md", "丙"), write("y.csv", "text\n丁")]
    found = read(names[0], str(tmp_path / "f"), names[2])
    assert [document.text for document in found] == ["甲", "乙", "丙", "丁"]
    sources = find_sources(names, options())
    assert list(read_documents(*sources))[-1][1] == sum(source.n_bytes for source in sources)


def test_a_pattern_stands_for_the_files_that_fit(write: Write, tmp_path: Path) -> None:
    for name in ("f/a.txt", "f/b.txt", "f/in/c.txt", "f/in/deep/d.md", "f/e.log"):
        write(name, f"{name}\n")
    pattern = str(tmp_path / "f")
    assert texts(f"{pattern}/*.txt") == ["f/a.txt", "f/b.txt"]
    assert texts(f"{pattern}/[!b].txt") == ["f/a.txt"]
    assert texts(f"{pattern}/**/?.txt") == ["f/a.txt", "f/b.txt", "f/in/c.txt"]
    assert texts(f"{pattern}/*.log", format="txt") == ["f/e.log"]
    (found,) = read(f"{pattern}/**/*.md")
    assert (found.id, found.metadata) == ("in/deep/d.md", {"file": "in/deep/d.md"})
    assert "has no files that are read" in refusal(f"{pattern}/*.pdf").english
    assert texts(write("f/[x].txt", "a file of this name")) == ["a file of this name"]


def test_a_pattern_enters_only_folders_in_which_files_may_fit(write: Write, tmp_path: Path) -> None:
    for name in ("a.md", "in/b.md", "in/x/c.md", "other/d.md"):
        write(f"f/{name}", name)
    pruned: list[str] = []

    def texts_of(pattern: str) -> list[str]:
        pruned.clear()
        notes = Notes(each_skipped=lambda reason, name: pruned.append(name))
        sources = find_sources([f"{tmp_path}/f/{pattern}"], options(), notes)
        return [document.text for document, _ in read_documents(*sources)]

    assert texts_of("*.md") == ["a.md"]
    assert {f"{tmp_path}/f/in", f"{tmp_path}/f/other"} <= set(pruned)
    assert texts_of("i*/*.md") == ["in/b.md"]
    assert {f"{tmp_path}/f/in/x", f"{tmp_path}/f/other"} <= set(pruned)
    assert texts_of("in/**/*.md") == ["in/b.md", "in/x/c.md"]
    assert texts_of("**/c.md") == ["in/x/c.md"]


@pytest.mark.parametrize(
    ("include", "exclude", "left"),
    [
        (("*.md",), (), ["a.md", "in/b.md", "in/x/c.md"]),
        ((), ("*.md",), ["a.txt", "in/d.txt"]),
        (("in/**",), (), ["in/b.md", "in/d.txt", "in/x/c.md"]),
        (("in/*",), ("*.txt",), ["in/b.md"]),
        ((), ("in/x",), ["a.md", "a.txt", "in/b.md", "in/d.txt"]),
        ((), ("x/",), ["a.md", "a.txt", "in/b.md", "in/d.txt"]),
        ((), ("in",), ["a.md", "a.txt"]),
    ],
)
def test_files_of_a_folder_are_selected(
    write: Write,
    tmp_path: Path,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    left: list[str],
) -> None:
    for name in ("a.txt", "a.md", "in/b.md", "in/d.txt", "in/x/c.md"):
        write(f"f/{name}", name)
    found = read(str(tmp_path / "f"), include=include, exclude=exclude)
    assert [document.id for document in found] == left


def test_files_of_two_sources_never_become_one_document(write: Write) -> None:
    names = [write("a/README.md", "甲"), write("b/README.md", "乙")]
    with pytest.raises(BadSettings, match="would both be the document README.md; index the folder"):
        read(*names)
    assert len(read(names[0], names[0])) == 2


def test_what_is_wrong_is_listed_and_the_rest_is_read(write: Write, tmp_path: Path) -> None:
    write("f/a.jsonl", '"甲"\n{\n{"text": ""}\n"乙"\n')
    bad = write("f/b.md", b"\xff")
    write("f/c.md", "丙")
    found, errors = problems(str(tmp_path / "f"))
    assert [document.text for document in found] == ["甲", "乙", "丙"]
    assert [error.split(": ")[0] for error in errors[:2]] == [
        f"{tmp_path}/f/a.jsonl, line 2",
        f"{tmp_path}/f/a.jsonl, line 3",
    ]
    assert errors[2].startswith(f"{bad} is not utf-8")


@pytest.mark.parametrize("name", ["missing.txt", "missing.pdf", "missing"])
def test_a_missing_source_is_refused(tmp_path: Path, name: str) -> None:
    assert "cannot be read: No such file" in refusal(str(tmp_path / name)).english


def test_a_source_that_vanishes_is_reported(write: Write, tmp_path: Path) -> None:
    found = find_source(write("a.txt", "甲"))
    Path(tmp_path, "a.txt").unlink()
    with pytest.raises(BadSettings, match=r"a\.txt cannot be read: No such file"):
        next(read_documents(found))


def test_a_folder_that_cannot_be_listed_is_reported(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: str) -> None:
        raise PermissionError(13, "Permission denied", f"{path}/b")

    write("f/a.txt", "甲")
    monkeypatch.setattr(os, "scandir", denied)
    assert "f/b cannot be read: Permission denied" in refusal(str(tmp_path / "f")).english


# --- formats, standard input, progress ----------------------------------------------------------------------


def test_the_format_given_counts_more_than_the_suffix(write: Write) -> None:
    name = write("a.csv", '"甲"\n')
    assert texts(name, format="jsonl") == ["甲"]
    assert texts(name, format="txt") == ['"甲"']
    assert texts(write("plain", "甲\n乙")) == ["甲", "乙"]


@pytest.mark.parametrize("name", ["a.json", "a.zip", "a.2026"])
def test_a_suffix_that_tells_no_format_is_refused(write: Write, name: str) -> None:
    error = refusal(write(name, "x"))
    assert f"{name}: the suffix .{name[2:]} is not a known format; give --format" in error.english
    assert all(format in error.english and format in error.chinese for format in FORMATS)


def test_an_unknown_format_is_refused(write: Write) -> None:
    assert "--format xml is unknown" in refusal(write("a.txt", "x"), format="xml").english


def test_standard_input_is_read(stdin: Callable[[bytes], None]) -> None:
    stdin("甲\n乙".encode())
    assert texts("-") == ["甲", "乙"]
    stdin("text\n甲\n乙".encode("gb18030"))
    assert texts("-", format="csv", encoding="gb18030") == ["甲", "乙"]
    stdin("# 标题\n甲".encode())
    assert read("-", format="md") == [Document(text_id("# 标题\n甲"), "# 标题\n甲", "标题")]
    stdin(b"{")
    assert refusal("-", format="jsonl").english.startswith("<stdin>, line 1: not JSON")
    stdin(b"\xff")
    assert refusal("-").english.startswith("<stdin> is not utf-8: wrong bytes at offset 0")


def test_bytes_read_so_far_come_to_the_total(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stdin: Callable[[bytes], None]
) -> None:
    monkeypatch.setattr(decoding, "READ_BYTES", 4)
    found = find_source(write("a.txt", "a\nb\nc\nd\n"))
    assert found.n_bytes == 8
    assert [n_read for _, n_read in read_documents(found)] == [4, 4, 8, 8]
    for content in ("text\n甲\n乙", 'text\n"甲\n乙"'):
        found = find_source(write("a.csv", content))
        assert [n_read for _, n_read in read_documents(found)][-1] == found.n_bytes
    write("f/a.txt", "甲")
    write("f/b.md", "乙丙")
    write("f/c.txt", "   ")
    folder = find_source(str(tmp_path / "f"))
    assert folder.n_bytes == 12
    assert [n_read for _, n_read in read_documents(folder)] == [3, 9]
    stdin(b"a\nb\n")
    assert find_source("-").n_bytes == 0
    assert [n_read for _, n_read in read_documents(find_source("-"))] == [4, 4]


documents = st.lists(
    st.builds(
        Document,
        id=st.text(min_size=1, max_size=5),
        text=st.text(min_size=1).filter(lambda text: not is_blank(text)),
        title=st.none() | st.text(min_size=1),
        metadata=st.dictionaries(
            st.text(), st.none() | st.booleans() | st.integers() | st.text(), max_size=3
        ),
    ),
    max_size=5,
)


@given(documents=documents, ascii=st.booleans())
def test_what_was_written_as_json_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, documents: list[Document], ascii: bool
) -> None:
    path = tmp_path_factory.mktemp("json") / "a.jsonl"
    rows = (
        {"id": d.id, "text": d.text, "title": d.title, "metadata": d.metadata} for d in documents
    )
    lines = [json.dumps(row, ensure_ascii=ascii) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    assert read(str(path)) == documents


# --- what would be lost -------------------------------------------------------------------------------


def test_documents_that_replace_another_one_are_counted(write: Write) -> None:
    rows = ["怎么退货,七天内", "怎么付款,微信", "怎么退货,找客服", "怎么付款,微信"]
    name = write("a.csv", "\n".join(["text,answer", *rows]))
    (said,) = sentences(noted(name))
    assert said.startswith(f"{name}: documents that replaced another one of the same id, which is")
    assert "is lost: 1; a document without an id is named after its text" in said
    assert sentences(noted(write("b.csv", "id,text,answer\n1,甲,x\n2,甲,y\n"))) == []
    assert sentences(noted(write("c.txt", "甲\n乙\n甲\n"))) == []


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_questions_with_the_same_answer_are_all_kept(write: Write, suffix: str) -> None:
    asked = ["怎么请假", "怎么报销", "怎么改工号", "怎么请假", ""]
    if suffix == "csv":
        lines = ["问题,答案", *(f"{question},找人事部" for question in asked)]
    else:
        lines = [json.dumps({"问题": question, "答案": "找人事部"}) for question in asked]
    name = write(f"a.{suffix}", "\n".join(lines))
    found = {document.id: document.title for document in read(name)}
    assert list(found.values()) == ["怎么请假", "怎么报销", "怎么改工号", None]
    assert next(iter(found)) == text_id("找人事部")
    assert {document.id: document.title for document in read(name)} == found
    assert not any("lost" in each for each in sentences(noted(name)))


def test_keys_are_found_by_their_usual_names(write: Write) -> None:
    name = write("a.jsonl", '{"正文": "甲", "ID": 7}\n{"正文": "乙", "ID": 8, "TITLE": "x"}\n')
    assert read(name) == [Document("7", "甲"), Document("8", "乙", "x")]
    assert [said.partition(", by their names")[0] for said in sentences(noted(name))] == [
        "read as text from 正文, id from ID",
        "read as text from 正文, title from TITLE, id from ID",
    ]
    name = write("b.jsonl", '{"正文": "甲", "ID": 7}\n{"正文": "乙", "ID": 7}\n')
    assert read(name)[1] == Document(text_id("乙"), "乙", None, {"ID": 7})
    assert any("column ID looks like an id" in said for said in sentences(noted(name)))
    assert [each.id for each in read(name, columns={"id": "ID"})] == ["7", "7"]
    assert read(name, columns={"id": "none"}, types="ID=text")[0].metadata == {"ID": "7"}


def test_keys_are_named_by_flags(write: Write) -> None:
    name = write("a.jsonl", '{"q": "甲", "a": "乙", "t": "x", "d": "2024/1/5"}\n{"a": "丙"}\n')
    found = read(name, columns={"text": "a", "title": "t", "id": "q"}, types="d=date")
    assert found == [
        Document("甲", "乙", "x", {"d": "2024-01-05"}),
        Document(text_id("丙"), "丙"),
    ]
    assert "there is no column b, which --id-column names, only: q, a, t, d" in wrong_line(
        name, 1, columns={"text": "a", "id": "b"}
    )
    assert "name the one of the texts with --text-column" in wrong_line(name, 1)


def test_other_files_of_a_folder_are_reported(write: Write, tmp_path: Path) -> None:
    for name in ("a.txt", "b.jpg", "in/c.zip", ".hidden.csv"):
        write(f"f/{name}", "text\n")
    write("f/d.md", " ")
    assert sentences(noted(str(tmp_path / "f"))) == [
        f"files of formats that are not read, left out: {tmp_path}/f/b.jpg and 1 more",
        f"files without any text, left out: {tmp_path}/f/d.md",
    ]


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.jsonl"])
def test_a_line_or_text_without_end_is_refused(
    write: Write, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(decoding, "MOST_CHARACTERS", 100_000)
    monkeypatch.setattr(decoding, "READ_BYTES", 1_000)
    assert len(texts(write("b.txt", "甲" * 90_000 + "\n" + "乙" * 90_000))) == 2
    error = refusal(write(name, "甲" * 200_000))
    assert "has a line or text of more than 100,000 characters; split it" in error.english


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_document_beyond_a_limit_is_named_by_its_line(write: Write, name: str) -> None:
    rows = [("甲", "题"), ("乙", "题" * (MAX_TITLE + 1)), ("丙", "题")]
    content = "".join(json.dumps({"text": a, "title": b}) + "\n" for a, b in rows)
    if name == "a.csv":
        content = "text,title\n" + "".join(f"{a},{b}\n" for a, b in rows)
    why = wrong_line(write(name, content), 2 + name.endswith("csv"))
    assert why.startswith(f"it cannot be stored: title has {MAX_TITLE + 1} characters, at most")


def test_metadata_that_is_nested_too_deeply_is_named_by_its_line(write: Write) -> None:
    deep = "[" * 900 + "]" * 900
    name = write("a.jsonl", '{"text": "甲"}\n{"text": "乙", "a": ' + deep + "}\n")
    assert wrong_line(name, 2).startswith("it cannot be stored: metadata is nested deeper than")


def test_lines_and_files_of_invisible_characters_are_left_out_and_counted(write: Write) -> None:
    name = write("a.txt", "甲\n\n\u200b\n\u2060\ufeff\n乙\n")
    assert [document.text for document in read(name)] == ["甲", "乙"]
    assert sentences(noted(name)) == [f"{name}: blank rows left out: 2"]
    (said,) = sentences(noted(write("b.md", "\u200b\n\u3164")))
    assert said.startswith("files without any text, left out: ")
    table = write("c.csv", "text,n\n甲,1\n\u200b,\u200b\n")
    assert [document.text for document in read(table)] == ["甲"]
