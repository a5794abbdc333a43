"""EPUB books: the chapters in reading order, under their headings."""

import posixpath
from collections.abc import Iterator

from server.sources.office.archive import Archive, resolved, unquoted
from server.sources.office.given import Given
from server.sources.office.html import decoded, outlined, parsed
from server.sources.office.outline import Outline
from server.sources.office.section import Section, Unreadable

CONTAINER = "META-INF/container.xml"
ENCRYPTION = "META-INF/encryption.xml"
PAGES = {"application/xhtml+xml", "text/html", "application/html+xml"}
# Encryption of fonts only, which the text does not need.
OF_FONTS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")


def sections(given: Given) -> Iterator[Section]:
    """Yield a section for each heading with a text under it, through the whole book."""
    archive = Archive(given.data)
    _check_not_protected(archive)
    package = _package(archive)
    root = archive.xml(package)
    title = root.find(".//{http://purl.org/dc/elements/1.1/}title")
    outline = Outline((title.text if title is not None else "") or given.stem)
    folder = posixpath.dirname(package)
    items = {
        each.get("id", ""): resolved(folder, unquoted(each.get("href", "")))
        for each in root.iter("{*}item")
        if each.get("media-type") in PAGES
    }
    for each in root.iter("{*}itemref"):
        if name := items.get(each.get("idref", "")):
            page = parsed(decoded(archive.read(name))[0])
            if page is not None:
                yield from outlined(page, outline)
                yield from outline.end()


def _package(archive: Archive) -> str:
    """Return the name of the file that lists the book's parts."""
    if CONTAINER in archive:
        for each in archive.xml(CONTAINER).iter("{*}rootfile"):
            if path := each.get("full-path"):
                return unquoted(path)
    raise Unreadable("it is a zip archive, but not an EPUB book")


def _check_not_protected(archive: Archive) -> None:
    if ENCRYPTION not in archive:
        return
    for each in archive.xml(ENCRYPTION).iter("{*}EncryptionMethod"):
        if each.get("Algorithm") not in OF_FONTS:
            raise Unreadable("it is encrypted by its publisher, and cannot be read without the key")
