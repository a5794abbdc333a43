"""Many vectors in little memory: 4-bit codes to pick candidates from, 16-bit rows to score them.

How this works. A product quantiser cuts a vector into pieces of two numbers and names the nearest
of 16 centroids for each. FAISS keeps such codes so that one instruction looks up 32 of them
(FastScan). A pass over codes is bound by memory, not by arithmetic. Codes are coarse, so the best few
hundred are scored again with their rows.

The choice of pieces decides how good the codes are. The vectors are rotated to their principal axes,
and the widest axis shares a piece with the narrowest one kept, so that all pieces carry about as
much. Axes with hardly any variance are left out of the codes (the rows have them).

Codes lie in lists of neighbouring vectors (`lists`), and a search reads the lists near its query. Up to
LISTS_FROM vectors there is one list: reading all of it costs too little to give up any neighbour. There is no
graph or tree to build, or to repair after deletes.

A block never changes: a delete makes another one that shares everything but the mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import faiss
import numpy as np
import numpy.typing as npt

from server.store.local_index.drawing import Source
from server.store.local_index.lists import finder, ids, learned, means
from server.store.local_index.rows import SLICE_ROWS, Places, Rows
from server.store.selection import FEW_OF, Mask, Selection, found_in
from server.types import Labels, Vectors, unit

# FAISS's own description of its types lacks some that its libraries have.
native: Any = faiss
Bits = npt.NDArray[np.uint8]  # one bit a row, the lowest first

# Pieces of a code for every number of a vector: 160 pieces, 80 bytes, for 512 numbers. Measured
# 2026-11-24 on a 2-core VM, AVX512-VNNI, one thread: 1,020,192 vectors made of 63,762 laws by noise,
# real questions, the 500 best estimates scored again; pieces x numbers, recall@10, ms a pass:
#   128 x 2  0.989  3.0     160 x 2  0.998  3.6     160 x 3  0.995  3.6
#   144 x 2  0.994  3.5     176 x 2  0.999  3.9     128 x 4  0.988  3.5
#   RaBitQ, 512 bits  0.928  7.6
# In the order of the numbers, without the turn, 128 x 4 finds 0.900 of the laws' neighbours among
# 100 estimates, with it 0.986; OPQ finds 0.895. Weighting axes by their variance brings nothing.
PIECES_A_NUMBER = 5 / 16
# Axes that a list's centroid has, the widest ones. With 256 of 512 instead, a query reads 2 % less for the same
# recall, and putting vectors into lists takes twice as long (2026-11-30).
CENTROID_AXES = 128
# FAISS's way with a reservoir for one query after another: its others estimate no faster, and here a
# query finds the same alone and among others.
IMPLEMENTATION = 11
# Rows are few, and looked up one by one, where so many times as many are in the block and a slice of a table
# answers for all; else it is FEW_OF.
SLICED_OF = 256


@dataclass(frozen=True, slots=True, eq=False)
class Quantiser:
    """The coding of vectors; all blocks share it, so that their estimates can be compared.

    turn: from D numbers to those that are coded; codec: trained, holds nothing; centroids: float32 (lists, of
    the widest axes); coarse: finds the nearest of them; guides: a vector for each list, by which a query
    chooses lists.
    """

    turn: faiss.LinearTransform
    codec: faiss.IndexPQFastScan
    centroids: Vectors
    coarse: faiss.IndexPreTransform
    guides: faiss.IndexPQFastScan

    @classmethod
    def of(
        cls,
        axes: Vectors,
        codec: faiss.IndexPQFastScan,
        centroids: Vectors,
        guides: faiss.IndexPQFastScan | None = None,
    ) -> "Quantiser":
        """Return a quantiser.

        axes: float32 (numbers that are coded, D), orthonormal; centroids: float32 (lists, some of those);
        guides: of so many lists, the centroids where there are none.
        """
        coded, width = len(axes), centroids.shape[1]
        widest = np.zeros((width, coded), dtype=np.float32)
        # As `train` orders them: every second is one of the wide ones.
        widest[np.arange(width), 2 * np.arange(width)] = 1
        chosen = _linear(widest)
        # FAISS joins codes only if it can turn centroids back.
        chosen.is_orthonormal = True
        coarse = faiss.IndexPreTransform(chosen, finder(centroids))
        if guides is None:
            guides = _coded(codec, centroids @ widest)
        return cls(_linear(axes), codec, centroids, coarse, guides)

    def guided_by(self, blocks: "Sequence[Block]") -> "Quantiser":
        """Return this quantiser with the means of the vectors in these blocks as guides."""
        if self.lists == 1:
            return self
        held = [(block.codes.invlists, block.rows) for block in blocks]
        mean = unit(means(held, self.lists, self.turn.d_in))
        return replace(self, guides=_coded(self.codec, self.turned(mean)))

    @property
    def axes(self) -> Vectors:
        axes = faiss.vector_to_array(self.turn.A)
        return cast(Vectors, axes.reshape(self.turn.d_out, self.turn.d_in))

    @property
    def pieces(self) -> int:
        return int(self.codec.pq.M)

    @property
    def lists(self) -> int:
        return len(self.centroids)

    def turned(self, vectors: Vectors) -> Vectors:
        return cast(Vectors, self.turn.apply(vectors))

    def near(self, turned: Vectors, number: int) -> tuple[Vectors, Labels]:
        """Return cosines with the nearest guides of turned queries, and their lists: (Q, number)."""
        if self.lists == 1:
            one = (len(turned), 1)
            return np.full(one, -np.inf, dtype=np.float32), np.zeros(one, dtype=np.int64)
        return cast(tuple[Vectors, Labels], self.guides.search(turned, number))

    def coded(self, rows: Rows) -> faiss.IndexIVFPQFastScan:
        codes = faiss.IndexIVFPQFastScan(
            self.coarse, self.codec.d, self.lists, self.pieces, 4, faiss.METRIC_INNER_PRODUCT
        )
        codes.by_residual = False
        codes.pq = self.codec.pq
        codes.is_trained = True
        for start in range(0, len(rows), SLICE_ROWS):
            turned = self.turned(rows.slice(start, start + SLICE_ROWS))
            codes.add_with_ids(turned, np.arange(start, start + len(turned)))
        return codes


def width_of(codec: faiss.IndexPQFastScan) -> int:
    """Return how many numbers a centroid of a list has."""
    return min(CENTROID_AXES, int(codec.pq.M))


def _coded(codec: faiss.IndexPQFastScan, turned: Vectors) -> faiss.IndexPQFastScan:
    codes = faiss.clone_index(codec)
    codes.add(np.ascontiguousarray(turned))
    return cast(faiss.IndexPQFastScan, codes)


def _linear(matrix: Vectors) -> faiss.LinearTransform:
    turn = faiss.LinearTransform(matrix.shape[1], matrix.shape[0], False)
    faiss.copy_array_to_vector(matrix.ravel(), turn.A)
    turn.is_trained = True
    return turn


def train(sample: Vectors, lists: int = 1, wide_sample: Vectors | None = None) -> Quantiser:
    """Learn from unit rows, float32 (n, D), n at least a few thousand.

    wide_sample: the rows to learn several lists from, 32 or more a list.
    """
    dimension = sample.shape[1]
    pieces = max(2, int(dimension * PIECES_A_NUMBER) // 2 * 2)
    analysis = faiss.PCAMatrix(dimension, dimension)
    analysis.train(sample)
    axes = faiss.vector_to_array(analysis.PCAMat).reshape(dimension, dimension)
    # Widest with narrowest. No mean is taken off: it would change all scores of a query alike.
    widest, narrowest = np.arange(pieces), np.arange(2 * pieces - 1, pieces - 1, -1)
    order = np.stack([widest, narrowest], axis=1).ravel()
    axes = np.ascontiguousarray(axes[order])
    codec = faiss.IndexPQFastScan(2 * pieces, pieces, 4, faiss.METRIC_INNER_PRODUCT)
    turn = _linear(axes)
    codec.train(turn.apply(sample))
    width = width_of(codec)
    if wide_sample is None:
        return Quantiser.of(axes, codec, np.zeros((1, width), dtype=np.float32))
    parts = range(0, len(wide_sample), SLICE_ROWS)
    turned = [turn.apply(wide_sample[start : start + SLICE_ROWS]) for start in parts]
    wide = np.concatenate([part[:, : 2 * width : 2] for part in turned])
    return Quantiser.of(axes, codec, learned(wide, lists))


@dataclass(frozen=True, slots=True)
class Candidates:
    """Rows near Q queries by their codes: float32 (Q, C) estimates of cosines; (Q, C) places, -1 is none."""

    estimates: Vectors
    places: Places


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Rows (n, D) under ascending labels int64 (n,), their codes, and which are alive.

    n is at least 1; alive: bool (n,), n_alive of it True.
    """

    labels: Labels
    rows: Rows
    codes: faiss.IndexIVFPQFastScan
    alive: Mask
    n_alive: int

    @classmethod
    def of(
        cls, labels: Labels, rows: Rows, codes: faiss.IndexIVFPQFastScan, alive: Mask | None = None
    ) -> "Block":
        codes.implem = IMPLEMENTATION
        if alive is None:
            alive = np.ones(len(labels), dtype=np.bool_)
        return cls(labels, rows, codes, alive, int(np.count_nonzero(alive)))

    @property
    def bytes_held(self) -> int:
        arrays = self.labels.nbytes + self.rows.bytes_held + self.alive.nbytes
        return arrays + len(self.labels) * (int(self.codes.code_size) + 8)

    def minus(self, labels: Labels) -> "Block":
        """Return the block without these labels, which are sorted; itself where it has none."""
        gone = self._places(labels)
        gone = gone[self.alive[gone]]
        if not len(gone):
            return self
        alive = self.alive.copy()
        alive[gone] = False
        return replace(self, alive=alive, n_alive=self.n_alive - len(gone))

    def source(self) -> Source:
        """Return the rows to build another block from."""
        return Source(np.where(self.alive, self.labels, -1), self.rows)

    def selected(self, within: Selection | None) -> Places | Mask:
        """Return the rows that may be found: their places where they are few, else a mask (n,)."""
        if within is None:
            return self.alive
        nearby = within.between(self.labels[0], self.labels[-1])
        few_of = SLICED_OF if nearby.is_slice(self.labels) else FEW_OF
        if nearby.count * few_of > len(self.labels):
            return nearby.of_row(self.labels) & self.alive
        places = self._places(nearby.labels)
        return places[self.alive[places]]

    def candidates(
        self, turned: Vectors, lists: Labels, wanted: int, selected: Places | Mask
    ) -> Candidates:
        """Return the `wanted` best of these rows in these lists of each of Q turned queries.

        turned: float32 (Q, coded numbers); lists: int64 (Q, L).
        """
        shape = (len(turned), wanted)
        estimates, places = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.int64)
        turned, lists = np.ascontiguousarray(turned), np.ascontiguousarray(lists)
        unused = np.zeros(lists.shape, dtype=np.float32)  # Only codes of residuals need these.
        asked = native.SearchParametersIVF(nprobe=lists.shape[1])
        bits = self._bits(selected)
        if bits is not None:
            chosen = native.IDSelectorBitmap(bits)
            asked = native.SearchParametersIVF(nprobe=lists.shape[1], sel=chosen)
        # The method of that name for numpy's arrays takes no parameters.
        cast(Any, self.codes).search_preassigned_c(
            len(turned),
            faiss.swig_ptr(turned),
            wanted,
            faiss.swig_ptr(lists),
            faiss.swig_ptr(unused),
            faiss.swig_ptr(estimates),
            faiss.swig_ptr(places),
            False,
            asked,
        )
        return Candidates(estimates, places)

    def _bits(self, selected: Places | Mask) -> Bits | None:
        """Return a bit for each row that may be found; None where all may."""
        if selected is self.alive and self.n_alive == len(self.labels):
            return None
        if selected.dtype == np.bool_:
            return np.packbits(selected, bitorder="little")
        mask = np.zeros(len(self.labels), dtype=np.bool_)
        mask[selected] = True
        return np.packbits(mask, bitorder="little")

    def _places(self, labels: Labels) -> Places:
        """Return the places of those labels that the block has, dead or alive."""
        places, there = found_in(self.labels, labels)
        return places[there]


