"""The vector index kept in this process: exact while small, FAISS FastScan blocks beyond that.

How this works. A `LocalIndex` never changes; `plus` and `minus` return another one, and both share
what a write does not touch. That makes one index for each write affordable.

While there are few vectors, each is compared (`exact`). From SCAN_FROM on they lie in blocks
(`fastscan_block`, `fastscan`): codes pick candidates and 16-bit rows score them. Vectors added
since then are in the tail, which is exact; deleted vectors are masked. `compacted` folds both into
blocks. It is slow, so another thread calls it, and the collection then applies what was written
meanwhile. Where codes are no use, as those of very short vectors, all vectors stay in the tail.

Vectors and queries are scaled to unit length here, so scores are cosines.
"""

import errno
import struct
import uuid
from pathlib import Path

import numpy as np

from server.errors import StoreError
from server.store.local_index import snapshot
from server.store.local_index.calibration import measured, probed
from server.store.local_index.compaction import (
    NARROWEST,
    are_many,
    compacted,
    is_useful,
    wants_rebuild,
)
from server.store.local_index.drawing import Source
from server.store.local_index.exact import Exact, merged, use_one_thread
from server.store.local_index.fastscan import Scan
from server.store.selection import Selection
from server.store.vector_index import BadSnapshot, Hits, IndexStats
from server.types import Labels, Vectors, unit

# Measured 2026-11-24 on a 2-core VM, AVX512-VNNI, 512 wide, one thread, ms a search of 4,096 / 8,192 /
# 16,384 / 32,768 laws: 0.27 / 0.42 / 0.97 / 2.5 comparing all, the last three 0.24 / 0.32 / 0.55 by codes.
# Below this, comparing all costs too little to give up.
SCAN_FROM = 10_000
# Codes that were no use are tried again at so many times the vectors.
TRY_AGAIN = 4
# A tail of this many rows costs 0.4 ms a search. Rebuilding a block takes 2 s; embedding them takes longer.
TAIL_ROWS = 8192
# A tail of this many costs 0.05 ms: too little for a compaction.
SPARE_ROWS = 1024


