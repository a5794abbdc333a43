"""The last queries of a collection, to measure its index with.

Real queries lie where vectors made of documents do not: only they show how far a search has to go. They stay
in memory and are gone with the process.
"""

from collections import deque

import numpy as np

from server.types import Vectors

# 128 KB for vectors 512 wide.
MOST = 128


class PastQueries:
    """The last vectors that were searched for; any thread may add one."""

    def __init__(self) -> None:
        # Half precision is more than enough for a query.
        self._last: deque[np.ndarray] = deque(maxlen=MOST)

    def add(self, vector: Vectors) -> None:
        """Remember a query, float32 (D,)."""
        self._last.append(vector.astype(np.float16))

    @property
    def vectors(self) -> Vectors:
        """The queries, float32 (Q, D); no rows where there were none."""
        # A copy of the deque is taken in one step, while searches go on.
        held = list(self._last)
        return np.stack(held).astype(np.float32) if held else np.empty((0, 0), dtype=np.float32)
