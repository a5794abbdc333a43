"""A map of a collection: a sample of its chunks on a plane, in the native format."""

from typing import Any

import msgspec
from starlette.datastructures import QueryParams

from server.api.body import decode, prepared
from server.api.decoding import check_parameters, whole_number
from server.api.native_errors import NATIVE
from server.api.operation import (
    CollectionCall,
    CollectionOperation,
    checked_filter,
    collection_of,
    warnings_of,
)
from server.api.replies import Reply, json_body
from server.api.written import written
from server.collections.empty_collection import EmptyCollection
from server.collections.live_collection import LiveCollection
from server.collections.overview.chunk_map import Map, Point, map_of, revision_of
from server.errors import EmptyInput
from server.store.filters.tree import Filter

OPTIONS = ("sample", "filter", "query")
SAMPLE, MOST = 2_000, 5_000
# Characters of a point without its text: about.
POINT = 200


class Part(msgspec.Struct):
    """Characters of the document, half open."""

    begin: int
    end: int


class MapPoint(msgspec.Struct):
    """A chunk on the map.

    text: its first 160 characters. metadata: short values that are no lists or objects. score: cosine with the
    query; absent without one.
    """

    id: str
    x: float
    y: float
    part: Part
    title: str | None
    text: str
    metadata: dict[str, Any]
    score: float | msgspec.UnsetType = msgspec.UNSET


class Place(msgspec.Struct):
    x: float
    y: float


class MapReply(msgspec.Struct):
    """The points, by label.

    chunks: how many there are; of more than `sample`, a sample is shown. variance: the share of the vectors'
    variance that each axis shows, 0 to 1. query: its own place; absent without one. warnings: conditions of the
    filter that no stored value can meet; absent where there is none.
    """

    points: list[MapPoint]
    chunks: int
    sampled: bool
    variance: tuple[float, float]
    query: Place | msgspec.UnsetType = msgspec.UNSET
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET


def inside() -> list[CollectionOperation]:
    """Return the operation that draws the map of one collection."""
    about = "A map of the collection"
    return [
        CollectionOperation(
            NATIVE, "GET", "/map", chunk_map, about, "search", response=(MapReply,), query=OPTIONS
        )
    ]


async def chunk_map(call: CollectionCall) -> Reply:
    """Put a sample of the chunks on a plane, where near ones mean much the same."""
    collection = collection_of(call)
    options = QueryParams(call.scope["query_string"])
    check_parameters(options, OPTIONS)
    sample = whole_number(options, "sample", default=SAMPLE, low=1, high=MOST)
    filter = await prepared(options.get("filter", "{}").encode(), _filter)
    query = options.get("query")
    if query == "":
        raise EmptyInput("the query parameter 'query' is empty; leave it out", param="query")
    found = await _map(call, collection, sample, filter, query)
    warnings = await warnings_of(collection, filter)
    size = sum(POINT + len(each.text) for each in found.points)

    def write() -> bytes:
        reply = _reply(found)
        reply.warnings = warnings
        return json_body(reply)

    return await written(call.collections.reads, size, write)


async def _map(
    call: CollectionCall,
    collection: LiveCollection | EmptyCollection,
    sample: int,
    filter: Filter | None,
    query: str | None,
) -> Map:
    """Return a map; one without a query is kept until something is written."""
    if query is not None:
        return await map_of(collection, sample, filter, query)
    maps, revision = call.collections.maps, await revision_of(collection)
    kept = maps.get(revision, sample, filter)
    if kept is None:
        kept = await map_of(collection, sample, filter, None)
        maps.put(revision, sample, filter, kept)
    return kept


def _filter(given: bytes) -> Filter | None:
    return checked_filter(decode(given, dict, "filter"))


def _reply(found: Map) -> MapReply:
    points = [_point(each) for each in found.points]
    variance = (round(found.shares[0], 4), round(found.shares[1], 4))
    reply = MapReply(points, found.chunks, len(points) < found.chunks, variance)
    if found.query is not None:
        reply.query = Place(*found.query)
    return reply


def _point(point: Point) -> MapPoint:
    shown = MapPoint(
        point.id,
        point.x,
        point.y,
        Part(point.span.begin, point.span.end),
        point.title,
        point.text,
        dict(point.metadata),
    )
    if point.score is not None:
        shown.score = point.score
    return shown
