"""A search as a client sends it, and its checks."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from server.api.body import decode
from server.api.operation import checked_filter
from server.collections.reranking import candidates
from server.errors import InvalidRequest, TooManyTexts
from server.store.filter_tree import Filter
from server.store.fusion import DENSE_WEIGHT, LEAST_WEIGHT, LEXICAL_WEIGHT, MOST_WEIGHT
from server.store.search import Fusion, Mode
from server.types import Vectors

MAX_TOP_K = 1000
MAX_QUERIES = 256
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


def checked(body: bytes) -> tuple[SearchRequest, Filter | None]:
    """Return the request and its filter, both checked."""
    request = decode(body, SearchRequest)
    _check(request)
    return request, checked_filter(request.filter)


def ready(given: Sequence[float], dimension: int) -> Vectors:
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