def count(selected: Places | Mask) -> int:
    """Return how many rows `Block.selected` selected."""
    return int(np.count_nonzero(selected)) if selected.dtype == np.bool_ else len(selected)


def places(selected: Places | Mask) -> Places:
    """Return the places of the rows that `Block.selected` selected."""
    return np.flatnonzero(selected) if selected.dtype == np.bool_ else cast(Places, selected)


def joined(quantiser: Quantiser, first: Block, second: Block) -> Block:
    """Return one block of the rows of two, dead ones too; nothing is coded again, as far as FAISS can."""
    labels = np.concatenate([first.labels, second.labels])
    order = np.argsort(labels, kind="stable")
    moved = np.empty_like(order)
    moved[order] = np.arange(len(order))
    rows = Rows.empty(len(labels), first.rows.high.shape[1])
    rows.copy(moved[: len(first.labels)], first.rows)
    rows.copy(moved[len(first.labels) :], second.rows)
    alive = np.concatenate([first.alive, second.alive])
    if _can_merge_into(first.codes):
        codes: Any = faiss.clone_index(first.codes)
        codes.merge_from(faiss.clone_index(second.codes), len(first.labels))
        _renumber(codes, moved)
    else:
        codes = quantiser.coded(rows)
    return Block.of(labels[order], rows, codes, alive[order])


