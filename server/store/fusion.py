"""One ranking out of two: what was found by meaning, and what was found by words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from server.store import Labels
from server.types import Vectors

RANK_CONSTANT = 10
CANDIDATES = 100
DENSE_WEIGHT, LEXICAL_WEIGHT = 1.0, 0.7


@dataclass(frozen=True, slots=True)
class Ranking:
    """labels: int64 (K,), each once, best first. scores: float32 (K,), theirs, descending.

    least: the score of what has nothing to do with the query; None where the scale does not say, so
    that it is taken to be the last one's.
    """

    labels: Labels
    scores: Vectors
    least: float | None = None


def fuse(
    rankings: Sequence[Labels],
    weights: Sequence[float],
    top: int,
    k: int = RANK_CONSTANT,
) -> tuple[Labels, Vectors]:
    """The `top` labels by weighted reciprocal ranks, best first: int64 (K,) and float32 (K,).

    rankings: int64 (K,) each, best first, a label once at most, no -1; lengths may differ. The score
    of a label is the sum over the rankings that have it, where it stands at rank 1, 2, ..., of
    weight / (k + rank); scores are looked at by nobody, so they may be on any scale (Cormack, Clarke
    and Buettcher, SIGIR 2009). Of equals the one that comes first in the first ranking is first.
    """
    parts = [
        weight / (k + np.arange(1, len(labels) + 1, dtype=np.float64))
        for labels, weight in zip(rankings, weights, strict=True)
    ]
    return _best(rankings, parts, top)


def blend(
    rankings: Sequence[Ranking], weights: Sequence[float], top: int
) -> tuple[Labels, Vectors]:
    """The `top` labels by weighted scores, best first: int64 (K,) and float32 (K,), from 0 to 1.

    Every ranking's scores are stretched so that its best is 1 and its `least` 0, which also is what
    a label gets from a ranking it is not in; the mean of them, by weight, is the label's score. Of
    equals the one that comes first in the first ranking is first.
    """
    whole = sum(weights)
    parts = [
        _stretched(ranking) * (weight / whole)
        for ranking, weight in zip(rankings, weights, strict=True)
    ]
    return _best([ranking.labels for ranking in rankings], parts, top)


def _stretched(ranking: Ranking) -> npt.NDArray[np.float64]:
    scores = ranking.scores.astype(np.float64)
    if not len(scores):
        return scores
    least = scores[-1] if ranking.least is None else ranking.least
    width = scores[0] - least
    return (scores - least) / width if width > 0 else np.ones_like(scores)


def _best(
    labels: Sequence[Labels], parts: Sequence[npt.NDArray[np.float64]], top: int
) -> tuple[Labels, Vectors]:
    """Add up the parts of each label: int64 (K,) and float64 (K,) a ranking."""
    if not labels:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
    found, first, place = np.unique(np.concatenate(labels), return_index=True, return_inverse=True)
    sums = np.bincount(place, weights=np.concatenate(parts), minlength=len(found))
    # subtle: adding in another order moves the last bits, which must not tell equals apart.
    order = np.lexsort((first, -sums.round(12)))[:top]
    return found[order], sums[order].astype(np.float32)
