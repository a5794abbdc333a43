"""Many vectors in little memory: 4-bit codes to pick candidates from, float16 rows to score them.

How this works. A product quantiser cuts a vector into pieces of two numbers and names the nearest
of 16 centroids for each. FAISS keeps such codes so that one instruction looks up 32 of them
(FastScan). A pass over all codes is bound by memory, not by arithmetic, so there is no graph or tree to
build, to repair after deletes or to lose neighbours in. Codes are coarse, so the best few hundred are
scored again with their rows; float16 moves a cosine by less than 0.0001.

The choice of pieces decides how good the codes are. The vectors are rotated to their principal axes,
and the widest axis shares a piece with the narrowest one kept, so that all pieces carry about as
much. Axes with hardly any variance are left out of the codes (the rows have them).

A block never changes: a delete makes another one that shares everything but the mask.
"""

import math
from dataclasses import dataclass, replace
from typing import cast

import faiss
import numpy as np
import numpy.typing as npt

from server.store.local_index.exact import merged
from server.store.selection import FEW_OF, Mask, Selection
from server.store.vector_index import Hits
from server.types import Labels, Vectors

Rows = npt.NDArray[np.float16]  # (n, D)
Places = npt.NDArray[np.int64]  # of rows in a block

# Pieces of a code for every number of a vector: 160 pieces, 80 bytes, for 512 numbers. Measured
# 2026-11-24 on a 2-core VM, AVX512-VNNI, one thread: 1,020,192 vectors made of 63,762 laws by noise,
# real questions, the 500 best estimates scored again; pieces x numbers, recall@10, ms a pass:
#   128 x 2  0.989  3.0     160 x 2  0.998  3.6     160 x 3  0.995  3.6
#   144 x 2  0.994  3.5     176 x 2  0.999  3.9     128 x 4  0.988  3.5
#   IVF of 256 lists over 128 x 4, half of them read  0.977  1.8    RaBitQ, 512 bits  0.928  7.6
# In the order of the numbers, without the turn, 128 x 4 finds 0.900 of the laws' neighbours among
# 100 estimates, with it 0.986; OPQ finds 0.895. Weighting axes by their variance brings nothing.
PIECES_A_NUMBER = 5 / 16
# Rows decoded, coded, or scored at once: few enough to stay in the L2 cache and to release the
# interpreter lock every millisecond.
SLICE_ROWS = 2048
# Up to this many rows are all scored: 0.3 us each, and a pass over the codes takes 0.9 ms a block.
DIRECT_ROWS = 4096
# FAISS's way with a reservoir and without blocks of queries: 16 queries at once take 0.62 ms each,
# with what it chooses by itself 0.9 (2026-11-24, as above, 262,144 rows, 500 candidates).
IMPLEMENTATION = 15
# Past n / 8 candidates sorting them costs more than scoring the rows that a filter leaves.
MOST_OF = 8


@dataclass(frozen=True, slots=True, eq=False)
class Quantiser:
    """The coding of vectors; all blocks share it, so that their estimates can be compared.

    turn: from D numbers to those that are coded; codec: trained, holds nothing.
    """

    turn: faiss.LinearTransform
    codec: faiss.IndexPQFastScan

    @classmethod
    def of(cls, axes: Vectors, codec: faiss.IndexPQFastScan) -> "Quantiser":
        """Return a quantiser. axes: float32 (numbers that are coded, D), orthonormal."""
        turn = faiss.LinearTransform(axes.shape[1], axes.shape[0], False)
        faiss.copy_array_to_vector(axes.ravel(), turn.A)
        turn.is_trained = True
        return cls(turn, codec)

    @property
    def axes(self) -> Vectors:
        axes = faiss.vector_to_array(self.turn.A)
        return cast(Vectors, axes.reshape(self.turn.d_out, self.turn.d_in))

    @property
    def pieces(self) -> int:
        return int(self.codec.pq.M)

    def turned(self, vectors: Vectors) -> Vectors:
        return cast(Vectors, self.turn.apply(vectors))

    def coded(self, rows: Rows) -> faiss.IndexPQFastScan:
        codes = cast(faiss.IndexPQFastScan, faiss.clone_index(self.codec))
        for start in range(0, len(rows), SLICE_ROWS):
            codes.add(self.turned(rows[start : start + SLICE_ROWS].astype(np.float32)))
        return codes


