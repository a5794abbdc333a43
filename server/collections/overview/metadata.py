"""The summary of a collection's metadata, kept until something is written."""

from server.collections import read_cost
from server.collections.empty_collection import EmptyCollection
from server.collections.live_collection import LiveCollection
from server.store.collection import Collection
from server.store.metadata_summary import SAMPLE, WHOLE, MetadataSummary, metadata_summary

# Rows of a chunk's document, each counted three times.
ROWS, ROW_S = 5, 300e-9


async def metadata_of(live: LiveCollection | EmptyCollection) -> MetadataSummary:
    """Return the keys and values of a collection's metadata."""
    if isinstance(live, EmptyCollection):
        return MetadataSummary([], 0, 0, False)
    kept = live.summary
    if kept is not None:
        revision = await live.admitted(
            read_cost.CALL_S, lambda: live.collection.documents.revision()
        )
        if kept[0] == revision:
            return kept[1]
    live.summary = await live.admitted(cost(live), lambda: _summary(live.collection))
    return live.summary[1]


def cost(live: LiveCollection) -> float:
    rows = len(live.collection.index)
    if rows <= WHOLE:
        return read_cost.of_count(None, rows) + ROWS * ROW_S * rows
    return read_cost.CALL_S + 2 * live.hit_time.seconds * SAMPLE


def _summary(collection: Collection) -> tuple[str | None, MetadataSummary]:
    with collection.reading():
        return collection.documents.revision(), metadata_summary(collection.documents)
