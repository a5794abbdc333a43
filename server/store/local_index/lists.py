"""Lists of neighbouring vectors: the one a vector goes into, and those a query reads.

How this works. A vector goes into the list with the nearest centroid, by a few wide axes: that is done for
millions of vectors, so it must be cheap. A query reads the lists whose vectors are near it on average,
by all axes that are coded: that is done once, and decides how many vectors it must read. Measured
2026-11-30: 300 questions on other subjects, a million vectors, 4,096 lists, how much of all must be read for
0.99 of ten neighbours: 0.24 in the order of centroids by 128 axes, 0.20 in that of means by 128 axes, 0.18 by
192, 0.16 by 320; means of 64 vectors a list instead of all: 0.18. An order that also counts how
spread a list is, or a bound on the score instead of a number of lists, reads as much.
"""

from collections.abc import Iterable
from typing import Any, cast

import faiss
import numpy as np

from server.store.local_index.rows import SLICE_ROWS, Places, Rows
from server.types import Labels, Vectors

# FAISS's own description of its types lacks some that its libraries have.
native: Any = faiss

ROUNDS = 6
# Groups of centroids that a vector is compared with. Of 64, with 4,096 lists: 8 find the nearest centroid of
# 0.989 of the vectors in 8.5 us, 4 of 0.958 in 4.8; comparing all takes 37.
NEAR_GROUPS = 8
ROWS_A_GROUP = 64


def learned(sample: Vectors, lists: int) -> Vectors:
    """Return centroids of unit length: float32 (lists, D) of a sample (n, D), n >= lists."""
    width = sample.shape[1]
    near = _grouped(sample, lists)
    means: Any = faiss.Clustering(width, lists)
    means.niter, means.spherical, means.seed = ROUNDS, True, 1
    # The caller knows how many are enough; FAISS would warn on the terminal.
    means.min_points_per_centroid, means.max_points_per_centroid = 1, len(sample)
    means.train(np.ascontiguousarray(sample), near)
    centroids = faiss.vector_float_to_array(means.centroids)
    return cast(Vectors, centroids.reshape(lists, width))


def finder(centroids: Vectors) -> faiss.IndexIVFFlat:
    """Return an index that finds the nearest of these for many vectors, or nearly always."""
    index = _grouped(centroids, len(centroids))
    index.add(np.ascontiguousarray(centroids))
    # FAISS joins codes only where it can read the centroids back.
    index.make_direct_map()
    return index


def _grouped(sample: Vectors, lists: int) -> faiss.IndexIVFFlat:
    """Return an empty index of vectors like these in about the square root of `lists` groups."""
    width, groups = sample.shape[1], max(1, int(lists**0.5))
    kmeans = faiss.Kmeans(
        width, groups, niter=ROUNDS, spherical=True, max_points_per_centroid=ROWS_A_GROUP
    )
    kmeans.cp.min_points_per_centroid = 1
    kmeans.train(np.ascontiguousarray(sample))
    top = faiss.IndexFlatIP(width)
    top.add(kmeans.centroids)
    index = faiss.IndexIVFFlat(top, width, groups, faiss.METRIC_INNER_PRODUCT)
    index.is_trained, index.nprobe = True, NEAR_GROUPS
    return index


def means(lists: Iterable[tuple[Any, Rows]], number: int, dimension: int) -> Vectors:
    """Return the mean of the rows of each list, float32 (number, D): zero where it is empty.

    lists: the inverted lists of FAISS, and the rows they number.
    """
    sums, sizes = np.zeros((number, dimension)), np.zeros(number, dtype=np.int64)
    for inverted, rows in lists:
        held = np.array([inverted.list_size(i) for i in range(number)])
        places = np.concatenate([ids(inverted, i) for i in range(number)])
        owners = np.repeat(np.arange(number), held)
        for start in range(0, len(places), SLICE_ROWS):
            own = owners[start : start + SLICE_ROWS]
            first = np.flatnonzero(np.diff(own, prepend=-1))
            some = rows.coarse(places[start : start + SLICE_ROWS])
            sums[own[first]] += np.add.reduceat(some, first, axis=0)
        sizes += held
    return (sums / np.maximum(sizes, 1)[:, None]).astype(np.float32)


def ids(inverted: Any, number: int) -> Places:
    """Return the numbers in a list: int64, a view of FAISS's memory, valid as long as that."""
    size = inverted.list_size(number)
    if not size:
        return np.empty(0, dtype=np.int64)
    return cast(Labels, native.rev_swig_ptr(inverted.get_ids(number), size))
