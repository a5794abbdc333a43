"""A cache of chunks that were hits lately, so that they are not read and checked again.

A label stands for one version of one chunk for ever: an entry can be dropped, but never be wrong.
Whether a label can still be found is for the index to say.
"""

import sys
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from itertools import count
from threading import Lock

from server.store.records import Chunk

# Of all collections of the process together. Reading and checking ten chunks takes 0.15 ms, a tenth of a
# search's share of two cores when 16 clients ask at once (2026-11-24).
MAX_BYTES = 32 << 20
# What Python needs for one entry beside its texts and metadata: the chunk, its span, and three places in
# dictionaries.
ENTRY_BYTES = 400

Key = tuple[int, int]


class HitBudget:
    """Chunks of several collections, within one bound of bytes; from any thread."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._kept: OrderedDict[Key, tuple[Chunk, int]] = OrderedDict()
        self._bytes = 0

    def known(self, key: Key) -> Chunk | None:
        entry = self._kept.get(key)
        return None if entry is None else entry[0]

    def keep(self, key: Key, chunk: Chunk) -> None:
        """Add a chunk, and drop the oldest beyond the bound."""
        size = n_bytes(chunk)
        # One that would take the place of most others is not worth them.
        if size > self._max_bytes // 4:
            return
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = chunk, size
            self._bytes += size
            while self._bytes > self._max_bytes:
                self._bytes -= self._kept.popitem(last=False)[1][1]

    def forget(self, collection: int) -> None:
        """Drop the chunks of a collection."""
        with self._lock:
            for key in [key for key in self._kept if key[0] == collection]:
                self._bytes -= self._kept.pop(key)[1]


# A server has one budget.
ALL = HitBudget()
_numbers = count()


class HitCache:
    """The chunks of one collection in a budget, by label."""

    def __init__(self, budget: HitBudget = ALL) -> None:
        self._budget = budget
        self._collection = next(_numbers)

    def known(self, labels: Iterable[int]) -> dict[int, Chunk]:
        """Return the chunks of these labels that are in the cache, by label."""
        found = ((label, self._budget.known((self._collection, label))) for label in labels)
        return {label: chunk for label, chunk in found if chunk is not None}

    def keep(self, chunks: Mapping[int, Chunk]) -> None:
        """Add chunks."""
        for label, chunk in chunks.items():
            self._budget.keep((self._collection, label), chunk)

    def clear(self) -> None:
        """Drop all chunks: the collection is closed."""
        self._budget.forget(self._collection)


def n_bytes(chunk: Chunk) -> int:
    """Return the memory of a chunk: its texts, its metadata and the entry."""
    size = ENTRY_BYTES + sys.getsizeof(chunk.text) + sys.getsizeof(chunk.id)
    size += sys.getsizeof(chunk.title or "")
    pending: list[object] = [chunk.metadata]
    while pending:
        value = pending.pop()
        size += sys.getsizeof(value)
        if isinstance(value, Mapping):
            pending += value.keys()
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return size
