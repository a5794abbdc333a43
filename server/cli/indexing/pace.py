"""How fast documents are stored, and how long the rest will take."""

from collections import deque
from typing import NamedTuple

# Batches by whose pace the rest is judged.
RECENT = 16


class _Step(NamedTuple):
    seconds: float
    n_bytes: int
    added: int
    unchanged: int


class Pace:
    """Judges the rest of a source by the batches just before.

    Documents that are stored already go by hundreds of times faster than new ones, which are embedded. So
    batches without a new one say nothing of the rest: a run that continues an earlier one begins with
    them. The first new one after them begins the judgement again.
    """

    def __init__(self, n_bytes: int, started: float) -> None:
        self._n_bytes = n_bytes
        self._n_read = 0
        self._last = started
        self._steps: deque[_Step] = deque(maxlen=RECENT)

    def add(self, now: float, n_read: int, added: int, unchanged: int) -> None:
        """Note a batch that is done. n_read: bytes of the source up to its end."""
        if added and not any(step.added for step in self._steps):
            self._steps.clear()
        step = _Step(now - self._last, max(n_read - self._n_read, 0), added, unchanged)
        self._steps.append(step)
        self._last, self._n_read = now, max(n_read, self._n_read)

    @property
    def per_second(self) -> float:
        """New documents a second, or unchanged ones where none is new."""
        seconds = max(sum(step.seconds for step in self._steps), 1e-9)
        added = sum(step.added for step in self._steps)
        return (added or sum(step.unchanged for step in self._steps)) / seconds

    @property
    def left_s(self) -> float | None:
        """Seconds until the end, None where nothing shows them."""
        n_bytes = sum(step.n_bytes for step in self._steps)
        if not self._n_bytes or not n_bytes or not any(step.added for step in self._steps):
            return None
        seconds = sum(step.seconds for step in self._steps)
        return max(self._n_bytes - self._n_read, 0) * seconds / n_bytes
