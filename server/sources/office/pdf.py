"""PDF files: the text layer of each page."""

import re
from collections.abc import Iterator

import pypdfium2 as pdfium
import pypdfium2.raw as raw

from server.messages.message import Message
from server.sources.office import plain_font
from server.sources.office.given import Given
from server.sources.office.section import Section, Unreadable, clean, one_line
from server.sources.place import PAGE
from server.store.records import is_blank

# Objects of a page among which an image is looked for.
MOST_OBJECTS = 10_000
MOST_PAGES = 50_000
# What PDFium writes for a hyphen that only divides a word at the end of a line.
HYPHEN = re.compile("[\x02\ufffe]\n?")
# A line that ends within a Chinese sentence: words may be divided anywhere.
WITHIN = re.compile("(?<=[\u4e00-\u9fff，、；])\n(?=[\u4e00-\u9fff，、；])")

plain_font.install()


def sections(given: Given) -> Iterator[Section]:
    """Yield a section for each page with a text; pages that are images without one are noted."""
    document = _opened(given.data)
    try:
        title = one_line(_title(document)) or given.stem
        scans = broken = 0
        number = len(document)
        if number > MOST_PAGES:
            raise Unreadable(
                "it has {found:,} pages, at most {most:,} are read", found=number, most=MOST_PAGES
            )
        for index in range(number):
            try:
                text, is_scan = _page(document, index)
            except (pdfium.PdfiumError, ValueError):
                broken += 1
                continue
            if text:
                share = (index + 1) / number
                yield Section(text, title, f"page={index + 1}", {PAGE: index + 1}, share)
            scans += is_scan
        if scans:
            given.note(
                Message(
                    "{found:,} of {pages:,} pages are scans: no text; run OCR on it first",
                    found=scans,
                    pages=number,
                )
            )
        if broken:
            given.note(
                Message(
                    "{found:,} of {pages:,} pages are damaged and left out",
                    found=broken,
                    pages=number,
                )
            )
    finally:
        document.close()


def _opened(data: bytes) -> pdfium.PdfDocument:
    try:
        return pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        if getattr(error, "err_code", None) in (raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY):
            raise Unreadable("it is encrypted; save a copy without a password") from None
        raise Unreadable("it is damaged or of another format than its suffix says") from None


def _title(document: pdfium.PdfDocument) -> str:
    """Return the title in the file's properties, unless a program made it of a file's name."""
    found = str(document.get_metadata_value("Title")).strip()
    made = found.lower().startswith("microsoft ") or found.lower().endswith(
        (".doc", ".docx", ".indd")
    )
    return "" if made or found.lower() == "untitled" else found


def _page(document: pdfium.PdfDocument, index: int) -> tuple[str, bool]:
    """Return the text of a page, and whether it is an image without one."""
    page = document[index]
    try:
        read = page.get_textpage()
        try:
            text = WITHIN.sub("", HYPHEN.sub("", clean(read.get_text_range()))).strip()
        finally:
            read.close()
        if is_blank(text):
            return "", _has_image(page)
        return text, False
    finally:
        page.close()


def _has_image(page: pdfium.PdfPage) -> bool:
    found = page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE], max_depth=3)
    return any(True for _, _ in zip(found, range(MOST_OBJECTS), strict=False))
