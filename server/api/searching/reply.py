"""The reply to a search."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from server.api.replies import base64_rows, json_body
from server.api.searching.cursor import Cursor, Page, digest
from server.api.searching.request import SearchRequest, Weights
from server.errors import RequestTooLarge
from server.store import search as store
from server.store.lexical import SHOWN, highlight
from server.store.search import Fusion
from server.store.searching.above import Above
from server.store.searching.details import Explanation as StoredExplanation
from server.store.searching.details import HitDetails
from server.store.searching.found import Facet as StoredFacet
from server.store.searching.found import Found
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


class Term(msgspec.Struct):
    """A term of the query.

    parts: how many chunks have it. weight: its inverse document frequency; a rare term weighs more. matched:
    whether the hit has it.
    """

    term: str
    parts: int
    weight: float
    matched: bool


class ByWords(msgspec.Struct):
    """The score by words: share is bm25 / attainable, and no text can have more than the attainable BM25."""

    bm25: float
    attainable: float
    share: float
    terms: list[Term]


class FusedBy(msgspec.Struct):
    """How both scores became one.

    ranks: the hit's places in the search by meaning and in that by words, for `rrf`; null where one of them did
    not find it.
    """

    kind: Fusion
    weights: dict[str, float]
    ranks: dict[str, int | None] | msgspec.UnsetType = msgspec.UNSET


class Explanation(msgspec.Struct):
    """How a hit's score came about; what took no part in it is null."""

    cosine: float | None
    words: ByWords | None
    fusion: FusedBy | None


class PartFound(msgspec.Struct):
    """One of the best chunks of a hit's document. headings: only where asked for."""

    text: str
    score: float
    begin: int
    end: int
    headings: list[str] | msgspec.UnsetType = msgspec.UNSET


class Hit(msgspec.Struct):
    """A document that was found.

    score: null where documents are listed without a query. highlights: [begin, end] of the query's words in
    `text`; only where asked for. rerank_score: relevance from 0 to 1, by which reranked hits are ordered;
    `score` is the search's own. explanation, parts, document, vector: only where asked for. headings: above the
    text in its document, outermost first; only where asked for. collection: only in a search over several.
    """

    id: str
    score: float | None
    text: str
    title: str | None
    metadata: dict[str, Any]
    part: Matched
    highlights: list[tuple[int, int]] | msgspec.UnsetType = msgspec.UNSET
    rerank_score: float | msgspec.UnsetType = msgspec.UNSET
    explanation: Explanation | msgspec.UnsetType = msgspec.UNSET
    parts: list[PartFound] | msgspec.UnsetType = msgspec.UNSET
    document: str | msgspec.UnsetType = msgspec.UNSET
    vector: list[float] | str | msgspec.UnsetType = msgspec.UNSET
    headings: list[str] | msgspec.UnsetType = msgspec.UNSET
    collection: str | msgspec.UnsetType = msgspec.UNSET


Value = str | int | float | bool | None


class FacetValue(msgspec.Struct):
    value: Value
    documents: int


class Facet(msgspec.Struct):
    """How many documents have each value of a key.

    documents: that have the key. values: the 20 most frequent. complete: there are no others.
    """

    key: str
    documents: int
    values: list[FacetValue]
    complete: bool


class Hits(msgspec.Struct):
    """Hits, best first.

    next: the cursor of the next page, null after the last; only for a request with a cursor. changed: the
    collection was written since the first page, so hits may repeat or be missed. facets: only where asked for.
    warnings: conditions of the filter that no stored value can meet; absent where there is none.
    """

    hits: list[Hit]
    next: str | None | msgspec.UnsetType = msgspec.UNSET
    changed: bool | msgspec.UnsetType = msgspec.UNSET
    facets: list[Facet] | msgspec.UnsetType = msgspec.UNSET
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET


class Results(msgspec.Struct):
    """Hits of several queries, in their order.

    warnings: conditions of the filter that no stored value can meet; absent where there is none.
    """

    results: list[Hits]
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET


class Group(msgspec.Struct):
    """Hits that have one value; null: that have none."""

    value: Value
    hits: list[Hit]


class Groups(msgspec.Struct):
    """Groups of hits, that of the best hit first."""

    groups: list[Group]
    facets: list[Facet] | msgspec.UnsetType = msgspec.UNSET
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET


def characters(found: Sequence[Sequence[store.Hit]]) -> int:
    """Return how many characters the hits will have in the reply, about."""
    return sum(hit.n_characters for hits in found for hit in hits)


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
    page: Page,
    warnings: list[str] | msgspec.UnsetType,
    max_bytes: int,
) -> bytes:
    """Return the body of the reply; raises RequestTooLarge."""
    body = _Body(request, page, max_bytes)
    said = b"" if warnings is msgspec.UNSET else b',"warnings":%b' % json_body(warnings)
    if request.queries is None:
        body.answer(found[0], texts[0])
        body.parts += (said, b"}")
        return b"".join(body.parts)
    body.parts.append(b'{"results":[')
    for place, (hits, text) in enumerate(zip(found, texts, strict=True)):
        if place > 0:
            body.parts.append(b",")
        body.answer(hits, text)
        body.parts.append(b"}")
    body.parts += (b"]", said, b"}")
    return b"".join(body.parts)


