"""Search in a collection, in the native format."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import msgspec
from msgspec import structs

from server.api.body import PREPARED_ON_LOOP, prepared
from server.api.native_errors import NATIVE
from server.api.operation import (
    CollectionCall,
    CollectionOperation,
    readable_of,
)
from server.api.replies import Headers, Reply, truncated_header
from server.api.searching import reply as replies
from server.api.searching.reply import Groups, Hits, Results, characters
from server.api.searching.request import Checked, SearchRequest, Weights, checked, ready
from server.api.written import written
from server.collections.external.abilities import check_search
from server.collections.external.collection import ExternalCollection
from server.collections.external.kinds import Readable
from server.collections.reranking import candidates, reranked
from server.collections.searching.several import SeveralCollections
from server.collections.served_model import with_vectors_of_one_model
from server.errors import InvalidRequest, RequestTooLarge, TooManyTexts
from server.inference.engine import Engine
from server.store.collection_name import normal
from server.store.search import Hit, Query
from server.store.searching.details import NUMBER
from server.store.searching.found import Found
from server.store.sqlite.read_limit import too_much_to_read
from server.types import Vectors

# Bytes of a body without a filter that is decoded on the loop: a vector of 1,024 numbers takes 0.1 ms.
VECTOR_ON_LOOP = 24_576
Searched = Readable | SeveralCollections


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
            response=(Hits, Results, Groups),
        )
    ]


async def search(call: CollectionCall) -> Reply:
    # Before the body is decoded: a collection that is not there is refused.
    named = readable_of(call) if "collection" in call.scope["path_params"] else None
    on_loop = PREPARED_ON_LOOP if b'"filter"' in call.body else VECTOR_ON_LOOP
    asked = await prepared(call.body, checked, on_loop)
    request, reads = asked.request, call.collections.reads
    searched = _searched(call, asked, named)
    texts = [request.query] if request.queries is None else request.queries
    scorer = _scorer(call, request, len(texts))
    _check_vectors(request, len(texts), searched.info.dimension, reads.max_bytes)
    queries = _queries(asked, texts)

    async def ask(fingerprint: str) -> Sequence[Sequence[Hit]]:
        vectors = await _vectors(request, queries, searched)
        if vectors is None:
            return await searched.search(queries)
        rows = zip(queries, vectors, strict=True)
        return await searched.search([replace(one, vector=row) for one, row in rows], fingerprint)

    found = await with_vectors_of_one_model(lambda: searched.info, ask)
    said = [text for hits in found if isinstance(hits, Found) for text in hits.warnings]
    size = characters(found)
    if size > reads.max_bytes:
        raise too_much_to_read(reads.max_bytes)
    headers: Headers = []
    if scorer is not None:
        asked_for = [text or "" for text in texts]
        found, truncated = await _reranked(scorer, request, asked_for, found)
        size = characters(found)
        headers.append(truncated_header(truncated))
    marked = replies.marked_in(found) if request.highlight else 0
    warnings = [*said, *await searched.warnings(asked.filter)] or msgspec.UNSET
    write = partial(replies.body_of, request, texts, found, asked.page, warnings, reads.max_bytes)
    reply = await written(reads, size, write, marked)
    return reply._replace(headers=headers)


def _searched(call: CollectionCall, asked: Checked, named: Readable | None) -> Searched:
    """Return what is searched: the collection that the path names, or those that the request names."""
    names = asked.request.collections
    if names is None:
        found = readable_of(call) if named is None else named
        _check_possible(found, asked)
        return found
    if named is not None:
        raise InvalidRequest(
            '"collections" goes with POST /search, which names no collection in its path',
            param="collections",
        )
    every: dict[str, Readable] = {}
    for name in map(normal, names):
        found = call.collections.readable(name)
        _check_possible(found, asked)
        # One that is named twice, by an alias too, is searched once, under the first of its names.
        if found not in every.values():
            every[name] = found
    return SeveralCollections(every, needs_one_model=asked.request.mode != "lexical")


def _check_possible(collection: Readable, asked: Checked) -> None:
    """Raise InvalidRequest where the collection is in a vector database that cannot answer this."""
    if isinstance(collection, ExternalCollection):
        request = asked.request
        keys = {key for key, value in structs.asdict(request).items() if value not in (None, False)}
        reach = asked.page.offset + _depth(request)
        used = keys if request.parts else keys - {"parts"}
        check_search(
            collection.name, collection.database, used, request.mode, request.fusion, reach
        )


def _queries(asked: Checked, texts: Sequence[str | None]) -> list[Query]:
    request = asked.request
    weights = request.weights or Weights()
    options = asked.options
    if request.rerank is not None and options.offset:
        # The page is cut when the hits stand in their last order.
        options = replace(options, offset=0)
    if request.rerank is not None or request.highlight:
        above = options.above or request.rerank is not None
        options = replace(options, above=above, asked=request.highlight)
    return [
        Query(
            request.mode,
            _depth(request),
            None,
            text,
            request.min_score,
            asked.filter,
            (weights.dense, weights.lexical),
            request.fusion or "blend",
            options,
        )
        for text in texts
    ]


def _depth(request: SearchRequest) -> int:
    """Return how many hits of each query are looked for."""
    asked = request.rerank
    if asked is None:
        return request.top_k
    return candidates(asked.top_n, request.offset + request.top_k)


async def _reranked(
    scorer: Engine, request: SearchRequest, texts: Sequence[str], found: Sequence[Sequence[Hit]]
) -> tuple[list[list[Hit]], int]:
    """Return the page of each query's hits in the order of the reranker, and how many it could not read whole."""
    least = None if request.rerank is None else request.rerank.min_score
    end = request.offset + request.top_k
    done = await reranked(scorer, texts, found, end, least)
    pages: list[list[Hit]] = []
    for before, hits in zip(found, done.found, strict=True):
        page = hits[request.offset :]
        facets = before.facets if isinstance(before, Found) else None
        pages.append(page if facets is None else Found(page, facets=facets))
    return pages, done.truncated


def _check_vectors(request: SearchRequest, queries: int, dimension: int, max_bytes: int) -> None:
    """Raise RequestTooLarge where the vectors alone would not fit into a reply."""
    if request.include_vectors is False:
        return
    hits = queries * request.top_k * (1 if request.group_by is None else request.group_by.hits)
    size = hits * dimension * (6 if request.include_vectors == "base64" else NUMBER)
    if size > max_bytes:
        raise RequestTooLarge(
            f"{hits} vectors of {dimension} numbers take about {size} bytes, at most {max_bytes} are"
            " possible in a reply (--max-reply-bytes); ask for a smaller top_k, or for"
            ' "include_vectors": "base64"',
        )


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


async def _vectors(
    request: SearchRequest, queries: Sequence[Query], collection: Searched
) -> Vectors | None:
    if request.mode == "lexical" or request.like is not None or request.is_listing:
        return None
    if request.vector is None:
        # Before texts are embedded for nothing.
        collection.check_room(queries)
        return await collection.vectors_of(
            [query.words for query in queries if query.words is not None]
        )
    return ready(request.vector, collection.info.dimension)
