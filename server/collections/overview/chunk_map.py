"""A map of a collection: a sample of its chunks on a plane, where near means alike.

The sample is random and stable: a chunk is in it by a hash of its label. So a write changes the sample only by
what it adds or removes. What is left of the vectors on two axes is stated, because it is often little.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from server.collections import read_cost
from server.collections.empty_collection import EmptyCollection
from server.collections.live_collection import LiveCollection
from server.collections.overview.projection import directions, plane_of
from server.collections.served_model import check_made_by
from server.store.collection import Collection
from server.store.filters.tree import Filter
from server.store.records import Chunk, Span
from server.types import Labels, Vectors

# Of a chunk that is shown: characters of its text, and values of its metadata.
TEXT, KEYS, VALUE = 160, 16, 64
# A vector is read and its checksum compared; one number of it takes part in twelve rounds.
READ_S, NUMBER_S = 20e-6, 60e-9


@dataclass(frozen=True, slots=True)
class Point:
    """A chunk on the map.

    text: its beginning. metadata: short values only. score: cosine with the query, None without one.
    """

    id: str
    span: Span
    title: str | None
    text: str
    metadata: Mapping[str, str | int | float | bool]
    x: float
    y: float
    score: float | None


@dataclass(frozen=True, slots=True)
class Map:
    """Points, of so many chunks.

    shares: of the variance along x and y, 0 to 1. query: its own place, None without one.
    """

    points: Sequence[Point]
    chunks: int
    shares: tuple[float, float]
    query: tuple[float, float] | None


async def revision_of(live: LiveCollection | EmptyCollection) -> str | None:
    """Return the name of what is stored now, None where that is nothing."""
    if isinstance(live, EmptyCollection):
        return None
    return await live.admitted(read_cost.CALL_S, lambda: live.collection.documents.revision())


async def map_of(
    live: LiveCollection | EmptyCollection, sample: int, filter: Filter | None, query: str | None
) -> Map:
    """Return the map of a sample of the chunks that the filter keeps.

    query: a text that is placed among them, if any.
    """
    if isinstance(live, EmptyCollection):
        return Map([], 0, (0.0, 0.0), None)
    cost_s = cost(live, sample, filter)
    made_by = None if query is None else live.info.fingerprint
    asked = None if query is None else await live.vectors_of([query])

    def read() -> Map:
        check_made_by(live.info, made_by)
        return _map(live.collection, sample, filter, asked)

    return await live.admitted(cost_s, read)


def cost(live: LiveCollection, sample: int, filter: Filter | None) -> float:
    rows = len(live.collection.index)
    each = live.hit_time.seconds + READ_S + NUMBER_S * live.info.dimension
    return read_cost.of_count(filter, rows) + each * min(sample, rows)


def _map(collection: Collection, sample: int, filter: Filter | None, asked: Vectors | None) -> Map:
    with collection.reading() as index:
        documents = collection.documents
        labels = index.labels if filter is None else documents.labels(filter)
        chosen = sampled(labels, sample)
        vectors = directions(documents.vectors(chosen))
        chunks = documents.by_labels(chosen)
    plane = plane_of(vectors)
    # subtle: adding 0 turns -0 into 0.
    places = (plane.places(vectors).round(4) + 0).tolist()
    scores: Sequence[float | None] = [None] * len(chosen)
    query = None
    if asked is not None:
        towards = directions(asked)
        scores = (vectors @ towards[0]).round(4).tolist()
        x, y = (plane.places(towards)[0].round(4) + 0).tolist()
        query = (x, y)
    points = [
        _point(chunks[label], place, score)
        for label, place, score in zip(chosen.tolist(), places, scores, strict=True)
    ]
    return Map(points, len(labels), plane.shares, query)


def _point(chunk: Chunk, place: Sequence[float], score: float | None) -> Point:
    short = {
        key: value
        for key, value in chunk.metadata.items()
        if isinstance(value, str | int | float) and len(str(value)) <= VALUE and len(key) <= VALUE
    }
    metadata = dict(list(short.items())[:KEYS])
    x, y = place
    return Point(chunk.id, chunk.span, chunk.title, chunk.text[:TEXT], metadata, x, y, score)


def sampled(labels: Labels, most: int) -> Labels:
    """Return at most so many labels, int64, ascending; a label is chosen by its hash alone."""
    if len(labels) > most:
        labels = labels[np.argpartition(_hashes(labels), most - 1)[:most]]
    return np.sort(labels)


def _hashes(labels: Labels) -> npt.NDArray[np.uint64]:
    """Return a hash of each label (splitmix64)."""
    mixed = labels.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)
