"""The words shared by all modules, and the letters in array shapes.

B texts of a batch, T tokens of a text, D width of a vector, N documents, K neighbours.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]  # (T,)
Vectors = npt.NDArray[np.float32]  # (B, D)
InputType = Literal["document", "query"]


@dataclass(frozen=True, slots=True)
class Tokens:
    """Texts after tokenisation, in the order of the request.

    ids: one int64 (T,) array a text, special tokens included, at most the model's maximum long.
    truncated: indices of the texts that were longer and lost their end.
    """

    ids: Sequence[Ids]
    truncated: Sequence[int]

    @property
    def count(self) -> int:
        """Tokens of all texts together, as they will be computed."""
        return sum(map(len, self.ids))


@dataclass(frozen=True, slots=True)
class Packing:
    """Which batches of several lengths an encoder takes.

    groups: how many different lengths; 1 means none. longest: tokens of the longest text in such a batch;
    a longer one is computed only with texts of its own length.
    """

    groups: int
    longest: int

    def allows(self, lengths: Collection[int]) -> bool:
        """Whether texts of these lengths may be one batch."""
        different = set(lengths)
        return len(different) <= 1 or (
            len(different) <= self.groups and max(different) <= self.longest
        )


class Encoder(Protocol):
    """What a lane runs; the real one is a session, a test may count or fail."""

    @property
    def packing(self) -> Packing: ...

    def encode(self, texts: Sequence[Ids]) -> Vectors:
        """Int64 (T,) arrays, equal lengths side by side -> float32 (B, D), in that order."""
        ...
