"""What a model reads of a document's chunk: the title, the headings above it, and its own text.

Nothing of this is stored: it is made of the document again where it is needed. READING names how, so that a
collection can note how its vectors were made.
"""

import re

from server.store.passages.outline import OUTLINE, Outline
from server.store.records import Document, Span, titled

# Changes with what the model reads of the same chunk.
READING = OUTLINE
# A line that ends within a Chinese sentence, after enough characters to be full.
WITHIN = re.compile("(?<=[\u4e00-\u9fff，、；])\n(?=[\u4e00-\u9fff，、；])")
LEAST_FULL = 18


def read_as(title: str | None, context: str, text: str) -> str:
    """Return what a model reads of a chunk. context: whole lines, see `Outline.context`."""
    return titled(title, context + unwrapped(text))


def readings(document: Document, spans: list[Span]) -> list[str]:
    """Return what a model reads of each chunk of a document, where all headings have room."""
    text = document.text
    if [tuple(span) for span in spans] == [(0, len(text))]:
        return [read_as(document.title, "", text)]
    outline = Outline.of(text)
    return [
        read_as(document.title, outline.context(begin, document.title), text[begin:end])
        for begin, end in spans
    ]


def unwrapped(text: str) -> str:
    """Return a text whose Chinese lines are joined where they were only broken because they were full."""
    if "\n" not in text or text.isascii():
        return text
    joined, begin, line = list[str](), 0, 0
    for mark in WITHIN.finditer(text):
        line = text.rfind("\n", line, mark.start()) + 1 or line
        if mark.start() - line >= LEAST_FULL:
            joined.append(text[begin : mark.start()])
            begin = mark.end()
        line = mark.end()
    return "".join([*joined, text[begin:]])