def train(sample: Vectors) -> Quantiser:
    """Learn from unit rows, float32 (n, D), n at least a few thousand."""
    dimension = sample.shape[1]
    pieces = max(2, int(dimension * PIECES_A_NUMBER) // 2 * 2)
    analysis = faiss.PCAMatrix(dimension, dimension)
    analysis.train(sample)
    axes = faiss.vector_to_array(analysis.PCAMat).reshape(dimension, dimension)
    # Widest with narrowest. No mean is taken off: it would change all scores of a query alike.
    widest, narrowest = np.arange(pieces), np.arange(2 * pieces - 1, pieces - 1, -1)
    order = np.stack([widest, narrowest], axis=1).ravel()
    codec = faiss.IndexPQFastScan(2 * pieces, pieces, 4, faiss.METRIC_INNER_PRODUCT)
    quantiser = Quantiser.of(np.ascontiguousarray(axes[order]), codec)
    codec.train(quantiser.turned(sample))
    return quantiser


@dataclass(frozen=True, slots=True)
class Candidates:
    """Rows near one query by their codes: float32 (C,) estimates of cosines, and places."""

    estimates: Vectors
    places: Places


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Rows float16 (n, D) under ascending labels int64 (n,), their codes, and which are alive.

    n is at least 1; alive: bool (n,), n_alive of it True.
    """

    labels: Labels
    rows: Rows
    codes: faiss.IndexPQFastScan
    alive: Mask
    n_alive: int

    @classmethod
    def of(
        cls, labels: Labels, rows: Rows, codes: faiss.IndexPQFastScan, alive: Mask | None = None
    ) -> "Block":
        codes.implem = IMPLEMENTATION
        if alive is None:
            alive = np.ones(len(labels), dtype=np.bool_)
        return cls(labels, rows, codes, alive, int(np.count_nonzero(alive)))

    @property
    def bytes_held(self) -> int:
        arrays = self.labels.nbytes + self.rows.nbytes + self.alive.nbytes
        return arrays + int(self.codes.codes.size())

    def minus(self, labels: Labels) -> "Block":
        """Return the block without these labels, which are sorted; itself where it has none."""
        gone = self._places(labels)
        gone = gone[self.alive[gone]]
        if not len(gone):
            return self
        alive = self.alive.copy()
        alive[gone] = False
        return replace(self, alive=alive, n_alive=self.n_alive - len(gone))

    def selected(self, within: Selection | None) -> Places:
        """Return the places of the rows that may be found."""
        if within is None:
            return np.flatnonzero(self.alive)
        nearby = within.between(self.labels[0], self.labels[-1])
        if nearby.count * FEW_OF > len(self.labels):
            return np.flatnonzero(within.of_row(self.labels) & self.alive)
        places = self._places(nearby.labels)
        return places[self.alive[places]]

    def candidates(
        self, turned: Vectors, within: Selection | None, wanted: int
    ) -> list[Candidates] | None:
        """Return the best candidates of each of Q turned queries, float32 (Q, coded numbers).

        About `wanted` of a whole block, fewer where only some rows may be found. None where the codes
        do not help: few rows may be found, or those are far from a query.
        """
        n, n_chosen = len(self.labels), self.n_alive
        if within is not None:
            nearby = within.between(self.labels[0], self.labels[-1])
            n_chosen = min(n_chosen, nearby.count)
        if n_chosen <= DIRECT_ROWS:
            return None
        # A tenth of the rows needs fewer candidates, but not a tenth of them.
        enough = wanted * (n_chosen / n) ** (1 / 3)
        asked = math.ceil(enough * n / n_chosen)
        while asked <= n / MOST_OF:
            estimates, places = self.codes.search(turned, asked)
            kept = self.alive[places] & (places >= 0)  # (Q, asked)
            if within is not None:
                kept &= within.contains(self.labels[places])
            if kept.sum(axis=1).min(initial=asked) >= enough / 2:
                found = zip(estimates, places, kept, strict=True)
                return [Candidates(e[c], p[c]) for e, p, c in found]
            asked *= 4
        return None

    def scored(self, queries: Vectors, places: Places, k: int) -> Hits:
        """Score the rows at these places; queries: float32 (Q, D) of unit length."""
        found = []
        for start in range(0, len(places), SLICE_ROWS):
            part = places[start : start + SLICE_ROWS]
            exact = faiss.IndexScalarQuantizer(
                self.rows.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
            )
            exact.add_sa_codes(self.rows.take(part, axis=0).view(np.uint8))
            scores, positions = exact.search(queries, min(k, len(part)))
            found.append(Hits(scores, self.labels[part[positions]]))
        return merged(found, len(queries), k)

    def _places(self, labels: Labels) -> Places:
        """Return the places of those labels that the block has, dead or alive."""
        places = np.searchsorted(self.labels, labels)
        places[places == len(self.labels)] = 0
        return cast(Places, places[self.labels[places] == labels])


def packed(codes: faiss.IndexPQFastScan) -> npt.NDArray[np.uint8]:
    """Return codes as FAISS writes them, with the centroids."""
    return faiss.serialize_index(codes)


def unpacked(content: npt.NDArray[np.uint8], number: int) -> faiss.IndexPQFastScan:
    """Return codes of so many rows; raises ValueError where the content is something else."""
    try:
        codes = faiss.deserialize_index(content)
    except RuntimeError as error:
        raise ValueError(f"not readable by this FAISS: {error}") from None
    if not isinstance(codes, faiss.IndexPQFastScan) or codes.ntotal != number:
        raise ValueError("another kind of index inside")
    return codes
