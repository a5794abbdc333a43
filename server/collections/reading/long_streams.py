"""Bounds on streams that last as long as their clients: how many run at once, and how slow a client may be."""

from collections.abc import Iterator
from contextlib import contextmanager

from server.clock import now
from server.errors import Overloaded, RequestTooLarge

# Seconds for which a client is waited for in all, besides those that its bytes give it.
WAIT_S = 60.0


class Running:
    """How many streams of one kind run in this process; one more than `most` is refused.

    refusal: the message, which may have {number} and {most}. retry_s: after which another may be possible.
    """

    def __init__(self, most: int, retry_s: int, refusal: str) -> None:
        self.most = most
        self.number = 0
        self._retry_s = retry_s
        self._refusal = refusal

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count one for the block; raises Overloaded."""
        if self.number >= self.most:
            message = self._refusal.format(number=self.number, most=self.most)
            raise Overloaded(f"{message}; try again later", retry_after_s=self._retry_s)
        self.number += 1
        try:
            yield
        finally:
            self.number -= 1


class Pace:
    """How fast a client takes a stream.

    what: the stream. bytes_per_s: how fast it must be taken after the first WAIT_S. instead: what a client
    that cannot should do.
    """

    def __init__(self, what: str, bytes_per_s: int, instead: str) -> None:
        self._what = what
        self._bytes_per_s = bytes_per_s
        self._instead = instead
        self._waited_s, self._sent = 0.0, 0

    @contextmanager
    def waiting(self, n_bytes: int) -> Iterator[None]:
        """Measure the block, in which the client takes so many bytes; raises RequestTooLarge after it."""
        began = now()
        yield
        self._waited_s += now() - began
        self._sent += n_bytes
        if self._waited_s > WAIT_S + self._sent / self._bytes_per_s:
            raise RequestTooLarge(
                f"the client took {self._sent} bytes of {self._what} in {self._waited_s:.0f} s, and at least"
                f" {self._bytes_per_s} bytes a second are needed after the first {WAIT_S:g} s; {self._instead}"
            )
