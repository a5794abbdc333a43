"""The types shared by all modules, the letters in array shapes, and the unit norm.

B texts of a batch, T tokens of a text, D width of a vector, N documents, K neighbours.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]  # (T,)
Vectors = npt.NDArray[np.float32]  # (B, D)
Labels = npt.NDArray[np.int64]  # (B,), or (Q, K) of what Q queries found
Pair = tuple[str, str]  # such as a query and a text that may answer it
# Which of the model's instructions is put before a text; "none" puts nothing there.
InputType = Literal["document", "query", "none"]
# The kinds of results: of a text, or (score) of a pair of texts.
Task = Literal["dense", "token_vectors", "sparse", "score"]


@dataclass(frozen=True, slots=True)
class Tokens:
    """Texts after tokenisation, in the order of the request.

    ids: one int64 (T,) array a text, special tokens included, at most the model's maximum long.
    truncated: indices of the texts that were longer and lost some tokens.
    """

    ids: Sequence[Ids]
    truncated: Sequence[int]

    @property
    def count(self) -> int:
        """The tokens of all texts together, after truncation."""
        return sum(map(len, self.ids))


@dataclass(frozen=True, slots=True)
class Packing:
    """The lengths that an encoder takes in one batch.

    groups: number of different lengths; 1 means that all texts have the same. longest: tokens of the
    longest text in a batch of several lengths; a longer text shares a batch only with texts of its own
    length.
    """

    groups: int
    longest: int

    def allows(self, lengths: Collection[int]) -> bool:
        """Return whether texts of these lengths may be one batch."""
        different = set(lengths)
        return len(different) <= 1 or (
            len(different) <= self.groups and max(different) <= self.longest
        )


class Encoder(Protocol):
    """A model as a function from token ids to results; lanes run it."""

    @property
    def packing(self) -> Packing: ...

    def encode(self, texts: Sequence[Ids]) -> Collection[Any]:
        """Return one result a text, in order. What a result is depends on the model's task.

        texts: int64 (T,) arrays, equal lengths side by side.
        """
        ...


class VectorEncoder(Encoder, Protocol):
    """An encoder whose results are rows of numbers."""

    def encode(self, texts: Sequence[Ids]) -> Vectors:
        """Return float32 (B, D), a row a text."""
        ...


def unit(vectors: Vectors) -> Vectors:
    """Return the rows scaled to unit L2 norm, float32 and contiguous; a zero row stays zero.

    Finite rows of any size have a direction: the squares are added in float64, where they neither
    overflow nor vanish.
    """
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)[:, None]
    norms = np.sqrt(squares)
    return np.ascontiguousarray(vectors / np.where(norms > 0, norms, 1), dtype=np.float32)
