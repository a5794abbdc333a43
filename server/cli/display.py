"""Documents and hits as lines for people: widths of Chinese, places in files, matched words.

A terminal gets lines that fit and marked words. A pipe gets everything, without escape codes.
"""

import json
import shutil
import unicodedata
from collections.abc import Callable, Mapping

from server.messages.message import Message
from server.messages.terminal import Terminal
from server.store.records import Document

# What readers of files say of the place of a document, in this order.
PLACES: Mapping[str, Callable[[object], Message]] = {
    "page": lambda value: Message("page {page}", page=value),
    "slide": lambda value: Message("slide {slide}", slide=value),
    "sheet": lambda value: Message("sheet {sheet}", sheet=value),
    "row": lambda value: Message("row {row}", row=value),
}
DOTS = "…"
ID_COLUMNS = 24


def width(text: str) -> int:
    """Return the columns that a text takes on a terminal: Chinese characters take two."""
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fitted(text: str, columns: int) -> str:
    """Return a text in at most so many columns; what is cut off becomes dots."""
    if width(text) <= columns:
        return text
    left, kept = columns - 1, []
    for each in text:
        left -= _columns(each)
        if left < 0:
            break
        kept.append(each)
    return "".join(kept) + DOTS


def padded(text: str, columns: int) -> str:
    """Return a text in exactly so many columns."""
    text = fitted(text, columns)
    return text + " " * (columns - width(text))


def one_line(text: str) -> str:
    """Return a text without line ends and without control characters that could steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def columns_of(terminal: Terminal) -> int | None:
    """Return the width of the terminal; None where results go into a file or pipe."""
    return shutil.get_terminal_size().columns if terminal.out.isatty() else None


def place_of(metadata: Mapping[str, object], terminal: Terminal) -> str:
    """Return file, page or the like, and headings of a document that was read from a file."""
    said = [str(metadata["file"])] if metadata.get("file") else []
    for name, message in PLACES.items():
        value = metadata.get(name)
        if isinstance(value, int | str) and value != "":
            said.append(terminal.words(message(value)))
    if metadata.get("heading"):
        said.append(str(metadata["heading"]))
    # A document that has only a page of its own metadata was not read from a file.
    return one_line(" · ".join(said)) if metadata.get("file") else ""


def listed(document: Document, terminal: Terminal) -> str:
    """Return a document as one line: id, title, beginning of the text; in a pipe with tabs between."""
    id, title = one_line(document.id), one_line(document.title or "")
    text = one_line(document.text[:2000].lstrip().partition("\n")[0])
    room = columns_of(terminal)
    if room is None:
        return f"{id}\t{title}\t{text}"
    id = padded(id, min(ID_COLUMNS, room // 3))
    return fitted(f"{id}  {title} · {text}" if title else f"{id}  {text}", room)


def whole(document: Document, terminal: Terminal) -> str:
    """Return everything of a document: its id, title, metadata and text."""
    lines = [terminal.words("id: {id}", id=document.id)]
    if document.title is not None:
        lines.append(terminal.words("title: {title}", title=one_line(document.title)))
    for name, value in document.metadata.items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        lines.append(one_line(f"{name}: {shown}"))
    return "\n".join([*lines, "", terminal.words(Message("{text}", text=document.text))])
