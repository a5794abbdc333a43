"""The speed of a model on this machine: measured when it is opened, and followed while it serves.

What may run on the event loop and how much may wait are decided by it, so that they suit a model of
four layers and one of twenty-four.
"""

from collections.abc import Callable, Sequence

import numpy as np

from server.clock import now
from server.types import Encoder, Ids

# Tokens per second of a model that has neither been measured nor worked.
ASSUMED_RATE = 10_000.0
# How fast the rate follows what is observed, per batch. A batch that a stopped process or a busy
# neighbour delays moves it by no more than this part.
SMOOTHING = 0.05
# The text that is measured: what a short request has at most. A larger part of the time of a shorter
# one does not depend on its length.
MEASURED_TOKENS = 64
# The fastest of so many runs counts, the least disturbed; no run begins after this time.
RUNS = 5
ENOUGH_S = 0.03


class Speed:
    """Tokens per second that follow what is observed."""

    __slots__ = ("rate",)

    def __init__(self, rate: float = ASSUMED_RATE) -> None:
        self.rate = rate

    def observe(self, tokens: int, seconds: float) -> None:
        """Take one computation into account."""
        self.rate += SMOOTHING * (tokens / max(seconds, 1e-6) - self.rate)

    def seconds(self, tokens: int) -> float:
        """Return how long so many tokens take."""
        return tokens / max(self.rate, 1e-6)


def measured_rate(
    encoder: Encoder, sample: Sequence[Ids], max_tokens: int, clock: Callable[[], float] = now
) -> float:
    """Return the tokens per second of one short text on the calling thread.

    sample: token ids that the model reads; the text is made of them. The encoder should have run
    before: a first run allocates. A large model runs once, a small one RUNS times. It runs once also where
    the process was stopped before: a rate of 0 would leave the model the shortest queue.
    """
    text = np.resize(np.concatenate(sample), min(MEASURED_TOKENS, max_tokens))
    began, fastest = clock(), float("inf")
    for run in range(RUNS):
        started = clock()
        if run and started - began >= ENOUGH_S:
            break
        encoder.encode([text])
        fastest = min(fastest, clock() - started)
    return len(text) / max(fastest, 1e-6)
