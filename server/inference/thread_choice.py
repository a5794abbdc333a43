"""The choice of cores for a batch that has the CPU to itself: all or one. No clocks or threads.

The threads of the wide encoder wait for each other at every operator. With the cores to itself it takes
0.5 to 0.65 of the time, but beside a busy neighbour it took 1.6 times as long (2026-11-23, two
cores). So both are tried: the faster one serves, and one batch in PROBE_EVERY goes to the other to
find out whether that has changed.
"""

PROBE_EVERY = 16
# The weight of the past in each new batch's rate: some twenty batches count.
MEMORY = 0.95


class ThreadChoice:
    """Remembers how fast such batches were on either encoder."""

    def __init__(self) -> None:
        self._batches = 0
        # Tokens and seconds, [narrow, wide]. Both fade with each batch of their kind.
        self._tokens = [0.0, 0.0]
        self._seconds = [0.0, 0.0]

    def choose(self) -> bool:
        """Return whether the next batch runs wide."""
        self._batches += 1
        best = self._rate(wide=True) >= self._rate(wide=False)
        return best if self._batches % PROBE_EVERY else not best

    def observe(self, *, wide: bool, tokens: int, seconds: float) -> None:
        """Take one batch into account."""
        self._tokens[wide] = MEMORY * self._tokens[wide] + tokens
        self._seconds[wide] = MEMORY * self._seconds[wide] + seconds

    def _rate(self, *, wide: bool) -> float:
        """Return tokens per second; an encoder that has not been tried yet counts as infinitely fast."""
        return self._tokens[wide] / self._seconds[wide] if self._seconds[wide] else float("inf")
