"""Cuts long documents into chunks that a model reads whole. Pure: the caller counts tokens.

A text is split into pieces, see `splitting`, and these are packed in order into chunks, see `packing`. The
outline of the text says where it is cut first: before a heading, an article, an item of a list, a function, a
paragraph. Noise, such as an image in base64, belongs to no chunk.

Counts of pieces need not add up to the count of their joined text, so each chunk is counted again
as it will be read, and gives up pieces until it fits. A document thus costs about two tokenisations:
10 MB of prose took 6 to 8 s, nine tenths of it in the tokenizer (2026-11-24, one core of an AMD EPYC,
chunks of 510 tokens).
"""

from typing import NamedTuple

from server.collections.cutting.counting import Count, most_characters
from server.collections.cutting.packing import Contexts, Row, packed
from server.collections.cutting.splitting import split
from server.store.passages.noise import without_noise
from server.store.passages.outline import Outline
from server.store.records import ChunkRules, Span

# Shorter chunks say too little to be found by their meaning.
MIN_SIZE = 8


def default_overlap(size: int) -> int:
    """Return the tokens that a chunk of `size` tokens repeats where no overlap is given."""
    return min(size // 8, 64)


class Cut(NamedTuple):
    """A document's chunks, and what is read before each: the headings and the table's header above it.

    outline: of the text, None where none was needed.
    """

    spans: list[Span]
    contexts: list[str]
    outline: Outline | None = None


def cut(
    text: str,
    rules: ChunkRules,
    count: Count,
    title: str | None = None,
    outline: Outline | None = None,
) -> Cut:
    """Return the chunks in order, each without white space at its ends.

    Together they hold every character that is neither white space nor noise. A text of at most `size`
    tokens is one chunk, unless it has noise or more than UNCOUNTED_CHARACTERS; one of white space only,
    or empty, is the span (0, len(text)). No chunk counts more than `size` with its context, but for a
    lone character that does. A chunk repeats the last whole sentences of the one before, as far as
    `overlap` reaches, unless an article, an item of a list or a section ends between; of a sentence that
    had to be split, it repeats pieces. title: a heading of the same name is no context. outline: of the
    text, where it is known. What `count` raises is passed on.
    """
    whole = Span(len(text) - len(text.lstrip()), len(text.rstrip()))
    if whole.begin >= whole.end:
        return Cut([Span(0, len(text))], [""], outline)
    parts = without_noise(text)
    if len(parts) == 1 and parts[0] == (0, len(text)):
        if whole.end - whole.begin <= most_characters(rules.size):
            if count([text[whole.begin : whole.end]])[0] <= rules.size:
                return Cut([whole], [""], outline)
    outline = outline or Outline.of(text)
    pieces, tokens = split(text, rules.size, count, outline, parts)
    row = Row(text, pieces, tokens, count)
    contexts = Contexts(outline, title, rules.size, count)
    found = Cut([], [], outline)
    for span, context in packed(text, row, rules, count, contexts):
        found.spans.append(span)
        found.contexts.append(context)
    return found
