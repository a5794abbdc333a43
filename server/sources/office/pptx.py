"""PowerPoint files: the text of each slide and its notes."""

from collections.abc import Iterator

from lxml import etree

from server.sources.office.archive import Archive, core_title
from server.sources.office.given import Given
from server.sources.office.section import Section, Unreadable, clean, one_line
from server.sources.place import HEADING, SLIDE

RELATION_ID = (
    "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id",
    "{http://purl.oclc.org/ooxml/officeDocument/relationships}id",
)
# Placeholders of a slide that say nothing of it.
LEFT_OUT = {"sldNum", "dt", "ftr", "hdr", "sldImg"}
TITLES = {"title", "ctrTitle"}


def sections(given: Given) -> Iterator[Section]:
    """Yield a section for each slide with a text, in the order in which they are shown."""
    archive = Archive(given.data)
    main = _main(archive)
    whole = core_title(archive) or given.stem
    relations = archive.relations(main)
    for number, id in enumerate(_slide_ids(archive.xml(main)), 1):
        kind, name = relations.get(id, ("", ""))
        if kind != "slide":
            raise Unreadable("its slide {number} is missing, so it is damaged", number=number)
        title, text = _slide(archive, name)
        if text:
            place: dict[str, object] = {SLIDE: number}
            if title:
                place[HEADING] = title
            yield Section(text, title or one_line(whole), f"slide={number}", place)


def _main(archive: Archive) -> str:
    for kind, name in archive.relations("").values():
        if kind == "officeDocument":
            return name
    raise Unreadable("it is a zip archive, but not a PowerPoint file")


def _slide_ids(root: etree._Element) -> list[str]:
    """Return the ids of the relations to the slides."""
    return [
        next((each.get(key) for key in RELATION_ID if each.get(key)), "")
        for each in root.iter("{*}sldId")
    ]


def _slide(archive: Archive, name: str) -> tuple[str, str]:
    """Return the title of a slide and its text, with the notes at the end."""
    title, texts = _texts(archive.xml(name))
    for kind, notes in archive.relations(name).values():
        if kind == "notesSlide":
            texts += _texts(archive.xml(notes))[1]
    title = one_line(title)
    return title, "\n".join(texts) or title


def _texts(root: etree._Element) -> tuple[str, list[str]]:
    """Return the title, and the paragraphs of all other shapes and tables."""
    title, texts = "", list[str]()
    for shape in root.iter("{*}sp", "{*}graphicFrame"):
        holder = shape.find("{*}nvSpPr/{*}nvPr/{*}ph")
        kind = "" if holder is None else holder.get("type", "")
        if kind in LEFT_OUT:
            continue
        found = [text for part in shape if (text := _text_of(part))]
        if kind in TITLES and not title:
            title = " ".join(found)
        else:
            texts += found
    return title, texts


def _text_of(element: etree._Element) -> str:
    """Return the text of a part of a shape: a row of a table, or a paragraph, on each line."""
    lines = []
    rows = list(element.iter("{*}tr"))
    for row in rows:
        cells = (" ".join(_paragraphs(cell)) for cell in row.iterchildren("{*}tc"))
        lines.append(" | ".join(filter(None, cells)))
    if not rows:
        lines = _paragraphs(element)
    return "\n".join(filter(None, lines))


def _paragraphs(element: etree._Element) -> list[str]:
    """Return the paragraphs of an element that are not blank."""
    found = (
        "".join(
            "\n" if part.tag.endswith("}br") else part.text or ""
            for part in paragraph.iter("{*}t", "{*}br")
        )
        for paragraph in element.iter(
            "{http://schemas.openxmlformats.org/drawingml/2006/main}p",
            "{http://purl.oclc.org/ooxml/drawingml/main}p",
        )
    )
    return [text for each in found if (text := clean(each).strip())]
