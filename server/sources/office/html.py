"""HTML files: headings and paragraphs, without scripts and what is hidden."""

import codecs
import re
from collections.abc import Iterator

from lxml import etree, html

from server.sources.decoding import MARKS, is_chinese
from server.sources.office.archive import check_memory
from server.sources.office.given import Given
from server.sources.office.outline import Outline
from server.sources.office.section import Section, Unreadable, clean, one_line

DECLARED = re.compile(
    rb"<(?:meta[^>]{0,200}?charset|\?xml[^>]{0,100}?encoding)\s*=\s*[\"']?\s*([\w.:-]+)", re.I
)
DECLARED_WITHIN = 4096
XML_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
# A page in these is read as the encoding that has all their characters, as browsers do.
WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "iso8859-1": "cp1252", "ascii": "cp1252"}
LEFT_OUT = frozenset(
    (
        "script style noscript template svg math iframe object canvas audio video select button "
        "input textarea datalist nav head dialog"
    ).split()
)
HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.I)
BLOCKS = frozenset(
    (
        "address article aside blockquote body caption center dd details div dl dt fieldset "
        "figcaption figure footer form header hr html legend li main ol p pre section summary "
        "table tbody tfoot thead tr ul"
    ).split()
)
CELLS = {"td", "th"}
LEVELS = {f"h{level}": level for level in range(1, 7)}
BLANKS = re.compile(r"[ \t\n\f\r\u200b]+")


def sections(given: Given) -> Iterator[Section]:
    """Yield a section for each heading with a text under it."""
    text, encoding = decoded(given.data, given.source.encoding)
    if encoding != "utf-8":
        given.source.notes.found(encoding, given.shown)
    root = parsed(text)
    if root is not None:
        outline = Outline(title_of(root) or given.stem)
        yield from outlined(root, outline)
        yield from outline.end()


def decoded(data: bytes, asked: str | None = None) -> tuple[str, str]:
    """Return the text of a page and its encoding: asked for, of its mark, as declared, or detected."""
    mark = next((name for mark, name in MARKS if data.startswith(mark)), None)
    if mark is None and b"\0" in data:
        raise Unreadable("it has NUL bytes, so it is not HTML; was it given the wrong suffix?")
    if asked is not None and _as(data, asked) is None:
        raise Unreadable("it is not {encoding}", encoding=asked)
    declared = DECLARED.search(data[:DECLARED_WITHIN])
    for name in (asked, mark, declared and declared[1].decode("ascii", "replace"), "utf-8"):
        text = _as(data, name) if name else None
        if text is not None:
            return text
    encoding = "gb18030" if is_chinese(data) else "cp1252"
    return data.decode(encoding, "replace"), encoding


def _as(data: bytes, name: str) -> tuple[str, str] | None:
    """Return the text in an encoding, None where that is unknown or it is in another one."""
    try:
        found = codecs.lookup(name).name
        found = WIDER.get(found, found)
        return data.decode(found).removeprefix("\ufeff"), found
    except (LookupError, ValueError):
        return None


def parsed(text: str) -> etree._Element | None:
    """Return the root of a page, None for one without an element; raises Unreadable."""
    text = XML_DECLARATION.sub("", clean(text), count=1)
    if not text.strip():
        return None
    # huge_tree: pictures within a page are long. The process that reads is limited all the same.
    parser = html.HTMLParser(
        encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True, huge_tree=True
    )
    try:
        root = html.document_fromstring(text.encode(), parser)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError) as error:
        check_memory(error)
        raise Unreadable("it is not HTML that can be read: {error}", error=error) from None
    for entry in parser.error_log:
        if entry.level == etree.ErrorLevels.FATAL:
            # The parser stops there, and the rest would be missing.
            raise Unreadable("it is not HTML that can be read: {error}", error=entry.message)
    return root


def title_of(root: etree._Element) -> str:
    found = root.find(".//title")
    return "" if found is None else one_line("".join(found.itertext()))


def outlined(root: etree._Element, outline: Outline) -> Iterator[Section]:
    """Add the headings and paragraphs of a page to an outline; yield the sections that end."""
    lines = _Lines()
    skipped = 0  # elements within one that is left out
    for event, element in etree.iterwalk(root, events=("start", "end")):
        tag = element.tag if isinstance(element.tag, str) else ""
        if event == "start":
            if skipped or _is_left_out(element, tag):
                skipped += 1
                continue
            if tag in LEVELS or tag in BLOCKS:
                yield from outline.paragraph(lines.taken())
            lines.begin(tag, element.text)
            continue
        if skipped:
            skipped -= 1
        elif tag in LEVELS:
            yield from outline.heading(LEVELS[tag], lines.taken())
        elif tag in BLOCKS:
            yield from outline.paragraph(lines.taken())
        if not skipped:
            lines.add(element.tail if element is not root else None, tag)
    yield from outline.paragraph(lines.taken())


def _is_left_out(element: etree._Element, tag: str) -> bool:
    if tag in LEFT_OUT or not tag:
        return True
    hidden = element.get("hidden") is not None or HIDDEN.search(element.get("style") or "")
    return bool(hidden)


class _Lines:
    """The text of the paragraph that is being read."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._cells = self._preserved = 0

    def begin(self, tag: str, text: str | None) -> None:
        """Begin an element with the text before its first child."""
        if tag == "li":
            self._parts.append("- ")
        elif tag == "br":
            self._parts.append("\0")
        elif tag in CELLS:
            self._parts.append("\1")
        self._preserved += tag == "pre"
        self._append(text)

    def add(self, text: str | None, ended: str) -> None:
        """Add the text after an element."""
        self._preserved -= ended == "pre"
        self._append(text)

    def _append(self, text: str | None) -> None:
        if text:
            kept = text.replace("\n", "\0") if self._preserved else text
            self._parts.append(kept)

    def taken(self) -> str:
        """Return the paragraph and begin the next one."""
        text = BLANKS.sub(" ", "".join(self._parts)).replace("\0", "\n")
        self._parts = []
        cells = [cell.strip() for cell in text.split("\1")]
        text = " | ".join(filter(None, cells)) if len(cells) > 1 else text
        return "" if text.strip() == "-" else text.strip()
