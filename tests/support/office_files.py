"""Office files made by hand, as small as they can be: no test needs a package that writes them."""

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"


def zipped(parts: Mapping[str, str | bytes], *, compress: bool = True) -> bytes:
    """Return a zip archive of these parts."""
    buffer = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def relations(targets: Mapping[str, tuple[str, str]]) -> str:
    """Return a part that refers to others: kind and name by id."""
    each = "".join(
        f'<Relationship Id="{id}" Type="{RELATION}/{kind}" Target="{name}"/>'
        for id, (kind, name) in targets.items()
    )
    return f'<Relationships xmlns="{RELATIONS}">{each}</Relationships>'


# --- Word ---------------------------------------------------------------------------------------------


def paragraph(text: str, style: str = "", inner: str = "") -> str:
    """Return a paragraph of a Word file; inner: more of its XML."""
    named = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{named}<w:r><w:t>{text}</w:t></w:r>{inner}</w:p>"


def docx(body: str, more: Mapping[str, str | bytes] | None = None, title: str = "") -> bytes:
    """Return a Word file; body: the XML inside of its body. Styles Heading1 and Heading2 exist."""
    styles = "".join(
        f'<w:style w:type="paragraph" w:styleId="Heading{n}"><w:name w:val="heading {n}"/></w:style>'
        for n in (1, 2)
    )
    parts = {
        "_rels/.rels": relations({"a": ("officeDocument", "word/document.xml")}),
        "word/document.xml": f"<w:document {W}><w:body>{body}</w:body></w:document>",
        "word/_rels/document.xml.rels": relations(
            {"a": ("styles", "styles.xml"), "b": ("footnotes", "footnotes.xml")}
        ),
        "word/styles.xml": f"<w:styles {W}>{styles}</w:styles>",
    }
    if title:
        parts["docProps/core.xml"] = core(title)
    return zipped({**parts, **(more or {})})


def core(title: str) -> str:
    return (
        '<cp:coreProperties xmlns:cp="http://schemas.openxmlformats.org/package/2006/metadata/'
        'core-properties" xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"<dc:title>{title}</dc:title></cp:coreProperties>"
    )


# --- PowerPoint ---------------------------------------------------------------------------------------


def pptx(slides: Sequence[tuple[str, str, str]]) -> bytes:
    """Return a PowerPoint file; slides: title, text and notes of each."""
    names = {f"r{n}": ("slide", f"slides/slide{n}.xml") for n in range(1, len(slides) + 1)}
    listed = "".join(f'<p:sldId id="{n}" r:id="{id}"/>' for n, id in enumerate(names, 256))
    parts = {
        "_rels/.rels": relations({"a": ("officeDocument", "ppt/presentation.xml")}),
        "ppt/presentation.xml": (
            f'<p:presentation {P} xmlns:r="{RELATION}"><p:sldIdLst>{listed}</p:sldIdLst></p:presentation>'
        ),
        "ppt/_rels/presentation.xml.rels": relations(names),
    }
    for number, (title, text, notes) in enumerate(slides, 1):
        parts[f"ppt/slides/slide{number}.xml"] = slide(shape(title, "title") + shape(text, "body"))
        parts[f"ppt/slides/_rels/slide{number}.xml.rels"] = relations(
            {"n": ("notesSlide", f"../notesSlides/notes{number}.xml")}
        )
        parts[f"ppt/notesSlides/notes{number}.xml"] = slide(shape(notes, "body"))
    return zipped(parts)


P = (
    'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main"'
    ' xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"'
)


def slide(shapes: str) -> str:
    return f"<p:sld {P}><p:cSld><p:spTree>{shapes}</p:spTree></p:cSld></p:sld>"


def shape(text: str, kind: str) -> str:
    return (
        f'<p:sp><p:nvSpPr><p:nvPr><p:ph type="{kind}"/></p:nvPr></p:nvSpPr><p:txBody><a:p><a:r>'
        f"<a:t>{text}</a:t></a:r></a:p></p:txBody></p:sp>"
    )


