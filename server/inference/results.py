"""How the rows that a graph gives become one result for each text, by the model's task."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from server.types import Ids, Task, Vectors

# The pooling of a graph that gives a row for each token.
UNPOOLED = "none"


class SparseWeights(NamedTuple):
    """The weights of a text's words, all above 0.

    ids: int64 (K,), token ids in ascending order, each once. weights: float32 (K,). K may be 0.
    """

    ids: Ids
    weights: Vectors


@dataclass(frozen=True, slots=True)
class ResultForm:
    """What the results of a model are.

    by_token: the graph gives a row for each token instead of each text. skipped_tokens: so many tokens at the
    beginning of a text have no vector of their own.
    """

    task: Task = "dense"
    by_token: bool = False
    skipped_tokens: int = 0

    def results(self, rows: Vectors, texts: Sequence[Ids]) -> Collection[Any]:
        """Return one result for each text, in order.

        rows: float32 (R, D), one for each text, or for each token of one text after the other.
        A result is a row (dense, score), float32 (T, D) (token_vectors) or `SparseWeights` (sparse).
        """
        if self.task == "sparse":
            if not self.by_token:
                return [_above_zero(np.arange(rows.shape[1]), row) for row in rows]
            parts = self._by_text(rows[:, 0], texts)
            return [_of_tokens(ids, part) for ids, part in zip(texts, parts, strict=True)]
        if not self.by_token:
            return rows
        # subtle: copies. A part would keep the rows of its whole batch in memory.
        return [part[self.skipped_tokens :].copy() for part in self._by_text(rows, texts)]

    def _by_text(self, rows: Vectors, texts: Sequence[Ids]) -> list[Vectors]:
        ends = [*accumulate(map(len, texts))]
        if len(rows) != ends[-1]:
            raise ValueError(f"{len(rows)} rows for {ends[-1]} tokens")
        return np.split(rows, ends[:-1])


# A row is the result.
DENSE = ResultForm()


def _of_tokens(ids: Ids, weights: Vectors) -> SparseWeights:
    """Return the largest weight of each token id; ids: int64 (T,), weights: float32 (T,)."""
    words, places = np.unique(ids, return_inverse=True)
    largest = np.zeros(len(words), np.float32)
    with np.errstate(invalid="ignore"):
        np.maximum.at(largest, places, weights)
    return _above_zero(words, largest)


def _above_zero(ids: Ids, weights: Vectors) -> SparseWeights:
    # NaN stays: it is no weight, and must be noticed.
    kept = ~(weights <= 0)
    return SparseWeights(ids[kept].astype(np.int64), weights[kept])
