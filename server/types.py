"""The words shared by all modules, and the letters in array shapes.

B texts of a batch, T tokens of a text, D width of a vector, N documents, K neighbours.
"""

from collections.abc import Sequence
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


class Encoder(Protocol):
    """What a lane runs; the real one is a session, a test may count or fail.

    groups: how many different lengths one batch may have.
    """

    @property
    def groups(self) -> int: ...

    def encode(self, texts: Sequence[Ids]) -> Vectors:
        """Int64 (T,) arrays, equal lengths side by side -> float32 (B, D), in that order."""
        ...