class LocalIndex:
    """A `VectorIndex` in memory; empty unless given blocks or a tail.

    scan_from: how many vectors there are before codes are tried, where that is more than SCAN_FROM.
    """

    def __init__(
        self,
        dimension: int,
        scan: Scan | None = None,
        tail: Exact | None = None,
        scan_from: float = 0,
    ) -> None:
        self.dimension = dimension
        self._scan = scan
        self._tail = tail or Exact()
        self._scan_from = scan_from if dimension >= NARROWEST else float("inf")

    def __len__(self) -> int:
        return len(self._tail) + (0 if self._scan is None else len(self._scan))

    @property
    def labels(self) -> Labels:
        """The labels of all vectors, int64 (N,), in no order."""
        if self._scan is None:
            return self._tail.labels
        return np.concatenate([self._scan.labels, self._tail.labels])

    def plus(self, labels: Labels, vectors: Vectors) -> "LocalIndex":
        """Return this index and these vectors; see `VectorIndex.plus`."""
        rows = _unit(vectors, self.dimension)
        return LocalIndex(
            self.dimension, self._scan, self._tail.plus(labels, rows), self._scan_from
        )

    def minus(self, labels: Labels) -> "LocalIndex":
        """Return this index without these labels; labels it does not hold are skipped."""
        if not len(labels):
            return self
        scan = None if self._scan is None else self._scan.minus(labels)
        return LocalIndex(self.dimension, scan, self._tail.minus(labels), self._scan_from)

    def search(self, vectors: Vectors, k: int, within: Selection | None = None) -> Hits:
        """Find the `k` nearest of each row of `vectors`, on one thread; see `VectorIndex.search`."""
        use_one_thread()
        queries = _unit(vectors, self.dimension)
        found = list(self._tail.search(queries, k, within))
        if self._scan is not None:
            found.append(self._scan.search(queries, k, within))
        return merged(found, len(queries), k)

    @property
    def compaction_due(self) -> bool:
        """Return whether `compacted` would make searches faster, or free enough memory."""
        if self._scan is None:
            return len(self._tail) >= max(SCAN_FROM, self._scan_from)
        rebuild = any(map(wants_rebuild, self._scan.blocks))
        return len(self._tail) >= TAIL_ROWS or rebuild or not is_useful(self._scan)

    @property
    def compaction_pays(self) -> bool:
        """Return whether `compacted` would make searches faster, when no document is being written."""
        if self.compaction_due or self._scan is None:
            return self.compaction_due
        return len(self._tail) >= SPARE_ROWS or are_many(self._scan.blocks)

    def compacted(self, queries: Vectors | None = None) -> "LocalIndex":
        """Return an index of the same vectors, arranged for searching; see `VectorIndex.compacted`.

        64 thousand new vectors take 4 s, a million in parts 100 s (2026-11-30, another VM). It uses one thread,
        holds the interpreter lock for less than a millisecond at a time, and needs memory for the
        blocks it rebuilds.
        """
        use_one_thread()
        rest = [Source(segment.labels, segment.rows) for segment in self._tail.segments]
        scan_from = self._scan_from
        if len(self) >= max(SCAN_FROM, scan_from):
            past = None if queries is None or not len(queries) else _unit(queries, self.dimension)
            scan = compacted(self._scan, rest, past)
            if scan is not None:
                return LocalIndex(self.dimension, scan)
            scan_from = TRY_AGAIN * len(self)
        tail = self._tail
        for block in self._scan.blocks if self._scan is not None else ():
            alive = np.flatnonzero(block.alive)
            tail = tail.plus(block.labels[alive], block.rows.whole(alive))
        return LocalIndex(self.dimension, None, tail, scan_from)

    def calibrated(self, queries: Vectors) -> "LocalIndex":
        """Return this index with the candidates and lists that find the neighbours of these queries."""
        if self._scan is None or not len(queries):
            return self
        use_one_thread()
        scan = measured(self._scan, _unit(queries, self.dimension))
        return LocalIndex(self.dimension, scan, self._tail)

    def stats(self) -> IndexStats:
        scan, tail = self._scan, self._tail
        held = tail.bytes_held + (0 if scan is None else scan.bytes_held)
        return IndexStats(
            kind="exact" if scan is None else "fastscan",
            vectors=len(self),
            tail_rows=len(tail),
            dead_rows=0 if scan is None else scan.n_dead,
            bytes_per_vector=held / max(1, len(self)),
            sub_quantisers=None if scan is None else scan.quantiser.pieces,
            candidates=None if scan is None else scan.candidates,
            recall_at_10=None if scan is None else scan.recall_at_10,
        )

    def probed_recall(self, seed: int) -> float | None:
        """Measure recall@10 of searches by codes, on a few queries; None without codes."""
        use_one_thread()
        return None if self._scan is None else probed(self._scan, seed)

    def save(self, path: Path, identity: uuid.UUID) -> None:
        """Write a snapshot that replaces the last one whole or not at all; raises OSError."""
        try:
            snapshot.write(path, self.dimension, identity, self._scan, self._tail)
        except StoreError as error:
            # The last snapshot, which holds halves of rows, cannot be read.
            raise OSError(errno.EIO, str(error)) from None

    @classmethod
    def load(cls, path: Path, dimension: int, identity: uuid.UUID) -> "LocalIndex":
        """Read a snapshot; raises BadSnapshot unless every byte is unchanged."""
        try:
            return cls(dimension, *snapshot.read(path, dimension, identity))
        except OSError as error:
            raise BadSnapshot(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, struct.error) as error:
            raise BadSnapshot(f"{path} is of no use: {error}") from None


def _unit(vectors: Vectors, dimension: int) -> Vectors:
    assert vectors.ndim == 2 and vectors.shape[1] == dimension
    if not np.isfinite(vectors).all():
        raise ValueError("a vector has a value that is not finite")
    return unit(vectors)
