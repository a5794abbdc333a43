"""How much a key may have a minute: requests, and tokens.

Token buckets that hold one minute's worth. A request is taken before it runs. What it costs in tokens is
known once its texts are tokenised, so tokens are charged afterwards, and a key that owes some waits until
the minute's refill has paid for them. Many requests at once may thus owe more than one.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple


class Level(NamedTuple):
    """What is left at a time in seconds; below zero it is owed."""

    left: float
    at_s: float


@dataclass(frozen=True, slots=True)
class Quota:
    """So much a minute; None: any amount."""

    requests: int | None = None
    tokens: int | None = None


ANY = Quota()


def refilled(level: Level, per_minute: int, now_s: float) -> Level:
    """The level at `now_s`: more by the time that has gone by, and at most a minute's worth."""
    gained = max(now_s - level.at_s, 0.0) * per_minute / 60
    return Level(min(level.left + gained, per_minute), now_s)


def wait_s(level: Level, wanted: float, per_minute: int) -> int:
    """Whole seconds until `wanted` is there, 0 if it is."""
    # subtle: a client that waits just so long must not find a rounding error in its way.
    return max(math.ceil((wanted - level.left) * 60 / per_minute - 1e-6), 0)


class Refused(NamedTuple):
    """what: "requests" or "tokens". limit: a minute."""

    what: str
    limit: int
    wait_s: int


class Account:
    """What one key has had."""

    def __init__(self, quota: Quota, now_s: float) -> None:
        self.quota = quota
        self._requests = Level(quota.requests or 0, now_s)
        self._tokens = Level(quota.tokens or 0, now_s)

    def take(self, now_s: float) -> Refused | None:
        """Count one request, or tell what is used up; a request that is refused counts for nothing."""
        requests, tokens = self.quota.requests, self.quota.tokens
        if tokens is not None:
            self._tokens = refilled(self._tokens, tokens, now_s)
            # Owing nothing is enough: how many tokens a request has nobody knows yet.
            if self._tokens.left < 0:
                return Refused("tokens", tokens, max(wait_s(self._tokens, 0, tokens), 1))
        if requests is not None:
            self._requests = refilled(self._requests, requests, now_s)
            if wait := wait_s(self._requests, 1, requests):
                return Refused("requests", requests, wait)
            self._requests = Level(self._requests.left - 1, now_s)
        return None

    def charge(self, tokens: int, now_s: float) -> None:
        if self.quota.tokens is not None:
            level = refilled(self._tokens, self.quota.tokens, now_s)
            self._tokens = Level(level.left - tokens, now_s)
