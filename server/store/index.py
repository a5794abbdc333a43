"""Nearest vectors by cosine: derived from the documents, never the truth.

How this works. An `Index` is a value: it never changes, and `plus` and `minus` return another. The
collection swaps one reference, so a search uses one index from start to end: it never sees half an
update, waits for no write, and there is no lock. What makes that affordable is that both versions
share what a write does not touch.

While vectors are few each is compared (`exact`). From SCAN_FROM on they lie in blocks (`block`,
`scan`), where codes pick candidates and float16 rows score them; what is added since stands beside
them in the tail, exact, and what is deleted is masked. `compacted` folds both in: slow, so another
thread calls it, and whoever does brings the result up to what was written meanwhile.

Vectors and queries are scaled to unit length here, so that scores are cosines.
"""

import struct
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from server.store import Labels, snapshot
from server.store.exact import Exact, Hits, merged, use_one_thread
from server.store.fastscan import Scan, Source, compacted, probed, source, wants_rebuild
from server.types import Vectors, unit

# Measured 2026-11-24 on a 2-core VM, AVX512-VNNI, 512 wide, one thread, ms a search of 4,096 / 8,192 /
# 16,384 / 32,768 laws: 0.27 / 0.42 / 0.97 / 2.5 comparing all, the last three 0.24 / 0.32 / 0.55 by codes.
# Below this, exact costs too little to be given up.
SCAN_FROM = 10_000
# So many in the tail cost 0.4 ms a search; a block is made anew in 2 s, embedding them takes longer.
TAIL_ROWS = 8192
# And these 0.05: too little to be worth a compaction at any time.
SPARE_ROWS = 1024


class BadSnapshot(Exception):
    """The file is no snapshot of this database; the index must be made anew from the documents.

    No ServerError: it never leaves the store.
    """


@dataclass(frozen=True, slots=True)
class IndexStats:
    """What an index is and holds.

    kind: "exact" while every vector is compared. Of a "fastscan": how many 4-bit codes a vector
    has, how many candidates a search scores, and the recall@10 measured when it was compacted, on
    queries made of stored vectors, against comparing all. bytes_per_vector: memory.
    """

    kind: Literal["exact", "fastscan"]
    vectors: int
    tail_rows: int
    dead_rows: int
    bytes_per_vector: float
    sub_quantisers: int | None
    candidates: int | None
    recall_at_10: float | None


class Index:
    """An immutable set of labelled unit vectors; empty unless given parts."""

    def __init__(self, dimension: int, scan: Scan | None = None, tail: Exact | None = None) -> None:
        self.dimension = dimension
        self._scan = scan
        self._tail = tail or Exact()

    def __len__(self) -> int:
        return len(self._tail) + (0 if self._scan is None else len(self._scan))

    @property
    def labels(self) -> Labels:
        """Of all vectors, int64 (N,), in no order."""
        if self._scan is None:
            return self._tail.labels
        return np.concatenate([self._scan.labels, self._tail.labels])

    def plus(self, labels: Labels, vectors: Vectors) -> "Index":
        """Return this index and these vectors, float32 (B, D), under labels it does not hold yet.

        A vector of zeros stays one: its cosine with everything is 0. Raises ValueError for vectors
        that are not finite.
        """
        rows = _unit(vectors, self.dimension)
        return Index(self.dimension, self._scan, self._tail.plus(labels, rows))

    def minus(self, labels: Labels) -> "Index":
        """Return this index without these labels; those it does not hold are skipped."""
        if not len(labels):
            return self
        scan = None if self._scan is None else self._scan.minus(labels)
        return Index(self.dimension, scan, self._tail.minus(labels))

    def search(self, vectors: Vectors, k: int, within: Labels | None = None) -> Hits:
        """The `k` nearest of each row of `vectors`, float32 (Q, D); one thread.

        within: the labels that may be found, int64, sorted; others it names are skipped.
        """
        use_one_thread()
        queries = _unit(vectors, self.dimension)
        found = list(self._tail.search(queries, k, within))
        if self._scan is not None:
            found += self._scan.search(queries, k, within)
        return merged(found, len(queries), k)

    @property
    def compaction_due(self) -> bool:
        """Whether `compacted` would make searches faster, or give back memory that is worth it."""
        if self._scan is None:
            return len(self._tail) >= SCAN_FROM
        return len(self._tail) >= TAIL_ROWS or any(map(wants_rebuild, self._scan.blocks))

    @property
    def compaction_pays(self) -> bool:
        """Whether `compacted` would make searches faster, where nothing else is to be done."""
        return self.compaction_due or (self._scan is not None and len(self._tail) >= SPARE_ROWS)

    def compacted(self) -> "Index":
        """Return an index of the same vectors, arranged for searching.

        64 thousand new vectors take 2 s, a million 20 s (2026-11-24, as above). It uses one thread,
        holds the interpreter for less than a millisecond at a time, and needs memory for the blocks
        it makes anew.
        """
        use_one_thread()
        rest = [Source(segment.labels, segment.rows) for segment in self._tail.segments]
        if len(self) >= SCAN_FROM:
            return Index(self.dimension, compacted(self._scan, rest))
        tail = self._tail
        for some in map(source, self._scan.blocks if self._scan is not None else ()):
            alive = np.flatnonzero(some.labels >= 0)
            tail = tail.plus(some.labels[alive], some.rows[alive].astype(np.float32))
        return Index(self.dimension, None, tail)

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
        """Recall@10 of searches by codes, on a few queries that `seed` chooses; None without codes."""
        use_one_thread()
        return None if self._scan is None else probed(self._scan, seed)

    def save(self, path: Path, identity: uuid.UUID) -> None:
        """Write a snapshot that replaces the last one whole or not at all; raises OSError.

        identity: of the database that this index was derived from.
        """
        snapshot.write(path, self.dimension, identity, self._scan, self._tail)

    @classmethod
    def load(cls, path: Path, dimension: int, identity: uuid.UUID) -> "Index":
        """Read a snapshot; raises BadSnapshot unless every byte is as it was saved."""
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
