"""Documents removed from any kind of collection."""

from collections.abc import Sequence

from server.collections.external.kinds import Readable
from server.collections.writing.outcome import Outcome
from server.store.filters.tree import Filter


async def remove(collection: Readable, chosen: Sequence[str] | Filter) -> Outcome:
    """Remove documents by their ids, or those that a filter keeps."""
    if isinstance(chosen, Sequence):
        removed = await collection.delete(chosen)
    else:
        removed = await collection.delete_where(chosen)
    return removed if isinstance(removed, Outcome) else Outcome(removed)
