"""Where the rows of new blocks come from: blocks, and segments of the tail."""

from dataclasses import dataclass

import numpy as np

from server.store.local_index.rows import Places, Rows, apart
from server.types import Labels, Vectors


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Rows to build from: labels int64 (n,), -1 where deleted; rows (n, D)."""

    labels: Labels
    rows: Rows | Vectors

    def take(self, places: Places) -> Vectors:
        """Return these rows, float32."""
        return self.rows.whole(places) if isinstance(self.rows, Rows) else self.rows[places]


def drawn(sources: list[Source], most: int, seed: int = 0) -> Vectors:
    """Draw rows from all that are alive: float32 (n, D), in their order."""
    alive = [np.flatnonzero(some.labels >= 0) for some in sources]
    sizes = [len(places) for places in alive]
    number = sum(sizes)
    chosen = np.arange(number)
    if number > most:
        chosen = np.unique(np.random.default_rng(seed).integers(number, size=most))
    return np.concatenate(
        [
            some.take(places[own])
            for some, places, own in zip(sources, alive, apart(chosen, sizes), strict=True)
        ]
    )
