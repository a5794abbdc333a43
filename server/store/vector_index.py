"""The seam between collections and the index that keeps their vectors.

How this works. A vector index is an immutable value: `plus` and `minus` return another index, and the
old one still answers. A collection prepares the next index inside the database's transaction and
replaces one reference after the commit. So a search uses one index from start to end, waits for no
write, and a write that fails leaves the old index as it was.

An index is derived from the documents, never the truth. It may lose everything: the collection then
adds what is missing. So `save` is an optimisation, and `load` refuses whatever it does not trust.

`local_index` is the implementation of this server. Another one passes its `IndexMaker` to the
`DataFolder`.
"""

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from server.store.selection import Selection
from server.types import Labels, Vectors

# A model's vectors have a length of 1, or of some tens where it does not normalise. The squares of
# lengths far beyond these overflow or vanish in float32, and every score would be 0.
LEAST_NORM, MOST_NORM = 1e-9, 1e9


class BadSnapshot(Exception):
    """The file is no snapshot of this database; the index must be rebuilt from the documents.

    Not a ServerError: it never leaves the store.
    """


def usable(vectors: Vectors) -> npt.NDArray[np.bool_]:
    """Return which rows have a direction that float32 can compute, or are zeros: bool (B,).

    No model gives others, but a file that another program wrote may hold them.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(vectors, axis=1)
    in_bounds = (norms >= LEAST_NORM) & (norms <= MOST_NORM)
    return np.asarray(in_bounds | ~vectors.any(axis=1))


@dataclass(frozen=True, slots=True)
class Hits:
    """The nearest vectors of Q queries, best first.

    scores: float32 (Q, K), cosines, -inf where fewer than K vectors exist.
    labels: int64 (Q, K), -1 where fewer than K exist.
    """

    scores: Vectors
    labels: Labels


@dataclass(frozen=True, slots=True)
class IndexStats:
    """The kind and the sizes of an index.

    kind: a name of the arrangement, "exact" where every vector is compared. tail_rows: vectors that
    the next compaction arranges. dead_rows: deleted vectors that it removes. bytes_per_vector: memory.
    sub_quantisers: 4-bit codes of a vector; candidates: how many vectors a search scores;
    recall_at_10: measured against comparing all. These three are None where the index has no codes.
    """

    kind: str
    vectors: int
    tail_rows: int
    dead_rows: int
    bytes_per_vector: float
    sub_quantisers: int | None
    candidates: int | None
    recall_at_10: float | None


class VectorIndex(Protocol):
    """An immutable set of labelled vectors, searched by cosine; searches come from any thread."""

    def __len__(self) -> int: ...

    @property
    def labels(self) -> Labels:
        """The labels of all vectors, int64 (N,), in no order."""

    def plus(self, labels: Labels, vectors: Vectors) -> Self:
        """Return this index and these vectors, float32 (B, D), under labels it does not hold yet.

        A vector of zeros stays one: its cosine with everything is 0. Raises ValueError for vectors
        that are not finite.
        """

    def minus(self, labels: Labels) -> Self:
        """Return this index without these labels; labels it does not hold are skipped."""

    def search(self, vectors: Vectors, k: int, within: Selection | None = None) -> Hits:
        """Find the `k` nearest vectors of each row of `vectors`, float32 (Q, D).

        within: the labels that may be found; those that it does not hold are skipped.
        """

    @property
    def compaction_due(self) -> bool:
        """Return whether to call `compacted` now: searches are slow, or much memory is wasted."""

    @property
    def compaction_pays(self) -> bool:
        """Return whether to call `compacted` once no document is being written."""

    def compacted(self, queries: Vectors | None = None) -> Self:
        """Return an index of the same vectors, arranged for searching; may take seconds.

        queries: past ones, float32 (Q, D), whose neighbours it should find.
        """

    def stats(self) -> IndexStats: ...

    def probed_recall(self, seed: int) -> float | None:
        """Measure recall@10 on a few queries that `seed` chooses; None where all are compared."""

    def save(self, path: Path, identity: uuid.UUID) -> None:
        """Write a snapshot that replaces the last one whole or not at all; raises OSError.

        identity: of the database that this index was derived from.
        """


class IndexMaker(Protocol):
    """Makes the indexes of a data folder's collections."""

    def __call__(self, dimension: int) -> VectorIndex:
        """Return an empty index of vectors with `dimension` numbers."""

    def load(self, path: Path, dimension: int, identity: uuid.UUID) -> VectorIndex:
        """Read a snapshot; raises BadSnapshot unless it is one of this database, and undamaged."""
