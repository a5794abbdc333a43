"""The maps that were drawn last, kept until something is written."""

from collections import OrderedDict

from server.collections.overview.chunk_map import Map
from server.store.filters.tree import Filter

# A map of 2,000 points takes some 2 MB.
MOST = 4


class KeptMaps:
    """A few maps by what they show. Called on the event loop."""

    def __init__(self) -> None:
        self._maps: OrderedDict[tuple[str, int, str], Map] = OrderedDict()

    def get(self, revision: str | None, sample: int, filter: Filter | None) -> Map | None:
        """Return the map of this state of a collection, None where it is not kept."""
        return None if revision is None else self._maps.get(_key(revision, sample, filter))

    def put(self, revision: str | None, sample: int, filter: Filter | None, found: Map) -> None:
        if revision is None:
            return
        self._maps[_key(revision, sample, filter)] = found
        while len(self._maps) > MOST:
            self._maps.popitem(last=False)


def _key(revision: str, sample: int, filter: Filter | None) -> tuple[str, int, str]:
    # subtle: trees that differ in 1 and true are equal; what is printed of them is not.
    return revision, sample, repr(filter)