# --- Excel --------------------------------------------------------------------------------------------

S = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'


def xlsx(
    sheets: Mapping[str, Sequence[Sequence[object]]],
    hidden: Sequence[str] = (),
    merged: Sequence[str] = (),
) -> bytes:
    """Return an Excel file of these sheets; merged: ranges of each, such as "A2:A3".

    A text "date:45296" is the moment of this number, and "length:1.5" that many days.
    """
    names = {f"r{n}": ("worksheet", f"worksheets/sheet{n}.xml") for n in range(1, len(sheets) + 1)}
    states = {name: ' state="hidden"' for name in hidden}
    listed = "".join(
        f'<sheet name="{name}" sheetId="{n}" r:id="r{n}"{states.get(name, "")}/>'
        for n, name in enumerate(sheets, 1)
    )
    parts = {
        "_rels/.rels": relations({"a": ("officeDocument", "xl/workbook.xml")}),
        "xl/workbook.xml": f'<workbook {S} xmlns:r="{RELATION}"><sheets>{listed}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": relations({**names, "s": ("styles", "styles.xml")}),
        "xl/styles.xml": (
            f'<styleSheet {S}><cellXfs count="3"><xf numFmtId="0"/><xf numFmtId="22"/><xf numFmtId="46"/>'
            "</cellXfs></styleSheet>"
        ),
    }
    for number, rows in enumerate(sheets.values(), 1):
        parts[f"xl/worksheets/sheet{number}.xml"] = worksheet(rows, merged)
    return zipped(parts)


def worksheet(rows: Sequence[Sequence[object]], merged: Sequence[str] = ()) -> str:
    lines = (
        f'<row r="{n}">{"".join(_cell(f"{column(c)}{n}", value) for c, value in enumerate(row))}</row>'
        for n, row in enumerate(rows, 1)
    )
    ranges = "".join(f'<mergeCell ref="{each}"/>' for each in merged)
    below = f"<mergeCells>{ranges}</mergeCells>" if merged else ""
    return f"<worksheet {S}><sheetData>{''.join(lines)}</sheetData>{below}</worksheet>"


def column(number: int) -> str:
    """Return the letters of a column, from 0."""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(65 + rest) + letters
    return letters


