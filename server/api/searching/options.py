"""The options of a search beside its question: pages, groups, an order, parts, vectors, counts."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from server.errors import InvalidRequest
from server.store.filters.tree import RESERVED
from server.store.searching import options as store
from server.store.searching.options import PLAIN, Options

# Hits that `offset` and `top_k` reach together, and those that a cursor reaches.
MAX_OFFSET, MAX_CURSOR = 10_000, 100_000
MAX_PARTS, MAX_LIKE, MAX_SORT_KEYS, MAX_FACETS, MAX_KEY = 20, 100, 4, 10, 256
# Hits that are put in order or chosen from, and hits of all groups.
MAX_CANDIDATES = MAX_GROUPED = 1_000


class Like(msgspec.Struct, forbid_unknown_fields=True):
    """Find documents like stored ones, which are no hits themselves.

    ids: documents to come near to. unlike: documents to keep away from. Nothing is embedded.
    """

    ids: list[str | int]
    unlike: list[str | int] = []


class GroupBy(msgspec.Struct, forbid_unknown_fields=True):
    """Group the hits by a key of the metadata: `top_k` groups, each with its best hits.

    hits: of each group at most.
    """

    key: str
    hits: int = 3


class SortKey(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    order: Literal["asc", "desc"] = "asc"


class Sort(msgspec.Struct, forbid_unknown_fields=True):
    """Put the best hits in the order of their metadata; equal ones keep the order of their scores.

    by: keys, 1 to 4, the first one first. candidates: how many of the best hits are put in order, 1 to 1,000.
    Without a query it is every document that the filter keeps.
    """

    by: list[SortKey]
    candidates: int = 100


class Diversity(msgspec.Struct, forbid_unknown_fields=True, rename={"relevance": "lambda"}):
    """Choose hits that are unlike each other (maximal marginal relevance).

    lambda: the weight of relevance against difference, 0 to 1. candidates: best hits to choose from, 1 to 1,000.
    """

    relevance: float = 0.5
    candidates: int = 50


class OptionsRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a search may ask for besides its best hits.

    offset: hits that are left out at the beginning. cursor: "" for the first page of many, then `next` of the
    page before. explain: say how each score came about. parts: of each hit's document, so many of its best
    chunks. include_document: the whole text of each hit's document. include_vectors: the vector of each hit, as
    numbers or in base64. include_headings: what stands above each hit and part in its document. facets: keys of
    the metadata whose values are counted.
    """

    offset: int = 0
    cursor: str | None = None
    explain: bool = False
    parts: int = 0
    include_document: bool = False
    include_vectors: bool | Literal["float", "base64"] = False
    include_headings: bool = False
    like: Like | None = None
    group_by: GroupBy | None = None
    sort: Sort | None = None
    diversity: Diversity | None = None
    facets: list[str] | None = None

    @property
    def asks_for_nothing(self) -> bool:
        """Whether no option is given; most searches have none."""
        if self.offset or self.explain or self.parts:
            return False
        if self.include_document or self.include_headings:
            return False
        values = (self.like, self.group_by, self.sort, self.diversity, self.facets, self.cursor)
        return self.include_vectors is False and values == (None,) * 6


def options_of(request: OptionsRequest, offset: int) -> Options:
    """Return the options of a checked request; PLAIN where it has none. offset: of the page."""
    if request.asks_for_nothing:
        return PLAIN
    like, group, sort, diversity = request.like, request.group_by, request.sort, request.diversity
    return Options(
        offset,
        request.cursor is not None,
        request.explain,
        request.parts,
        request.include_document,
        request.include_vectors is not False,
        None if like is None else store.Like(_texts(like.ids), _texts(like.unlike)),
        None if group is None else store.Grouping(group.key, group.hits),
        None if sort is None else _sorting(sort),
        None if diversity is None else store.Diversity(diversity.relevance, diversity.candidates),
        tuple(dict.fromkeys(request.facets or ())),
        request.include_headings,
    )


def _texts(ids: Sequence[str | int]) -> tuple[str, ...]:
    return tuple(map(str, ids))


def _sorting(sort: Sort) -> store.Sorting:
    keys = tuple(store.SortKey(each.key, each.order == "desc") for each in sort.by)
    return store.Sorting(keys, sort.candidates)


