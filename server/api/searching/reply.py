"""The reply to a search."""

from collections.abc import Sequence
from typing import Any

import msgspec

from server.api.replies import json_body
from server.api.searching.request import SearchRequest
from server.errors import RequestTooLarge
from server.store import search as store
from server.store.lexical import SHOWN, highlight
from server.store.sqlite.read_limit import too_much_to_read

# Characters of all hits of a request in which words are looked for: 2.4 s of one thread.
MAX_MARKED = 4_000_000


class Matched(msgspec.Struct):
    """The place of a hit's text in its document.

    begin, end: characters, half open. whole: the text is the whole document.
    """

    begin: int
    end: int
    whole: bool


class Hit(msgspec.Struct):
    """A document that was found.

    highlights: [begin, end] of the query's words in `text`; only where asked for. rerank_score: relevance from 0
    to 1, by which reranked hits are ordered; `score` is the search's own.
    """

    id: str
    score: float
    text: str
    title: str | None
    metadata: dict[str, Any]
    part: Matched
    highlights: list[tuple[int, int]] | msgspec.UnsetType = msgspec.UNSET
    rerank_score: float | msgspec.UnsetType = msgspec.UNSET


class Hits(msgspec.Struct):
    """warnings: conditions of the filter that no stored value can meet; absent where there is none."""

    hits: list[Hit]
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET


class Results(msgspec.Struct):
    """Hits of several queries, in their order.

    warnings: conditions of the filter that no stored value can meet; absent where there is none.
    """

    results: list[Hits]
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET


def characters(found: Sequence[Sequence[store.Hit]]) -> int:
    return sum(len(hit.text) + len(hit.title or "") for hits in found for hit in hits)


def marked_in(found: Sequence[Sequence[store.Hit]]) -> int:
    """Return in how many characters words will be looked for; raises RequestTooLarge."""
    marked = sum(min(len(hit.text), SHOWN) for hits in found for hit in hits)
    if marked > MAX_MARKED:
        raise RequestTooLarge(
            f'"highlight" would look at {marked} characters of the hits, at most {MAX_MARKED} are'
            " possible; ask for a smaller top_k or fewer queries, or leave it out"
        )
    return marked


def body_of(
    request: SearchRequest,
    texts: Sequence[str | None],
    found: Sequence[Sequence[store.Hit]],
    warnings: list[str] | msgspec.UnsetType,
    max_bytes: int,
) -> bytes:
    """Return the body of the reply; raises RequestTooLarge.

    Hits are encoded one by one, and joined once: both hold the interpreter lock.
    """
    one = request.queries is None
    parts, left = [b'{"hits":[' if one else b'{"results":[{"hits":['], max_bytes
    for place, (hits, text) in enumerate(zip(found, texts, strict=True)):
        if place > 0:
            parts.append(b']},{"hits":[')
        for hit in hits:
            each = json_body(_hit(hit, text if request.highlight else None))
            left -= len(each)
            if left < 0:
                raise too_much_to_read(max_bytes)
            parts += (each, b",")
        if hits:
            parts.pop()
    said = b"" if warnings is msgspec.UNSET else b',"warnings":%b' % json_body(warnings)
    parts += (b"]" if one else b"]}]", said, b"}")
    return b"".join(parts)


def _hit(hit: store.Hit, query: str | None) -> Hit:
    shown = Hit(
        hit.id,
        hit.score,
        hit.text,
        hit.title,
        dict(hit.metadata),
        Matched(hit.span.begin, hit.span.end, hit.whole),
    )
    if query is not None:
        shown.highlights = highlight(hit.text, query)
    if hit.rerank_score is not None:
        shown.rerank_score = hit.rerank_score
    return shown