def _cell(place: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return f'<c r="{place}" t="b"><v>{int(value)}</v></c>'
    if isinstance(value, int | float):
        return f'<c r="{place}"><v>{value}</v></c>'
    value = str(value)
    for style, start in enumerate(("date:", "length:"), 1):
        if value.startswith(start):
            return f'<c r="{place}" s="{style}"><v>{value.removeprefix(start)}</v></c>'
    return f'<c r="{place}" t="inlineStr"><is><t>{value}</t></is></c>'


# --- PDF ----------------------------------------------------------------------------------------------


def pdf(pages: Sequence[Sequence[str] | None], title: str = "") -> bytes:
    """Return a PDF file; each page has lines of text, or an image for None."""
    number = len(pages)
    kids = " ".join(f"{10 + 2 * n} 0 R" for n in range(number))
    objects: dict[int, bytes] = {
        1: b"<</Type/Catalog/Pages 2 0 R>>",
        2: f"<</Type/Pages/Kids[{kids}]/Count {number}>>".encode(),
        3: b"<</Type/Font/Subtype/Type0/BaseFont/STSong-Light/Encoding/UniGB-UTF16-H/DescendantFonts[4 0 R]>>",
        4: b"<</Type/Font/Subtype/CIDFontType0/BaseFont/STSong-Light/CIDSystemInfo"
        b"<</Registry(Adobe)/Ordering(GB1)/Supplement 4>>/FontDescriptor 5 0 R>>",
        5: b"<</Type/FontDescriptor/FontName/STSong-Light/Flags 6/FontBBox[0 -200 1000 900]/ItalicAngle 0"
        b"/Ascent 800/Descent -200/CapHeight 700/StemV 90>>",
        6: stream(
            "/Type/XObject/Subtype/Image/Width 1/Height 1/ColorSpace/DeviceGray/BitsPerComponent 8",
            b"\x80",
        ),
        7: b"<</Title<feff" + title.encode("utf-16-be").hex().encode() + b">>>",
    }
    for n, lines in enumerate(pages):
        page, content = 10 + 2 * n, 11 + 2 * n
        objects[page] = (
            "<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Resources<</Font<</F 3 0 R>>"
            f"/XObject<</I 6 0 R>>>>/Contents {content} 0 R>>"
        ).encode()
        objects[content] = stream("", drawn(lines))
    return pdf_of(objects)


def drawn(lines: Sequence[str] | None) -> bytes:
    """Return the content of a page."""
    if lines is None:
        return b"q 500 0 0 500 50 50 cm /I Do Q"
    shown = "".join(f"<{line.encode('utf-16-be').hex()}>Tj T*" for line in lines)
    return f"BT /F 12 Tf 15 TL 50 750 Td {shown} ET".encode()


def stream(head: str, data: bytes, *, compress: bool = True) -> bytes:
    """Return a stream object."""
    if compress:
        data, head = zlib.compress(data), head + "/Filter/FlateDecode"
    return f"<<{head}/Length {len(data)}>>stream\n".encode() + data + b"\nendstream"


def pdf_of(objects: Mapping[int, bytes]) -> bytes:
    """Return a file of these objects, of which 1 is the catalogue and 7 perhaps the properties."""
    out, places = bytearray(b"%PDF-1.7\n"), dict[int, int]()
    for number, content in objects.items():
        places[number] = len(out)
        out += f"{number} 0 obj\n".encode() + content + b"\nendobj\n"
    begin, most = len(out), max(objects) + 1
    out += f"xref\n0 {most}\n".encode()
    for number in range(most):
        used = number in places
        out += f"{places.get(number, 0):010d} {0 if used else 65535:05d} {'n' if used else 'f'} \n".encode()
    properties = "/Info 7 0 R" if 7 in objects else ""
    out += f"trailer<</Size {most}/Root 1 0 R{properties}>>\nstartxref\n{begin}\n%%EOF".encode()
    return bytes(out)


def endless_pdf() -> bytes:
    """Return a file that takes forever to read: each of 20 forms draws the next one 20 times."""
    objects = {
        1: b"<</Type/Catalog/Pages 2 0 R>>",
        2: b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        3: b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Resources<</XObject<</X 10 0 R>>>>/Contents 4 0 R>>",
        4: stream("", b"/X Do"),
    }
    for number in range(10, 30):
        form = (
            f"/Type/XObject/Subtype/Form/BBox[0 0 1 1]/Resources<</XObject<</X {number + 1} 0 R>>>>"
        )
        objects[number] = stream(form, b"/X Do " * 20)
    objects[30] = stream("/Type/XObject/Subtype/Form/BBox[0 0 1 1]", b"0 0 m")
    return pdf_of(objects)


# --- EPUB ---------------------------------------------------------------------------------------------


def epub(chapters: Sequence[str], title: str = "", more: Mapping[str, str] | None = None) -> bytes:
    """Return a book; chapters: the XML inside of each one's body."""
    items = "".join(
        f'<item id="c{n}" href="c%20{n}.xhtml" media-type="application/xhtml+xml"/>'
        for n in range(len(chapters))
    )
    spine = "".join(f'<itemref idref="c{n}"/>' for n in range(len(chapters)))
    parts = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": (
            '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
        ),
        "OEBPS/book.opf": (
            '<package xmlns="http://www.idpf.org/2007/opf"><metadata'
            f' xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{title}</dc:title></metadata>'
            f"<manifest>{items}</manifest><spine>{spine}</spine></package>"
        ),
    }
    for n, chapter in enumerate(chapters):
        parts[f"OEBPS/c {n}.xhtml"] = (
            '<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml">'
            f"<body>{chapter}</body></html>"
        )
    return zipped({**parts, **(more or {})})
