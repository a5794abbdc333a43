"""Search in a collection, in the native format."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import numpy as np

from server.api.body import PREPARED_ON_LOOP, decode, prepared
from server.api.native_errors import NATIVE
from server.api.operation import (
    CollectionCall,
    CollectionOperation,
    checked_filter,
    collection_of,
    warnings_of,
)
from server.api.replies import Headers, Reply, json_body, truncated_header
from server.api.written import written
from server.collections.empty_collection import EmptyCollection
from server.collections.live_collection import LiveCollection
from server.collections.reranking import candidates, reranked
from server.errors import InvalidRequest, RequestTooLarge, TooManyTexts
from server.inference.engine import Engine
from server.store import search as store
from server.store.filters.tree import Filter
from server.store.fusion import DENSE_WEIGHT, LEAST_WEIGHT, LEXICAL_WEIGHT, MOST_WEIGHT
from server.store.lexical import SHOWN, highlight
from server.store.search import Fusion, Mode, Query
from server.store.sqlite.read_limit import too_much_to_read
from server.types import Vectors

MAX_TOP_K = 1000
# Bytes of a body without a filter that is decoded on the loop: a vector of 1,024 numbers takes 0.1 ms.
VECTOR_ON_LOOP = 24_576
MAX_QUERIES = 256
# Characters of all hits of a request in which words are looked for: 2.4 s of one thread.
MAX_MARKED = 4_000_000
LARGEST = float(np.finfo(np.float32).max)


class Weights(msgspec.Struct, forbid_unknown_fields=True):
    dense: float = DENSE_WEIGHT
    lexical: float = LEXICAL_WEIGHT


class Rerank(msgspec.Struct, forbid_unknown_fields=True):
    """Put the hits in order by a model that reads each together with the query.

    model: name of a served model of scores; the first if it is left out. top_n: candidates of each query, 1 to
    200; 50, or as many as top_k, if it is left out. min_score: hits of less rerank_score are left out.
    """

    model: str = ""
    top_n: int | None = None
    min_score: float | None = None


class SearchRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A search by one of query, queries and vector; a query may come with its vector.

    min_score: hits of less `score` are left out, before any are reranked.
    """

    query: str | None = None
    queries: list[str] | None = None
    vector: list[float] | None = None
    top_k: int = 10
    min_score: float | None = None
    filter: dict[str, Any] | None = None
    mode: Mode = "dense"
    weights: Weights | None = None
    fusion: Fusion = "blend"
    highlight: bool = False
    rerank: Rerank | None = None


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


def inside() -> list[CollectionOperation]:
    """Return the operations that search in one collection."""
    return [
        CollectionOperation(
            NATIVE,
            "POST",
            "/search",
            search,
            "Find documents",
            needs="search",
            request=(SearchRequest,),
            response=(Hits, Results),
        )
    ]


async def search(call: CollectionCall) -> Reply:
    collection = collection_of(call)
    on_loop = PREPARED_ON_LOOP if b'"filter"' in call.body else VECTOR_ON_LOOP
    request, filter = await prepared(call.body, _request, on_loop)
    texts = [request.query] if request.queries is None else request.queries
    weights = request.weights or Weights()
    scorer = _scorer(call, request, len(texts))
    queries = [
        Query(
            request.mode,
            _depth(request),
            None,
            text,
            request.min_score,
            filter,
            (weights.dense, weights.lexical),
            request.fusion,
        )
        for text in texts
    ]
    vectors = await _vectors(request, queries, collection)
    if vectors is not None:
        queries = [replace(query, vector=row) for query, row in zip(queries, vectors, strict=True)]
    found: Sequence[Sequence[store.Hit]] = await collection.search(queries)
    reads = call.collections.reads
    size = _characters(found)
    if size > reads.max_bytes:
        raise too_much_to_read(reads.max_bytes)
    headers: Headers = []
    if scorer is not None:
        asked, said = request.rerank or Rerank(), [text or "" for text in texts]
        found, truncated = await reranked(scorer, said, found, request.top_k, asked.min_score)
        size = _characters(found)
        headers.append(truncated_header(truncated))
    marked = _marked(found) if request.highlight else 0
    warnings = await warnings_of(collection, filter)
    write = partial(_written, request, texts, found, warnings, reads.max_bytes)
    reply = await written(reads, size, write, marked)
    return reply._replace(headers=headers)


def _characters(found: Sequence[Sequence[store.Hit]]) -> int:
    return sum(len(hit.text) + len(hit.title or "") for hits in found for hit in hits)


def _depth(request: SearchRequest) -> int:
    """Return how many hits of each query are looked for."""
    asked = request.rerank
    return request.top_k if asked is None else candidates(asked.top_n, request.top_k)


