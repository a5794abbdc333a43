"""Word files: headings, paragraphs, lists, tables and footnotes."""

from collections.abc import Iterator

from lxml import etree

from server.sources.office.archive import Archive, core_title
from server.sources.office.given import Given
from server.sources.office.outline import Outline
from server.sources.office.section import Section, Unreadable

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
STRICT = "{http://purl.oclc.org/ooxml/wordprocessingml/main}"
COMPATIBLE = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
# Elements without a text of the document: deleted text, fields' code, comments, the second version of
# a drawing.
LEFT_OUT = {
    "del",
    "moveFrom",
    "instrText",
    "delText",
    "rPr",
    "pPr",
    "sectPr",
    "tblPr",
    "tcPr",
    "trPr",
}
BODY_LEVEL = 9  # of an outline: no heading
MOST_DEPTH = 60  # of tables and boxes in each other


def sections(given: Given) -> Iterator[Section]:
    """Yield a section for each heading with a text under it."""
    archive = Archive(given.data)
    main = _main(archive)
    yield from _Reader(archive, main, given.stem).sections()


def _main(archive: Archive) -> str:
    for kind, name in archive.relations("").values():
        if kind == "officeDocument":
            return name
    raise Unreadable("it is a zip archive, but not a Word file")


class _Reader:
    """Walks one document."""

    def __init__(self, archive: Archive, main: str, stem: str) -> None:
        self._root = _unified(archive.xml(main))
        relations = dict(archive.relations(main).values())
        self._styles = _Styles(archive, relations.get("styles", ""))
        self._notes = {
            **_notes(archive, relations.get("footnotes", ""), "footnote"),
            **_notes(archive, relations.get("endnotes", ""), "endnote"),
        }
        self._title = core_title(archive) or stem
        self._outline = Outline(self._title)
        self._cited: list[str] = []

    def sections(self) -> Iterator[Section]:
        body = self._root.find(f"{W}body")
        if body is not None:
            yield from self._blocks(body, 0)
        yield from self._footnotes()
        yield from self._outline.end()

    def _blocks(self, parent: etree._Element, depth: int) -> Iterator[Section]:
        """Add paragraphs and tables; elements around them, such as content controls, are opened."""
        if depth > MOST_DEPTH:
            return
        for element in parent:
            name = local(element)
            if name == "p":
                yield from self._paragraph(element)
            elif name == "tbl":
                for row in element.iterchildren(f"{W}tr"):
                    yield from self._outline.paragraph(self._row(row))
            elif name not in LEFT_OUT:
                yield from self._blocks(element, depth + 1)

    def _paragraph(self, element: etree._Element) -> Iterator[Section]:
        text = self._text(element)
        level, is_listed = self._styles.of(element)
        if level < BODY_LEVEL and text.strip():
            yield from self._footnotes()
            yield from self._outline.heading(level + 1, text)
        else:
            yield from self._outline.paragraph(f"- {text}" if is_listed and text.strip() else text)

    def _row(self, row: etree._Element) -> str:
        cells = (
            " ".join(filter(None, (self._text(p).strip() for p in cell.iter(f"{W}p"))))
            for cell in row.iterchildren(f"{W}tc", f"{W}sdt")
        )
        return " | ".join(filter(None, cells))

    def _text(self, paragraph: etree._Element) -> str:
        """Return the text of a paragraph with marks for its footnotes."""
        parts: list[str] = []
        pending = [paragraph]
        while pending:
            element = pending.pop()
            name = local(element)
            if name in LEFT_OUT or element.tag == COMPATIBLE or name == "r" and _is_hidden(element):
                continue
            if name == "t":
                parts.append(element.text or "")
            elif name in ("tab", "ptab"):
                parts.append("\t")
            elif name in ("br", "cr"):
                parts.append("\n")
            elif name == "noBreakHyphen":
                parts.append("-")
            elif name in ("footnoteReference", "endnoteReference"):
                parts.append(self._cite(name.removesuffix("Reference"), element.get(f"{W}id", "")))
            pending += reversed(element)
        return "".join(parts)

    def _cite(self, kind: str, id: str) -> str:
        text = self._notes.pop(f"{kind} {id}", "")
        if not text:
            return ""
        self._cited.append(text)
        return f"[{len(self._cited)}]"

    def _footnotes(self) -> Iterator[Section]:
        """Add the footnotes that the section has referred to."""
        for number, text in enumerate(self._cited, 1):
            yield from self._outline.paragraph(f"[{number}] {text}")
        self._cited = []


