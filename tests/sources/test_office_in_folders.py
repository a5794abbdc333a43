"""Office files in folders, beside others: what is read, what is left out, and that one bad file stops nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("lxml", reason="needs the office extra")

from server.errors import BadSettings
from server.sources.isolated.process import close_all
from server.sources.problems import Problems
from server.sources.readers import find_sources, read_documents
from server.sources.source import Options, Source
from tests.support import office_files as make


@pytest.fixture(scope="module", autouse=True)
def processes_end() -> Iterator[None]:
    yield
    close_all()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.docx").write_bytes(make.docx(make.paragraph("甲")))
    (tmp_path / "b.md").write_text("乙", encoding="utf-8")
    inner = tmp_path / "内"
    inner.mkdir()
    (inner / "c.pdf").write_bytes(make.pdf([["丙"], ["丁"]]))
    (inner / "d.xlsx").write_bytes(make.xlsx({"S": [["id", "正文"], [1, "戊"]]}))
    return tmp_path


def found(folder: Path, problems: Problems | None = None) -> tuple[Source, list[str]]:
    (source,) = find_sources([str(folder)], Options(), problems=problems)
    return source, [document.id for document, _ in read_documents(source)]


def test_folder_is_read_with_all_its_formats(folder: Path) -> None:
    assert found(folder)[1] == [
        "a.docx#section=1",
        "b.md",
        "内/c.pdf#page=1",
        "内/c.pdf#page=2",
        "内/d.xlsx#1",
    ]


def test_file_that_cannot_be_read_is_listed_and_the_others_are_read(folder: Path) -> None:
    (folder / "a.docx").write_bytes(b"PK\x03\x04 cut off")
    listed: list[BadSettings] = []
    problems = Problems(keep_going=False, listed=listed.append)
    _, ids = found(folder, problems)
    assert len(ids) == 4 and problems.number == 1
    assert listed[0].english.startswith(f"{folder}/a.docx was not read: it is damaged")


def test_file_that_cannot_be_read_ends_the_command_where_it_is_the_only_one(folder: Path) -> None:
    (folder / "a.docx").write_bytes(b"x")
    with pytest.raises(BadSettings, match="was not read"):
        found(folder / "a.docx")


def test_lock_files_and_old_formats_are_left_out_and_named(folder: Path) -> None:
    (folder / "~$a.docx").write_bytes(b"x")
    (folder / "old.doc").write_bytes(b"x")
    source, ids = found(folder)
    assert len(ids) == 5
    assert [note.english for note in source.notes.messages()][-1] == (
        f"files to save first as .docx, .pptx, .xlsx, .epub or .eml, left out: {folder}/old.doc"
    )


def test_old_format_that_is_named_says_what_to_do(folder: Path) -> None:
    (folder / "old.doc").write_bytes(b"x")
    with pytest.raises(BadSettings, match=r"save it as \.docx, for example with LibreOffice$"):
        found(folder / "old.doc")


def test_two_files_of_the_same_name_are_not_stored_over_each_other(folder: Path) -> None:
    (folder / "内" / "a.docx").write_bytes(make.docx(make.paragraph("己")))
    with pytest.raises(BadSettings, match="would both be the document"):
        find_sources([str(folder / "a.docx"), str(folder / "内" / "a.docx")], Options())
