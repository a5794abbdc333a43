"""Search in a collection, in the native format."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from server.api.body import PREPARED_ON_LOOP, prepared
from server.api.native_errors import NATIVE
from server.api.operation import (
    CollectionCall,
    CollectionOperation,
    collection_of,
    warnings_of,
)
from server.api.replies import Headers, Reply, truncated_header
from server.api.searching import reply as replies
from server.api.searching.reply import Hits, Results, characters
from server.api.searching.request import Rerank, SearchRequest, Weights, checked, ready
from server.api.written import written
from server.collections.empty_collection import EmptyCollection
from server.collections.live_collection import LiveCollection
from server.collections.reranking import candidates, reranked
from server.errors import TooManyTexts
from server.inference.engine import Engine
from server.store.search import Hit, Query
from server.store.sqlite.read_limit import too_much_to_read
from server.types import Vectors

# Bytes of a body without a filter that is decoded on the loop: a vector of 1,024 numbers takes 0.1 ms.
VECTOR_ON_LOOP = 24_576


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
    request, filter = await prepared(call.body, checked, on_loop)
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
    found: Sequence[Sequence[Hit]] = await collection.search(queries)
    reads = call.collections.reads
    size = characters(found)
    if size > reads.max_bytes:
        raise too_much_to_read(reads.max_bytes)
    headers: Headers = []
    if scorer is not None:
        asked, said = request.rerank or Rerank(), [text or "" for text in texts]
        found, truncated = await reranked(scorer, said, found, request.top_k, asked.min_score)
        size = characters(found)
        headers.append(truncated_header(truncated))
    marked = replies.marked_in(found) if request.highlight else 0
    warnings = await warnings_of(collection, filter)
    write = partial(replies.body_of, request, texts, found, warnings, reads.max_bytes)
    reply = await written(reads, size, write, marked)
    return reply._replace(headers=headers)


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
    return ready(request.vector, collection.info.dimension)