class _Styles:
    """The outline level of each style, by its own property, its name, or the style it is based on."""

    def __init__(self, archive: Archive, name: str) -> None:
        self._levels: dict[str, int] = {}
        self._bases: dict[str, str] = {}
        self._listed: set[str] = set()
        root = _unified(archive.xml(name)) if name in archive else ()
        for style in root:
            if local(style) == "style" and style.get(f"{W}type") == "paragraph":
                self._add(style)

    def _add(self, style: etree._Element) -> None:
        id = style.get(f"{W}styleId", "")
        name = _value(style.find(f"{W}name")).lower()
        level = _value(style.find(f"{W}pPr/{W}outlineLvl"))
        for start in ("heading ", "标题 "):
            if name.startswith(start) and name.removeprefix(start).isdigit():
                self._levels[id] = min(int(name.removeprefix(start)[:2]), BODY_LEVEL) - 1
        if level.isdigit():
            self._levels[id] = int(level[:2])
        elif name in ("title", "标题"):
            self._levels[id] = 0
        if style.find(f"{W}pPr/{W}numPr") is not None or name.startswith("list "):
            self._listed.add(id)
        self._bases[id] = _value(style.find(f"{W}basedOn"))

    def of(self, paragraph: etree._Element) -> tuple[int, bool]:
        """Return the outline level of a paragraph, and whether it is an item of a list."""
        properties = paragraph.find(f"{W}pPr")
        if properties is None:
            return BODY_LEVEL, False
        own = _value(properties.find(f"{W}outlineLvl"))
        is_listed = properties.find(f"{W}numPr") is not None
        id = _value(properties.find(f"{W}pStyle"))
        seen: set[str] = set()
        level = int(own[:2]) if own.isdigit() else None
        while id and id not in seen:
            seen.add(id)
            is_listed = is_listed or id in self._listed
            if level is None and id in self._levels:
                level = self._levels[id]
            id = self._bases.get(id, "")
        return BODY_LEVEL if level is None else level, is_listed


def _notes(archive: Archive, name: str, kind: str) -> dict[str, str]:
    """Return the texts of footnotes or endnotes by kind and id."""
    if name not in archive:
        return {}
    return {
        f"{kind} {note.get(f'{W}id', '')}": " ".join(
            "".join(text.text or "" for text in note.iter(f"{W}t")).split()
        )
        for note in _unified(archive.xml(name))
        if local(note) == kind
    }


def _is_hidden(run: etree._Element) -> bool:
    hidden = run.find(f"{W}rPr/{W}vanish")
    return hidden is not None and hidden.get(f"{W}val", "1") not in ("0", "false", "off")


def _value(element: etree._Element | None) -> str:
    return "" if element is None else element.get(f"{W}val", "")


def local(element: etree._Element) -> str:
    """Return the name of an element without its namespace; empty for what is not an element."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _unified(root: etree._Element) -> etree._Element:
    """Return the root with the usual namespace, also of a file in the strict form of the standard."""
    if isinstance(root.tag, str) and root.tag.startswith(STRICT):
        for element in root.iter(f"{STRICT}*"):
            element.tag = W + local(element)
            for key, value in list(element.attrib.items()):
                if key.startswith(STRICT):
                    element.set(W + key[len(STRICT) :], value)
    return root