def _can_merge_into(codes: Any) -> bool:
    """Return whether FAISS can add other lists to these.

    Where a list has a multiple of as many vectors as its blocks have bytes, FAISS 1.15.1 takes another way,
    and writes past the end of its memory (`BlockInvertedLists::add_entries`).
    """
    lists = codes.invlists
    bytes_a_block = codes.bbs * codes.code_size
    sizes = [lists.list_size(number) for number in range(codes.nlist)]
    return all(size % bytes_a_block or not size for size in sizes)


def _renumber(codes: Any, moved: Places) -> None:
    """Replace every place in the lists by its new one."""
    for number in range(codes.nlist):
        # subtle: nobody else reads these yet.
        numbers = ids(codes.invlists, number)
        numbers[:] = moved[numbers]


def packed(codes: faiss.Index) -> Bits:
    """Return codes as FAISS writes them, with the centroids."""
    return faiss.serialize_index(codes)


def unpacked_codec(content: Bits, number: int = 0) -> faiss.IndexPQFastScan:
    """Return a trained codec, or codes of so many vectors without lists.

    Raises ValueError where the content is something else.
    """
    codec = _unpacked(content)
    if not isinstance(codec, faiss.IndexPQFastScan) or codec.ntotal != number:
        raise ValueError("another kind of index inside")
    return codec


def unpacked(content: Bits, number: int) -> faiss.IndexIVFPQFastScan:
    """Return codes of so many rows; raises ValueError where the content is something else."""
    codes = _unpacked(content)
    if not isinstance(codes, faiss.IndexIVFPQFastScan) or codes.ntotal != number:
        raise ValueError("another kind of index inside")
    return codes


def _unpacked(content: Bits) -> faiss.Index:
    try:
        return faiss.deserialize_index(content)
    except RuntimeError as error:
        raise ValueError(f"not readable by this FAISS: {error}") from None
