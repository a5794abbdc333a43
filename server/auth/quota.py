"""Quotas: how many requests and tokens a key may use a minute.

Both are token buckets that hold one minute's worth. A request is counted before it runs. Its tokens are
known once its texts are tokenised, so they are charged afterwards, and a key in debt waits until the refill
has paid for it. Many requests at once may thus leave more debt than one.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple


class Level(NamedTuple):
    """The content of a bucket at a time in seconds; a debt is below zero."""

    left: float
    at_s: float


@dataclass(frozen=True, slots=True)
class Quota:
    """The limits a minute; None for no limit."""

    requests: int | None = None
    tokens: int | None = None


ANY = Quota()


def refilled(level: Level, per_minute: int, now_s: float) -> Level:
    """Return the level at `now_s`, refilled for the time since, up to a minute's worth."""
    gained = max(now_s - level.at_s, 0.0) * per_minute / 60
    return Level(min(level.left + gained, per_minute), now_s)


def wait_s(level: Level, wanted: float, per_minute: int) -> int:
    """Return the whole seconds until `wanted` is left, 0 if it is now."""
    # subtle: a client that waits exactly so long must not be refused for a rounding error.
    return max(math.ceil((wanted - level.left) * 60 / per_minute - 1e-6), 0)


class Refused(NamedTuple):
    """The quota that a request exceeds. what: "requests" or "tokens". limit: a minute."""

    what: str
    limit: int
    wait_s: int


class Account:
    """The use of one key, counted against its quota."""

    def __init__(self, quota: Quota, now_s: float) -> None:
        self.quota = quota
        self._requests = Level(quota.requests or 0, now_s)
        self._tokens = Level(quota.tokens or 0, now_s)

    def take(self, now_s: float) -> Refused | None:
        """Count one request, or return which quota is used up; a refused request is not counted."""
        requests, tokens = self.quota.requests, self.quota.tokens
        if tokens is not None:
            self._tokens = refilled(self._tokens, tokens, now_s)
            # No debt is enough: the tokens of this request are not known yet.
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
