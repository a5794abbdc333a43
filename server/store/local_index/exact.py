"""Nearest vectors by comparing with all of them: exact, and fastest while there are few.

The vectors lie in segments of up to SEGMENT_ROWS rows. One version of the index shares them with the
next; a write copies only the segments it touches.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import faiss
import numpy as np

from server.store.selection import Mask, Selection
from server.store.vector_index import Hits
from server.types import Labels, Vectors

# Measured 2026-11-24 on a 2-core VM, AVX512-VNNI, 512 wide: copying a segment of 4,096 / 8,192 /
# 16,384 rows takes 0.2 / 0.8 / 7.5 ms (from there on fresh pages cost more than the copy), searching
# one 0.14 / 0.3 / 0.9 ms, and asking one more segment costs 10 us.
SEGMENT_ROWS = 8192
# Copying the rows that a filter keeps pays up to this share of them: 0.25 us each.
FEW = 1 / 32


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Labels int64 (n,), ascending, and float32 (n, D) of unit length."""

    labels: Labels
    rows: Vectors

    @classmethod
    def of(cls, labels: Labels, rows: Vectors) -> "Segment":
        """Return a segment of labels in any order."""
        if (labels[1:] > labels[:-1]).all():
            return cls(labels, rows)
        order = np.argsort(labels)
        return cls(labels[order], rows[order])


class Exact:
    """An immutable set of labelled unit vectors, in no order."""

    def __init__(self, segments: tuple[Segment, ...] = ()) -> None:
        self.segments = segments

    def __len__(self) -> int:
        return sum(len(segment.labels) for segment in self.segments)

    @property
    def labels(self) -> Labels:
        """The labels of all vectors, int64 (N,)."""
        held = [segment.labels for segment in self.segments]
        return np.concatenate([np.empty(0, dtype=np.int64), *held])

    @property
    def bytes_held(self) -> int:
        return sum(segment.labels.nbytes + segment.rows.nbytes for segment in self.segments)

    def plus(self, labels: Labels, rows: Vectors) -> "Exact":
        """Return this and unit rows, float32 (B, D), under labels it does not hold yet.

        The rows are kept, not copied; the caller must not write to them.
        """
        segments = list(self.segments)
        for start in range(0, len(labels), SEGMENT_ROWS):
            some = slice(start, start + SEGMENT_ROWS)
            added = Segment.of(labels[some].copy(), rows[some])
            # The smallest, so that segments thinned by deletes fill up again.
            smallest = min(segments, key=lambda segment: len(segment.labels), default=None)
            if smallest and len(smallest.labels) + len(added.labels) <= SEGMENT_ROWS:
                segments.remove(smallest)
                added = Segment.of(
                    np.concatenate([smallest.labels, added.labels]),
                    np.concatenate([smallest.rows, added.rows]),
                )
            segments.append(added)
        return Exact(tuple(segments))

    def minus(self, labels: Labels) -> "Exact":
        """Return this without these labels; labels it does not hold are skipped."""
        segments = []
        for segment in self.segments:
            stays = ~np.isin(segment.labels, labels)
            if stays.all():
                segments.append(segment)
            elif stays.any():
                segments.append(Segment(segment.labels[stays], segment.rows[stays]))
        return Exact(tuple(segments))

    def search(self, queries: Vectors, k: int, within: Selection | None) -> Iterator[Hits]:
        """Yield the nearest of each segment; queries: float32 (Q, D) of unit length."""
        for segment in self.segments:
            labels, rows = segment.labels, segment.rows
            chosen = None if within is None else within.of_row(labels)
            n_chosen = len(labels) if chosen is None else int(np.count_nonzero(chosen))
            if chosen is not None and n_chosen <= FEW * len(labels):
                places = np.flatnonzero(chosen)
                labels, rows, chosen = labels[places], rows.take(places, axis=0), None
            if n_chosen:
                scores, places = _nearest(queries, rows, min(k, n_chosen), chosen)
                yield Hits(scores, labels[places])


def _nearest(
    queries: Vectors, rows: Vectors, k: int, chosen: Mask | None
) -> tuple[Vectors, Labels]:
    """Return scores and places of the nearest rows; chosen: that may be found, at least `k` of them."""
    if chosen is None or chosen.all():
        scores, places = faiss.knn(queries, rows, k, metric=faiss.METRIC_INNER_PRODUCT)
        return scores, places
    scores = np.empty((len(queries), k), dtype=np.float32)
    places = np.empty((len(queries), k), dtype=np.int64)
    bits = np.packbits(chosen, bitorder="little")
    pointers = map(faiss.swig_ptr, (np.ascontiguousarray(queries), np.ascontiguousarray(rows)))
    faiss.knn_inner_product(  # type: ignore[call-arg]
        *pointers,
        rows.shape[1],
        len(queries),
        len(rows),
        k,
        faiss.swig_ptr(scores),
        faiss.swig_ptr(places),
        faiss.IDSelectorBitmap(len(rows), faiss.swig_ptr(bits)),
    )
    return scores, places


def merged(found: list[Hits], n_queries: int, k: int) -> Hits:
    """Return the `k` best of several lists of hits for the same queries."""
    if len(found) == 1 and found[0].labels.shape[1] == k:
        return found[0]
    absent = np.full((n_queries, k), -np.inf, dtype=np.float32)
    scores = np.concatenate([*(hits.scores for hits in found), absent], axis=1)
    labels = np.concatenate(
        [*(hits.labels for hits in found), np.full(absent.shape, -1, dtype=np.int64)], axis=1
    )
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]  # (Q, K)
    return Hits(np.take_along_axis(scores, best, 1), np.take_along_axis(labels, best, 1))


def use_one_thread() -> None:
    """Make FAISS use one thread for calls of this thread."""
    # subtle: OpenMP keeps this setting for the calling thread only, so every search sets it.
    faiss.omp_set_num_threads(1)
