"""How long a batch of texts computes: three numbers of a model on a machine, fitted to measured shapes.

A batch costs something once, something a token, and something a pair of tokens of one text, which is
attention. The fit weighs relative errors alike, so that a short text counts as much as a long one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from benchmarks.capacity.queueing import Servers
from benchmarks.workloads import LENGTHS, QUANTILES
from server.config import Config
from server.inference.batching import BatchLimits, Job, Queue
from server.types import Packing

Seconds = NDArray[np.float64]
Tokens = NDArray[np.int64]
# A text has so many tokens more than characters.
MARKERS = 2
# Texts that stand for a workload, and that wait where a queue is never empty.
TEXTS, WAITING = 2000, 64
# The server's defaults, in a queue that refuses nothing.
LIMITS = BatchLimits(Config().batch_tokens, Config().interactive_tokens, 1 << 40, 1 << 40)
# The batches that the shipped artifact takes, and the tokens that it reads of a text.
PACKING, MAX_TOKENS = Packing(groups=8, longest=127), 512


@dataclass(frozen=True, slots=True)
class ServiceTime:
    """Seconds of one thread: once a batch, a token, and a pair of tokens of one text."""

    batch_s: float
    token_s: float
    pair_s: float

    def of(self, lengths: Sequence[int]) -> float:
        """Return the seconds of a batch; lengths: tokens of each text."""
        tokens = np.asarray(lengths, dtype=np.float64)
        return float(self.batch_s + self.token_s * tokens.sum() + self.pair_s * (tokens**2).sum())

    def of_each(self, lengths: Tokens) -> Seconds:
        """Return the seconds of each text alone: int64 (N,) to float64 (N,)."""
        tokens = lengths.astype(np.float64)
        return np.asarray(self.batch_s + self.token_s * tokens + self.pair_s * tokens**2)

    def slowed(self, factor: float) -> "ServiceTime":
        """Return the times where everything takes `factor` times as long."""
        return ServiceTime(self.batch_s * factor, self.token_s * factor, self.pair_s * factor)


def fitted(measured: Mapping[tuple[int, ...], float]) -> ServiceTime:
    """Return the times that fit best; measured: seconds by the lengths of a batch, three shapes at least.

    None of the numbers is below 0: where least squares make one negative, it is 0 and the others are
    fitted without it.
    """
    if len(measured) < 3:
        raise ValueError(f"{len(measured)} shapes were measured, 3 are needed")
    rows = np.array(
        [[1.0, sum(lengths), sum(n * n for n in lengths)] for lengths in measured], dtype=np.float64
    )
    weights = 1 / np.array(list(measured.values()))
    free = [0, 1, 2]
    while True:
        part = (rows * weights[:, None])[:, free]
        found = np.linalg.lstsq(part, np.ones(len(rows)), rcond=None)[0]
        if (found >= 0).all():
            break
        free.remove(free[int(np.argmin(found))])
    numbers = np.zeros(3)
    numbers[free] = found
    return ServiceTime(*map(float, numbers))


@cache
def lengths_of(workload: str, mean: float | None = None, count: int = TEXTS) -> Tokens:
    """Return token counts int64 (count,) spread as a workload's are, in a fixed random order.

    workload: queries, laws or mixed. mean: stretches all so that this is their average.
    """
    at = (np.arange(count) + 0.5) / count
    tokens = np.interp(at, QUANTILES, LENGTHS[workload]) + MARKERS
    if mean is not None:
        tokens = tokens * (mean / tokens.mean())
    shuffled = np.random.default_rng(1).permutation(tokens)
    return np.asarray(np.rint(shuffled).clip(1, MAX_TOKENS), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Saturated:
    """A lane that never waits for work.

    texts: in a batch on average. batch_s: mean seconds of a batch. variation: the squared coefficient of
    variation of these seconds.
    """

    texts: float
    batch_s: float
    variation: float


def saturated(service: ServiceTime, lengths: Tokens) -> Saturated:
    """Return the batches of a lane that always finds texts of these lengths: int64 (N,)."""
    batches = _full_batches(tuple(lengths.tolist()))
    seconds = np.array([service.batch_s, service.token_s, service.pair_s]) @ batches[:3]
    mean = float(seconds.mean())
    return Saturated(float(batches[3].mean()), mean, float(seconds.var()) / mean**2)


def servers(
    service: ServiceTime,
    lengths: Tokens,
    lanes: int,
    lone: float = 1.0,
    hand_over_s: float = 0.0,
) -> Servers:
    """Return so many lanes that compute texts of these lengths: int64 (N,).

    lone: how many times as fast a text is that has all cores to itself. hand_over_s: as in `Servers`.
    """
    alone_s, full = service.of_each(lengths), saturated(service, lengths)
    one_s = float(alone_s.mean())
    return Servers(
        lanes=lanes,
        one_s=one_s,
        lone_s=one_s / lone,
        full=full.texts,
        full_s=full.batch_s,
        one_variation=float(alone_s.var()) / one_s**2,
        full_variation=full.variation,
        hand_over_s=hand_over_s,
    )


@cache
def _full_batches(lengths: tuple[int, ...]) -> Seconds:
    """Return what the server's own queue makes of so many texts that it never empties.

    float64 (4, N): for each batch 1, its tokens, its pairs of tokens of one text, its texts.
    """
    queue = Queue(LIMITS, PACKING)
    coming = iter(lengths)
    batches: list[tuple[int, int, int, int]] = []
    waiting = 0
    # The last batches, when fewer wait, do not count.
    while True:
        while waiting < WAITING and (length := next(coming, None)) is not None:
            queue.add(Job([np.zeros(length, dtype=np.int64)], None, 0.0), 0.0, 1.0)
            waiting += 1
        if waiting < WAITING:
            return np.array(batches, dtype=np.float64).T
        batch = queue.take(0.0)
        queue.ended(batch, 0.0)
        waiting -= len(batch)
        tokens = [len(item.ids) for item in batch]
        batches.append((1, sum(tokens), sum(n * n for n in tokens), len(tokens)))
