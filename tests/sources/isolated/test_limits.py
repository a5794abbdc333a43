"""Files that are broken, encrypted or made to do harm: each is refused with its reason, and nothing else is lost."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

pytest.importorskip("lxml", reason="needs the office extra")

from server.errors import BadSettings
from server.sources.isolated.answering import MODULES
from server.sources.isolated.limits import MB, Limits
from server.sources.isolated.read import read_apart, read_office
from server.sources.source import Options, Source
from server.store.records import Document
from tests.support import office_files as make

LIMITS = Limits(wait_s=20.0, cpu_s=20)
FORMATS = {"pdf": "pdf", "docx": "docx", "xlsx": "xlsx", "pptx": "pptx", "epub": "epub"}


def documents(name: str, data: bytes, limits: Limits = LIMITS) -> list[Document]:
    format = {"xls": "xlsx"}.get(name.rpartition(".")[2], name.rpartition(".")[2])
    source = Source(name, (Path(name),), Path(), len(data), Options())
    return [document for document, _ in read_apart(data, name, format, source, limits)]


def reason(name: str, data: bytes, limits: Limits = LIMITS) -> str:
    """Return why a file is refused, and check that the next one is read."""
    with pytest.raises(BadSettings) as refused:
        documents(name, data, limits)
    assert refused.value.english.startswith(f"{name} was not read: ")
    assert [each.text for each in documents("b.pdf", make.pdf([["x"]]), limits)] == ["x"]
    return refused.value.english.partition(": ")[2]


def patched(data: bytes, parts: Mapping[str, str]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return make.zipped({**{name: archive.read(name) for name in archive.namelist()}, **parts})


def document(inner: str, before: str = "") -> str:
    return f"{before}<w:document {make.W}><w:body>{inner}</w:body></w:document>"


# --- broken and encrypted -----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
def test_file_of_another_format_is_named(suffix: str) -> None:
    assert "damaged or of another format" in reason(f"a.{suffix}", b"<html>hello" * 50)


@pytest.mark.parametrize("suffix", ["docx", "xlsx", "pptx", "epub"])
def test_file_that_was_cut_off_is_named(suffix: str) -> None:
    assert "damaged" in reason(f"a.{suffix}", make.docx(make.paragraph("x"))[:-30])


def test_zip_archive_that_is_no_office_file_is_named() -> None:
    data = make.zipped({"a.txt": "x"})
    assert "not a Word file" in reason("a.docx", data)
    assert "not a PowerPoint file" in reason("a.pptx", data)
    assert "not an EPUB book" in reason("a.epub", data)


@pytest.mark.parametrize("suffix", ["docx", "xlsx", "pptx"])
def test_encrypted_office_file_says_what_to_do(suffix: str) -> None:
    data = bytes.fromhex("d0cf11e0a1b11ae1") + b"\0" * 600 + "EncryptedPackage".encode("utf-16-le")
    assert reason(f"a.{suffix}", data) == "it is encrypted; save a copy without a password"


def test_encrypted_pdf_says_what_to_do() -> None:
    objects = {
        1: b"<</Type/Catalog/Pages 2 0 R>>",
        2: b"<</Type/Pages/Kids[]/Count 0>>",
        8: b"<</Filter/Standard/V 1/R 2/P -4/O<" + b"41" * 32 + b">/U<" + b"42" * 32 + b">>>",
    }
    data = make.pdf_of(objects).replace(b"/Root", b"/ID[<41><41>]/Encrypt 8 0 R/Root")
    assert reason("a.pdf", data) == "it is encrypted; save a copy without a password"


def test_encrypted_zip_entry_says_what_to_do() -> None:
    data = bytearray(make.zipped({"word/document.xml": "x"}))
    directory = data.index(b"PK\x01\x02")
    data[6] |= 1
    data[directory + 8] |= 1
    assert reason("a.docx", bytes(data)) == "it is encrypted; save a copy without a password"


def test_old_word_file_under_a_new_suffix_is_named() -> None:
    data = bytes.fromhex("d0cf11e0a1b11ae1") + b"\0" * 600
    assert "old binary format" in reason("a.docx", data)


# --- bombs --------------------------------------------------------------------------------------------


def test_zip_bomb_is_refused_before_it_is_unpacked() -> None:
    data = make.zipped({"word/document.xml": b" " * (64 * MB)})
    assert "zip bomb" in reason("a.docx", data)
    assert "zip bomb" in reason("a.xlsx", data)


def test_entry_that_is_larger_than_it_says_is_refused() -> None:
    data = bytearray(make.docx(make.paragraph("x" * 10_000)))
    place = data.index(b"word/document.xml", data.index(b"PK\x01\x02")) - 46
    data[place + 24 : place + 28] = (100).to_bytes(4, "little")
    assert "word/document.xml is damaged" in reason("a.docx", bytes(data))


def test_archive_of_very_many_files_is_refused() -> None:
    data = make.zipped({f"{n}": "" for n in range(20_001)}, compress=False)
    assert "20,001 files inside, at most 20,000" in reason("a.docx", data)


def test_entities_of_xml_are_not_expanded() -> None:
    entities = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
    laughs = document(make.paragraph("&a9;"), f'<!DOCTYPE x [<!ENTITY a0 "ha">{entities}]>')
    assert "not valid XML" in reason("a.docx", make.docx("", {"word/document.xml": laughs}))


def test_file_of_the_machine_is_not_read_through_an_entity(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    outer = f'<!DOCTYPE x [<!ENTITY a SYSTEM "file://{tmp_path}/secret">]>'
    data = make.docx("", {"word/document.xml": document(make.paragraph("&a;"), outer)})
    assert "defines entities" in reason("a.docx", data)


def test_entity_in_another_encoding_is_refused_too() -> None:
    outer = '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE x [<!ENTITY a "ha">]>'
    data = document(make.paragraph("x &a;"), outer).encode("utf-16")
    assert "defines entities" in reason("a.docx", make.docx("", {"word/document.xml": data}))


def test_table_of_very_many_columns_is_read_in_a_moment() -> None:
    names = ",".join(["text", *(f"c{n}" for n in range(50_000)), "c0"])
    with pytest.raises(BadSettings, match="two columns are named"):
        documents("a.csv", names.encode(), Limits(wait_s=5.0))


def test_xml_and_html_that_are_nested_very_deeply_are_refused() -> None:
    assert "Excessive depth" in reason("a.docx", make.docx("<w:tbl><w:tr><w:tc>" * 50_000))
    assert "Excessive depth" in reason("a.html", b"<div>" * 50_000 + b"x")


def test_mail_that_is_nested_very_deeply_is_refused() -> None:
    parts = "".join(
        f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n" for n in range(1_000)
    )
    assert "damaged" in reason("a.eml", f"Subject: x\n{parts}".encode())


def test_table_with_a_cell_far_away_is_bounded_in_memory() -> None:
    cells = (
        '<row r="1"><c r="A1" t="inlineStr"><is><t>text</t></is></c></row>'
        '<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'
    )
    sheet = f"<worksheet {make.S}><sheetData>{cells}</sheetData></worksheet>"
    data = patched(make.xlsx({"a": [["text"]]}), {"xl/worksheets/sheet1.xml": sheet})
    assert "needs more than 2,048 MB of memory" in reason("a.xlsx", data)


def test_table_of_very_many_sheets_or_columns_is_refused() -> None:
    many = make.xlsx({f"s{n}": [] for n in range(1_001)})
    assert "1,001 sheets, at most 1,000" in reason("a.xlsx", many)
    wide = make.xlsx({"a": [["text", *(f"c{n}" for n in range(4_000))]]})
    assert "more than 4,000 columns" in reason("a.xlsx", wide)


def test_picture_of_absurd_size_costs_nothing() -> None:
    objects = {
        1: b"<</Type/Catalog/Pages 2 0 R>>",
        2: b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        3: b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Resources<</XObject<</I 6 0 R>>>>/Contents 4 0 R>>",
        4: make.stream("", b"/I Do"),
        6: make.stream(
            "/Type/XObject/Subtype/Image/Width 1000000/Height 1000000/ColorSpace/DeviceRGB"
            "/BitsPerComponent 8",
            b"x",
        ),
    }
    assert documents("a.pdf", make.pdf_of(objects)) == []


def test_pages_that_are_not_there_are_bounded() -> None:
    objects = {
        1: b"<</Type/Catalog/Pages 2 0 R>>",
        2: b"<</Type/Pages/Kids[2 0 R 2 0 R]/Count 1000000>>",
    }
    assert "1,000,000 pages, at most 50,000" in reason("a.pdf", make.pdf_of(objects))


def test_file_that_takes_forever_is_ended() -> None:
    data = make.endless_pdf()
    assert "was not read within 0.3 s" in reason("a.pdf", data, Limits(wait_s=0.3))


@pytest.mark.slow
def test_file_that_computes_forever_is_ended_by_the_system() -> None:
    """Also where the command that waits for it has ended."""
    assert "was not read within" in reason("a.pdf", make.endless_pdf(), Limits(cpu_s=0))


def test_text_of_a_file_is_bounded() -> None:
    data = make.xlsx({"a": [["text"], *([f"{n}" * 1_000] for n in range(100))]})
    limits = Limits(text_bytes=MB // 10)
    assert "more than 0 MB of text" in reason("a.xlsx", data, limits)


def test_size_of_a_file_is_bounded(tmp_path: Path) -> None:
    file = tmp_path / "a.pdf"
    file.write_bytes(b"x" * (2 * MB))
    source = Source("a", (file,), tmp_path, 0)
    with pytest.raises(BadSettings, match="more than 1 MB; split it"):
        list(read_office(file, source, Limits(file_bytes=MB)))


def test_every_format_has_a_reader() -> None:
    from server.sources.office.formats import OFFICE

    assert set(MODULES) == set(OFFICE)
