"""Answers to whole requests: the results of their texts or pairs, with what was counted and measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from server.errors import EmptyInput, InferenceFailed
from server.inference.comparison import sigmoid
from server.inference.manifest import Activation
from server.types import Vectors, unit


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of one request: tokenising, then until its first batch, then until its last result."""

    tokenize_s: float
    queue_s: float
    infer_s: float


@dataclass(frozen=True, slots=True)
class Embedded:
    """The answer to one request.

    vectors: float32 (B, D), rows in the order of the texts. tokens: those of all texts, special
    tokens included, after truncation. truncated: indices of texts that were cut.
    """

    vectors: Vectors
    tokens: int
    truncated: Sequence[int]
    times: Times


@dataclass(frozen=True, slots=True)
class Computed:
    """The answer to one request of a model of any task.

    results: one for each text, in the order of the texts; the model's task says what they are. tokens,
    truncated: as in `Embedded`.
    """

    results: Sequence[Any]
    tokens: int
    truncated: Sequence[int]
    times: Times


@dataclass(frozen=True, slots=True)
class Scored:
    """The answer to one request for the scores of pairs.

    logits: float32 (B,), in the order of the pairs, as the network gives them: any number, higher is better.
    activation: the model's own. tokens, truncated: as in `Embedded`, of pairs.
    """

    logits: Vectors
    activation: Activation
    tokens: int
    truncated: Sequence[int]
    times: Times

    @property
    def scores(self) -> Vectors:
        """The scores as the model's own settings make them of the logits, float32 (B,)."""
        return sigmoid(self.logits) if self.activation == "sigmoid" else self.logits

    @property
    def relevance(self) -> Vectors:
        """Numbers from 0 to 1, float32 (B,), which mean the same whatever the model's activation."""
        return sigmoid(self.logits)


def cut(vectors: Vectors, dimensions: int | None) -> Vectors:
    """Return the first `dimensions` columns with unit norm again; float32 (B, D) -> (B, dimensions)."""
    if dimensions is None or dimensions == vectors.shape[1]:
        return vectors
    return unit(vectors[:, :dimensions])


def ranking(logits: Vectors, top_n: int | None = None) -> Sequence[int]:
    """Return the places of the best, best first; of equal ones the earlier first. top_n: at most so many.

    logits: float32 (B,). subtle: far from 0, different logits have the same relevance in float32.
    """
    order: list[int] = np.argsort(-logits, kind="stable").tolist()
    return order[:top_n]


def check_vectors(vectors: Vectors) -> None:
    """Refuse a text whose vector is zero, which is near to nothing and would look like an answer.

    A row of a table may be zero. Raises EmptyInput, or InferenceFailed for numbers that are not finite.
    """
    squares = np.einsum("ij,ij->i", vectors, vectors)
    if not (squares > 0).all() or not np.isfinite(squares).all():
        check_finite(vectors)
        for index in np.flatnonzero(~vectors.any(axis=1)).tolist():
            raise EmptyInput(
                f"the model gives text {index} a vector of zeros, which means nothing; send a text with other"
                " words",
                index=index,
            )


def check_finite(results: Vectors) -> None:
    """Raise InferenceFailed for a result that holds NaN or infinity, which JSON would show as null."""
    if not np.isfinite(results).all():
        raise InferenceFailed(
            "the computation failed: the model gives NaN or infinity for these texts; export it again"
        )