def _scorer(call: CollectionCall, request: SearchRequest, queries: int) -> Engine | None:
    """Return the engine that reranks, None without reranking; raises an error for what it could not do."""
    if request.rerank is None:
        return None
    engine = call.models.choose(request.rerank.model, "score").engine
    pairs = queries * _depth(request)
    if pairs > engine.max_texts:
        raise TooManyTexts(
            f"{queries} queries with {_depth(request)} candidates each are {pairs} pairs to score, at most"
            f" {engine.max_texts} are allowed in one request; send fewer queries, or a smaller rerank.top_n",
            param="rerank",
        )
    # Before anything is embedded and searched for nothing.
    engine.check_room(queries)
    return engine


def _request(body: bytes) -> tuple[SearchRequest, Filter | None]:
    """Return the request and its filter, both checked."""
    request = decode(body, SearchRequest)
    _check(request)
    return request, checked_filter(request.filter)


def _marked(found: Sequence[Sequence[store.Hit]]) -> int:
    """Return in how many characters words will be looked for; raises RequestTooLarge."""
    marked = sum(min(len(hit.text), SHOWN) for hits in found for hit in hits)
    if marked > MAX_MARKED:
        raise RequestTooLarge(
            f'"highlight" would look at {marked} characters of the hits, at most {MAX_MARKED} are'
            " possible; ask for a smaller top_k or fewer queries, or leave it out"
        )
    return marked


def _written(
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


async def _vectors(
    request: SearchRequest, queries: Sequence[Query], collection: LiveCollection | EmptyCollection
) -> Vectors | None:
    if request.mode == "lexical":
        return None
    if request.vector is None:
        # Before texts are embedded for nothing.
        collection.check_room(queries)
        return await collection.vectors_of(
            [query.words for query in queries if query.words is not None]
        )
    return _ready(request.vector, collection.info.dimension)


def _ready(given: Sequence[float], dimension: int) -> Vectors:
    """Return a query's vector as float32 (1, D); raises InvalidRequest where it is none."""
    if len(given) != dimension:
        raise InvalidRequest(
            f"vector must be {dimension} finite numbers; it has {len(given)}", param="vector"
        )
    # Numbers beyond float32 become infinite, and are refused below.
    with np.errstate(over="ignore"):
        vector = np.array([given], dtype=np.float32)
    for place in np.flatnonzero(~np.isfinite(vector[0])).tolist():
        raise InvalidRequest(
            f"vector[{place}] is {given[place]:g}, which is not finite as float32: the largest number is"
            f" {LARGEST:g}; scale the vector down",
            param="vector",
        )
    if not vector.any():
        raise InvalidRequest(
            f"vector must not be all 0; as float32 each of its {dimension} numbers is 0",
            param="vector",
        )
    return vector


def _check(request: SearchRequest) -> None:
    query, queries, vector = request.query, request.queries, request.vector
    asked = sum(given is not None for given in (query, queries))
    if asked > 1 or (asked == 0 and vector is None):
        raise InvalidRequest('exactly one of "query", "queries" and "vector" is needed')
    if vector is not None and (queries is not None or request.mode == "lexical"):
        raise InvalidRequest(
            '"vector" goes with mode "dense", or with "query" and mode "hybrid"', param="vector"
        )
    if query is None and queries is None and request.mode != "dense":
        raise InvalidRequest(f'mode "{request.mode}" needs a "query" with words', param="query")
    if not 1 <= request.top_k <= MAX_TOP_K:
        raise InvalidRequest(f"top_k {request.top_k} is outside 1 to {MAX_TOP_K}", param="top_k")
    if request.rerank is not None:
        _check_rerank(request, request.rerank)
    if queries is not None and not 1 <= len(queries) <= MAX_QUERIES:
        raise TooManyTexts(
            f"{len(queries)} queries in one request; 1 to {MAX_QUERIES} are possible",
            param="queries",
        )
    weights = request.weights or Weights()
    parts = (weights.dense, weights.lexical)
    usable = all(part == 0 or LEAST_WEIGHT <= part <= MOST_WEIGHT for part in parts)
    if not usable or not any(parts):
        raise InvalidRequest(
            f"weights {parts[0]} and {parts[1]} must each be 0 or {LEAST_WEIGHT:g} to {MOST_WEIGHT:g},"
            " and not both 0",
            param="weights",
        )


def _check_rerank(request: SearchRequest, rerank: Rerank) -> None:
    if request.query is None and request.queries is None:
        raise InvalidRequest(
            '"rerank" needs "query" or "queries": the model reads it with each text', param="rerank"
        )
    candidates(rerank.top_n, request.top_k)
    if rerank.min_score is not None and not 0 <= rerank.min_score <= 1:
        raise InvalidRequest(
            f"rerank.min_score {rerank.min_score:g} is outside 0 to 1, the range of rerank_score",
            param="rerank",
        )


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
