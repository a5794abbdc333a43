"""Waiting and service in a queue of batches: how long texts take at a rate, without clocks or randomness.

Theory of operation
-------------------
Texts arrive at random (Poisson). With N of them in the system and c lanes, the server gives each lane its
share of all work, so a lane computes n = N / c of them together: at least one, at most a full batch of B.
So N texts leave at the rate c n / s(n), where s(n) is the time of such a batch. That is a birth-and-death
chain whose death rate depends on the state, and its balance is a product. With B = 1 it is M/M/c: the
probability that a text waits is Erlang's C.

A text that finds all lanes busy waits until the next one is free, and if more wait than fill a batch for
every batch before its own. Then it is computed together with n - 1 others. Times are less or more random
than exponential ones, so waits are multiplied by (1 + c_s^2) / 2, as Allen and Cunneen do; c_s^2 is the
squared coefficient of variation of a batch's time.

A distribution is an array of values, one for each of SAMPLES quantiles in an order that belongs to its
salt. So two of them are added by adding arrays, and more load never gives a smaller value.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]
SAMPLES = 20_000
# States after the one at which batches are full, until they have this part of their probability.
NEGLIGIBLE = 1e-9
MOST_STATES = 1_000_000


class Overloaded(Exception):
    """Raised where texts arrive faster than full batches take them.

    rate: that arrives a second. most_per_s: that is possible.
    """

    def __init__(self, rate: float, most_per_s: float) -> None:
        super().__init__(f"{rate:.1f} arrive a second, at most {most_per_s:.1f} can be computed")
        self.rate, self.most_per_s = rate, most_per_s


@dataclass(frozen=True, slots=True)
class Servers:
    """What serves a queue. lanes: c. full: texts in a full batch, B, at least 1.

    lone_s: mean seconds of a text that has all cores to itself. one_s: of a text that a lane computes alone.
    full_s: of a full batch. one_variation, full_variation: c_s^2 of the last two. hand_over_s: that a text
    takes longer outside the queue where it meets others; no server is busy with it.
    """

    lanes: int
    one_s: float
    lone_s: float
    full: float = 1.0
    full_s: float = 0.0
    one_variation: float = 1.0
    full_variation: float = 1.0
    hand_over_s: float = 0.0

    @property
    def text_s(self) -> float:
        """Seconds that each further text adds to a batch."""
        return (self.full_s - self.one_s) / (self.full - 1) if self.full > 1 else 0.0

    @property
    def most_per_s(self) -> float:
        """Texts a second when work always waits."""
        return self.lanes * self.full / self.batch_s(self.full)

    def batch_s(self, texts: float) -> float:
        """Return the seconds of a batch of so many texts on average."""
        return self.one_s + (texts - 1) * self.text_s


@dataclass(frozen=True, slots=True)
class Balance:
    """A queue in balance; states: probability that N texts are in the system, float64 (N + 1,)."""

    servers: Servers
    rate: float
    states: Seconds

    @property
    def delayed(self) -> float:
        """The probability that a text finds all lanes busy."""
        return float(self.states[self.servers.lanes :].sum())

    @property
    def mean_s(self) -> float:
        """The mean time of a text, by Little's law; exact for exponential times."""
        return float(np.arange(len(self.states)) @ self.states) / self.rate


def balance(rate: float, servers: Servers) -> Balance:
    """Return the queue in balance at so many texts a second; raises Overloaded."""
    most = servers.most_per_s
    if rate >= most * (1 - 1e-4):
        raise Overloaded(rate, most)
    beyond = math.log(NEGLIGIBLE) / math.log(rate / most) if rate else 0.0
    count = math.ceil(servers.lanes * servers.full + beyond) + 2
    n = np.arange(1, min(count, MOST_STATES), dtype=np.float64)
    texts = np.clip(n / servers.lanes, 1.0, servers.full)
    leave = np.minimum(n, servers.lanes) * texts / (servers.one_s + (texts - 1) * servers.text_s)
    leave[0] = 1 / servers.lone_s
    logs = np.concatenate([[0.0], np.cumsum(np.log(max(rate, 1e-12) / leave))])
    weights = np.exp(logs - logs.max())
    return Balance(servers, rate, weights / weights.sum())


@cache
def spread(salt: int) -> Seconds:
    """Return the quantiles (i + 0.5) / SAMPLES in an order that belongs to the salt: float64 (SAMPLES,)."""
    even = np.random.default_rng(salt).permutation((np.arange(SAMPLES) + 0.5) / SAMPLES)
    even.flags.writeable = False
    return even


def times(queue: Balance, alone_s: Seconds, salt: int = 0) -> Seconds:
    """Return the times of texts from arrival to result: float64 (SAMPLES,).

    alone_s: of texts that a lane computes alone, float64 (M,), whose mean is the servers' `one_s`.
    """
    servers = queue.servers
    found = np.searchsorted(np.cumsum(queue.states), spread(salt)).astype(np.float64)
    at = (np.arange(len(alone_s)) + 0.5) / len(alone_s)
    own = np.interp(spread(salt + 1), at, np.sort(alone_s))
    # With itself.
    texts = np.clip((found + 1) / servers.lanes, 1.0, servers.full)
    batch = servers.one_s + (texts - 1) * servers.text_s
    until_next = -np.log1p(-spread(salt + 2)) * _allen_cunneen(servers.one_variation)
    before = np.maximum(found - servers.lanes * servers.full, 0.0) / servers.full
    wait = batch / servers.lanes * (until_next + before * _allen_cunneen(servers.full_variation))
    wait[found < servers.lanes] = 0.0
    own[found == 0] *= servers.lone_s / servers.one_s
    hand_over = np.where(found > 0, servers.hand_over_s, 0.0)
    return np.asarray(wait + own + (texts - 1) * servers.text_s + hand_over)


def _allen_cunneen(variation: float) -> float:
    return (1 + variation) / 2


def percentile_ms(seconds: Seconds, q: float) -> float:
    return float(np.percentile(seconds, q)) * 1e3
