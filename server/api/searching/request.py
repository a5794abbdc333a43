"""A search as a client sends it, and its checks."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from server.api.body import decode
from server.api.operation import checked_filter
from server.api.searching.cursor import Page, page_of
from server.api.searching.options import MAX_CURSOR, OptionsRequest, check_options, options_of
from server.collections.reranking import candidates
from server.errors import InvalidRequest, TooManyTexts
from server.store.filters.tree import Filter
from server.store.fusion import DENSE_WEIGHT, LEAST_WEIGHT, LEXICAL_WEIGHT, MOST_WEIGHT
from server.store.search import Fusion, Mode
from server.store.searching.options import Options
from server.types import Vectors

MAX_TOP_K = 1000
MAX_QUERIES = 256
MAX_COLLECTIONS = 16
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


class SearchRequest(OptionsRequest, forbid_unknown_fields=True):
    """A search by one of query, queries, vector and like; a query may come with a vector or with like.

    min_score: hits of less `score` are left out, before any are reranked. offset: hits that are left out at the
    beginning. cursor: "" for the first page of many, then `next` of the page before. explain: say how each
    score came about. parts: of each hit's document, so many of its best chunks. include_document: the whole
    text of each hit's document. include_vectors: the vector of each hit, as numbers or in base64.
    include_headings: what stands above each hit and part in its document. sort without a query lists documents.
    facets: keys of the metadata whose values are counted. fusion: how both searches of "hybrid" become one; left
    out, "blend", and "rrf" in a vector database. collections: names of the
    collections to search together, in POST /search alone.
    """

    query: str | None = None
    queries: list[str] | None = None
    vector: list[float] | None = None
    top_k: int = 10
    min_score: float | None = None
    filter: dict[str, Any] | None = None
    mode: Mode = "dense"
    weights: Weights | None = None
    fusion: Fusion | None = None
    highlight: bool = False
    rerank: Rerank | None = None
    collections: list[str] | None = None

    @property
    def is_listing(self) -> bool:
        """Whether it has no query, only an order."""
        if self.sort is None:
            return False
        return (self.query, self.queries, self.vector, self.like) == (None,) * 4


class Checked(NamedTuple):
    """A request with its filter, its page and its options, all within their limits."""

    request: SearchRequest
    filter: Filter | None
    page: Page
    options: Options


def checked(body: bytes) -> Checked:
    """Return a request and what follows from it; raises InvalidRequest."""
    request = decode(body, SearchRequest)
    _check(request)
    page = page_of(request.cursor, request.offset, request, MAX_CURSOR)
    if page.cursor is not None and page.offset + request.top_k > MAX_CURSOR:
        raise InvalidRequest(
            f"the cursor has come to hit {page.offset}, and reaches {MAX_CURSOR}; narrow the search by a"
            " filter, or list the documents",
            param="cursor",
        )
    return Checked(request, checked_filter(request.filter), page, options_of(request, page.offset))


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
    _check_source(request)
    if not 1 <= request.top_k <= MAX_TOP_K:
        raise InvalidRequest(f"top_k {request.top_k} is outside 1 to {MAX_TOP_K}", param="top_k")
    if request.rerank is not None:
        _check_rerank(request, request.rerank)
    weights = request.weights or Weights()
    parts = (weights.dense, weights.lexical)
    usable = all(part == 0 or LEAST_WEIGHT <= part <= MOST_WEIGHT for part in parts)
    if not usable or not any(parts):
        raise InvalidRequest(
            f"weights {parts[0]} and {parts[1]} must each be 0 or {LEAST_WEIGHT:g} to {MOST_WEIGHT:g},"
            " and not both 0",
            param="weights",
        )
    check_options(request, request.top_k, is_listing=request.is_listing)
    if request.queries is not None and request.cursor is not None:
        raise InvalidRequest('"cursor" goes with one query, not with "queries"', param="cursor")
    if request.queries is not None and request.group_by is not None:
        raise InvalidRequest('"group_by" goes with one query, not with "queries"', param="group_by")
    if request.collections is not None:
        _check_collections(request, request.collections)
    _check_query_is_read(request)


def _check_source(request: SearchRequest) -> None:
    """Check what is searched for."""
    query, queries, vector, like = request.query, request.queries, request.vector, request.like
    if request.is_listing and request.mode == "dense":
        for name in ("highlight", "rerank", "min_score"):
            value = getattr(request, name)
            if value is not None and value is not False:
                raise InvalidRequest(f'"{name}" needs a query', param=name)
        return
    texts = sum(given is not None for given in (query, queries))
    vectors = sum(given is not None for given in (vector, like))
    if texts > 1 or vectors > 1 or texts + vectors == 0:
        listing = (
            ""
            if request.sort is None
            else '; "sort" lists documents without one in mode "dense" alone'
        )
        raise InvalidRequest(
            f'exactly one of "query", "queries", "vector" and "like" is needed{listing}'
        )
    name = "vector" if like is None else "like"
    if vectors and (queries is not None or request.mode == "lexical"):
        raise InvalidRequest(
            f'"{name}" goes with mode "dense", or with "query" and mode "hybrid"', param=name
        )
    if texts == 0 and request.mode != "dense":
        raise InvalidRequest(f'mode "{request.mode}" needs a "query" with words', param="query")
    if queries is not None and not 1 <= len(queries) <= MAX_QUERIES:
        raise TooManyTexts(
            f"{len(queries)} queries in one request; 1 to {MAX_QUERIES} are possible",
            param="queries",
        )


def _check_query_is_read(request: SearchRequest) -> None:
    """Refuse a query that would change nothing: hits by a vector alone would pass for hits of both."""
    if request.query is None or request.mode != "dense" or request.highlight or request.rerank:
        return
    for name in ("vector", "like"):
        if getattr(request, name) is not None:
            raise InvalidRequest(
                f'in mode "dense" the search is by "{name}" alone, and "query" would change nothing; leave one'
                ' of them out, or give mode "hybrid"',
                param="query",
            )


def _check_collections(request: SearchRequest, names: Sequence[str]) -> None:
    """Check what goes with several collections: scores must be on one scale."""
    # Of too many names it is not counted how many differ: that would keep the loop.
    if not 1 <= len(names) <= MAX_COLLECTIONS or len(set(names)) < len(names):
        differ = f", {len(set(names))} of them different" if len(names) <= MAX_COLLECTIONS else ""
        raise InvalidRequest(
            f"collections has {len(names)} names{differ}; 1 to {MAX_COLLECTIONS} different ones are possible",
            param="collections",
        )
    if request.mode == "hybrid" and request.fusion == "rrf":
        raise InvalidRequest(
            'reciprocal ranks of several collections cannot be compared; use fusion "blend"',
            param="fusion",
        )
    for name in ("queries", "cursor", "like", "group_by", "sort", "diversity", "facets"):
        if getattr(request, name) is not None:
            raise InvalidRequest(
                f'"{name}" goes with one collection, not with "collections"', param=name
            )


def _check_rerank(request: SearchRequest, rerank: Rerank) -> None:
    if request.query is None and request.queries is None:
        raise InvalidRequest(
            '"rerank" needs "query" or "queries": the model reads it with each text', param="rerank"
        )
    candidates(rerank.top_n, request.offset + request.top_k)
    for name in ("cursor", "like", "group_by", "sort", "diversity"):
        if getattr(request, name) is not None:
            raise InvalidRequest(
                f'"rerank" decides the order of the hits; leave it out, or "{name}"', param=name
            )
    if rerank.min_score is not None and not 0 <= rerank.min_score <= 1:
        raise InvalidRequest(
            f"rerank.min_score {rerank.min_score:g} is outside 0 to 1, the range of rerank_score",
            param="rerank",
        )