class _Body:
    """A body in pieces. Hits are encoded one by one, and joined once: both hold the interpreter lock."""

    def __init__(self, request: SearchRequest, page: Page, max_bytes: int) -> None:
        self.parts: list[bytes] = []
        self._request = request
        self._page = page
        self._max_bytes = self._left = max_bytes

    def answer(self, hits: Sequence[store.Hit], text: str | None) -> None:
        """Add the answer to one query, without its last bracket."""
        found = hits if isinstance(hits, Found) else None
        if found is not None and found.groups is not None:
            self._groups(found, found.groups, text)
        else:
            self.parts.append(b'{"hits":[')
            self._hits(hits, text)
            self.parts.append(b"]")
        if found is None:
            return
        if self._request.cursor is not None:
            self._pages(found)
        if self._request.facets is not None:
            self.parts += (b',"facets":', json_body([_facet(each) for each in found.facets]))

    def _groups(self, found: Found, groups: Sequence[tuple[Value, int]], text: str | None) -> None:
        self.parts.append(b'{"groups":[')
        begin = 0
        for value, number in groups:
            self.parts += (b'%b{"value":' % (b"," if begin else b""), json_body(value))
            self.parts.append(b',"hits":[')
            self._hits(found[begin : begin + number], text)
            self.parts.append(b"]}")
            begin += number
        self.parts.append(b"]")

    def _hits(self, hits: Sequence[store.Hit], text: str | None) -> None:
        for place, hit in enumerate(hits):
            each = json_body(_hit(hit, text, self._request))
            self._left -= len(each)
            if self._left < 0:
                raise too_much_to_read(self._max_bytes)
            self.parts += (each,) if place == 0 else (b",", each)

    def _pages(self, found: Found) -> None:
        offset, cursor = self._page
        following = None
        if found.has_more:
            first = found.revision if cursor is None else cursor.revision
            end = offset + self._request.top_k
            following = Cursor(end, first, digest(self._request)).encoded()
        self.parts += (b',"next":', json_body(following))
        if cursor is not None:
            self.parts += (b',"changed":', json_body(cursor.revision != found.revision))


def _facet(facet: StoredFacet) -> Facet:
    values = [FacetValue(value, number) for value, number in facet.values]
    return Facet(facet.key, facet.documents, values, facet.is_complete)


def _hit(hit: store.Hit, query: str | None, request: SearchRequest) -> Hit:
    shown = Hit(
        hit.id,
        None if math.isnan(hit.score) else hit.score,
        hit.text,
        hit.title,
        dict(hit.metadata),
        Matched(hit.span.begin, hit.span.end, hit.whole),
    )
    if query is not None and request.highlight:
        asked = None if hit.details is None else hit.details.asked
        shown.highlights = highlight(hit.text, query if asked is None else asked)
    if hit.rerank_score is not None:
        shown.rerank_score = hit.rerank_score
    if hit.details is not None:
        _add_details(shown, hit.details, request)
    return shown


def _add_details(shown: Hit, details: HitDetails, request: SearchRequest) -> None:
    if details.explanation is not None:
        shown.explanation = _explanation(details.explanation, request)
    if details.parts is not None:
        shown.parts = [
            PartFound(part.text, part.score, *part.span, _headings(part.above, request))
            for part in details.parts
        ]
    if details.document is not None:
        shown.document = details.document
    if details.vector is not None:
        as_text = request.include_vectors == "base64"
        row = details.vector
        shown.vector = base64_rows(row[np.newaxis])[0] if as_text else row.tolist()
    shown.headings = _headings(details.above, request)
    if details.collection is not None:
        shown.collection = details.collection


def _headings(above: Above | None, request: SearchRequest) -> list[str] | msgspec.UnsetType:
    # A reranker needs what stands above also where the reply does not show it.
    if above is None or not request.include_headings:
        return msgspec.UNSET
    return list(above.headings)


def _explanation(explanation: StoredExplanation, request: SearchRequest) -> Explanation:
    words, fusion = None, None
    if (said := explanation.words) is not None:
        terms = [Term(each.term, each.chunks, each.weight, each.is_matched) for each in said.terms]
        words = ByWords(said.bm25, said.attainable, said.share, terms)
    if request.mode == "hybrid":
        weights = request.weights or Weights()
        fusion = FusedBy(
            request.fusion or "blend", {"dense": weights.dense, "lexical": weights.lexical}
        )
        if explanation.ranks is not None:
            fusion.ranks = dict(zip(("dense", "lexical"), explanation.ranks, strict=True))
    return Explanation(explanation.cosine, words, fusion)
