"""As many different vectors as an index is to hold, made of real ones, and their true neighbours.

A row is a real vector, moved a part of the way to one of its 16 nearest, and then by a part of the
difference between two other neighbours. So rows are all different, lie where real ones lie, and are spread
around each other as real neighbours are: not evenly in all directions, as noise would be.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

from server.types import Labels, Vectors

PIECE_ROWS = 8192
NEAR = 16
# How far to the neighbour; how much of another difference.
TOWARDS, ASIDE = (0.0, 0.6), (0.3, 0.6)
GENERATED, CLUSTERS, D = 60_000, 600, 512


def read(path: Path | None, generated: int, seed: int) -> Vectors:
    """Return the unit rows of a file, or generated ones without a file."""
    rows = np.load(path) if path else clustered(generated, seed)
    rows = np.asarray(rows, dtype=np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def clustered(number: int, seed: int) -> Vectors:
    """Return rows float32 (number, D) in clusters; a few axes hold most of the variance."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((CLUSTERS, D), dtype=np.float32)
    spread = (np.arange(1, D + 1, dtype=np.float32) ** -0.5)[random.permutation(D)]
    random = np.random.default_rng(seed)
    rows = random.standard_normal((number, D), dtype=np.float32)
    return np.asarray((rows * 1.5 + centres[random.integers(CLUSTERS, size=number)]) * spread)


@dataclass(frozen=True, slots=True)
class Mixtures:
    """Rows made of `base`, unit rows float32 (n, D), and the NEAR nearest of each."""

    base: Vectors
    near: Labels

    @classmethod
    def of(cls, base: Vectors) -> "Mixtures":
        lists = max(1, int(len(base) ** 0.5))
        index = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(base.shape[1]), base.shape[1], lists, faiss.METRIC_INNER_PRODUCT
        )
        index.train(base[: 64 * lists])
        index.add(base)
        index.nprobe = NEAR
        # The first is the row itself.
        return cls(base, index.search(base, NEAR + 1)[1][:, 1:])

    def pieces(self, number: int) -> Iterator[tuple[Labels, Vectors]]:
        """Yield labels and rows, the same at every call: first the real ones, then made ones."""
        for start in range(0, number, PIECE_ROWS):
            labels = np.arange(start, min(start + PIECE_ROWS, number))
            if labels[-1] < len(self.base):
                yield labels, self.base[labels]
            else:
                yield labels, self._made(len(labels), start)

    def _made(self, number: int, seed: int) -> Vectors:
        random = np.random.default_rng(seed)

        def pairs() -> tuple[Vectors, Vectors]:
            chosen = random.integers(len(self.base), size=number)
            other = self.near[chosen, random.integers(NEAR, size=number)]
            # Where the lists held too few, there is none.
            return self.base[chosen], self.base[np.where(other < 0, chosen, other)]

        (row, neighbour), (first, second) = pairs(), pairs()
        towards = random.uniform(*TOWARDS, (number, 1)).astype(np.float32)
        aside = random.uniform(*ASIDE, (number, 1)).astype(np.float32)
        rows = row + towards * (neighbour - row) + aside * (first - second)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def truth(
    pieces: Iterator[tuple[Labels, Vectors]], queries: Vectors, k: int, within: Labels | None = None
) -> list[set[int]]:
    """Return for each query the labels that are at least as near as the k-th, by comparing all."""
    depth, n = 2 * k, len(queries)
    scores = np.full((n, depth), -np.inf, dtype=np.float32)
    labels = np.full((n, depth), -1, dtype=np.int64)
    for some, rows in pieces:
        if within is not None:
            inside = np.isin(some, within)
            some, rows = some[inside], rows[inside]
        new, places = faiss.knn(
            queries, rows, min(depth, len(rows)), metric=faiss.METRIC_INNER_PRODUCT
        )
        scores = np.concatenate([scores, new], axis=1)
        labels = np.concatenate([labels, some[places]], axis=1)
        best = np.argsort(-scores, axis=1)[:, :depth]
        scores = np.take_along_axis(scores, best, 1)
        labels = np.take_along_axis(labels, best, 1)
    return [
        set(near[score >= score[k - 1] - 1e-6].tolist())
        for near, score in zip(labels, scores, strict=True)
    ]


def recall(found: list[set[int]], true: list[set[int]], k: int) -> float:
    """Return the share of `k` neighbours that was found; ties with the last count."""
    hits = [min(k, len(some & near)) for some, near in zip(found, true, strict=True)]
    return round(float(np.mean(hits)) / k, 4)