def check_options(request: OptionsRequest, top_k: int, *, is_listing: bool) -> None:
    """Raise InvalidRequest for options outside their limits, or that do not go together.

    is_listing: the request has no query, only an order.
    """
    if request.asks_for_nothing:
        return
    _check_page(request, top_k)
    _within("parts", request.parts, 0, MAX_PARTS)
    if is_listing and (request.explain or request.parts):
        name = "explain" if request.explain else "parts"
        raise InvalidRequest(f'"{name}" needs a query: without one no hit has a score', param=name)
    if request.like is not None:
        _check_like(request.like)
    if request.facets is not None:
        _within("the number of facets", len(request.facets), 1, MAX_FACETS, "facets")
        for key in request.facets:
            _check_key(key, "facets")
    _check_together(request)
    if request.group_by is not None:
        _check_group(request.group_by, top_k)
    if request.sort is not None:
        _check_sort(request.sort)
        if not is_listing:
            _check_reach("sort", request.sort.candidates, request.offset + top_k)
    if request.diversity is not None:
        relevance = request.diversity.relevance
        if not 0 <= relevance <= 1:
            raise InvalidRequest(
                f"diversity.lambda {relevance:g} is outside 0 to 1", param="diversity"
            )
        _check_reach("diversity", request.diversity.candidates, request.offset + top_k)


def _check_page(request: OptionsRequest, top_k: int) -> None:
    if request.offset and request.cursor is not None:
        raise InvalidRequest('give "offset" or "cursor", not both', param="cursor")
    _within("offset", request.offset, 0, MAX_OFFSET)
    if request.offset + top_k > MAX_OFFSET:
        raise InvalidRequest(
            f"offset {request.offset} and top_k {top_k} are more than {MAX_OFFSET} together; for later hits"
            ' use "cursor"',
            param="offset",
        )


def _check_together(request: OptionsRequest) -> None:
    """Only one option may decide the order of the hits."""
    given = [name for name in ("group_by", "sort", "diversity") if getattr(request, name)]
    if len(given) > 1:
        raise InvalidRequest(
            f'"{given[0]}" and "{given[1]}" each decide the order of the hits; give one of them',
            param=given[1],
        )
    if request.group_by is not None and (request.offset or request.cursor is not None):
        name = "offset" if request.offset else "cursor"
        raise InvalidRequest(
            f'"{name}" pages hits and not groups; leave it out, or "group_by"', param=name
        )


def _check_like(like: Like) -> None:
    if not like.ids:
        raise InvalidRequest("like.ids is empty; name at least one document", param="like")
    number = len(like.ids) + len(like.unlike)
    _within("the number of ids in like.ids and like.unlike", number, 1, MAX_LIKE, "like")


def _check_group(group: GroupBy, top_k: int) -> None:
    _check_key(group.key, "group_by")
    _within("group_by.hits", group.hits, 1, MAX_GROUPED, "group_by")
    if group.hits * top_k > MAX_GROUPED:
        raise InvalidRequest(
            f"{top_k} groups of {group.hits} hits are {top_k * group.hits} hits, at most {MAX_GROUPED} are"
            " possible; ask for a smaller top_k or group_by.hits",
            param="group_by",
        )


def _check_sort(sort: Sort) -> None:
    _within("the number of keys in sort.by", len(sort.by), 1, MAX_SORT_KEYS, "sort")
    for each in sort.by:
        _check_key(each.key, "sort")


def _check_reach(name: str, candidates: int, end: int) -> None:
    _within(f"{name}.candidates", candidates, 1, MAX_CANDIDATES, name)
    if end > candidates:
        raise InvalidRequest(
            f"offset and top_k reach hit {end}, and {name}.candidates is {candidates}; raise it, at most to"
            f" {MAX_CANDIDATES}, or ask for fewer hits",
            param=name,
        )


def _check_key(key: str, param: str) -> None:
    if not 1 <= len(key) <= MAX_KEY:
        raise InvalidRequest(
            f"a key of {param} has {len(key)} characters; 1 to {MAX_KEY} are possible", param=param
        )
    if key in RESERVED:
        raise InvalidRequest(
            f"{key} is for filters; {param} takes keys of the metadata", param=param
        )


def _within(what: str, value: int, low: int, high: int, param: str | None = None) -> None:
    if not low <= value <= high:
        raise InvalidRequest(f"{what} {value} is outside {low} to {high}", param=param or what)
