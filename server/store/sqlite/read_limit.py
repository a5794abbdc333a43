"""How much one read of the store may take: until when, and how many bytes of texts.

The limit travels in the context of the thread that reads, so no call passes it on. Without one a read may
take whatever it needs. A removal by filter and a change of metadata have such a limit too.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from server.clock import now
from server.errors import RequestTooLarge, ServerError

T = TypeVar("T")
READ = (
    "this took longer than {seconds:g} s, the longest that one read may take; ask for less: a filter with"
    " fewer conditions, a smaller top_k, fewer queries"
)
REMOVAL = (
    "the removal took longer than {seconds:g} s, the longest that --query-s allows, so nothing was removed;"
    " give a filter that keeps fewer documents, or remove them by their ids"
)
CHANGE = (
    "the change took longer than {seconds:g} s, the longest that --query-s allows, so nothing was changed;"
    " change fewer documents at once: with a narrower filter, or fewer ids"
)


class ReadLimit:
    """The limit of one read, of a removal by filter, or of a change of metadata.

    seconds: from now on. max_bytes: of texts and metadata that are read and kept. late: the message where
    the time is over.
    """

    __slots__ = ("_bytes", "_late", "_max_bytes", "_seconds", "_spent_s", "_until")

    def __init__(self, seconds: float, max_bytes: int, late: str = READ) -> None:
        self._seconds = seconds
        self._until = now() + seconds
        self._spent_s = 0.0
        self._max_bytes = max_bytes
        self._bytes = 0
        self._late = late

    @property
    def passed(self) -> bool:
        return now() + self._spent_s > self._until

    def deduct(self, seconds: float) -> None:
        """Shorten the limit by what earlier turns of the same request took."""
        # subtle: `_until` stays, because `end` may set it from another thread meanwhile.
        self._spent_s = seconds

    def end(self) -> None:
        """Let the read fail soon: no client waits for it."""
        self._until = 0.0

    def spend(self, size: int) -> None:
        """Count bytes that are kept; raises RequestTooLarge."""
        self._bytes += size
        if self._bytes > self._max_bytes:
            raise too_much_to_read(self._max_bytes)

    def late(self) -> ServerError:
        return RequestTooLarge(self._late.format(seconds=self._seconds))


CURRENT: ContextVar[ReadLimit | None] = ContextVar("read_limit", default=None)


def too_much_to_read(max_bytes: int) -> RequestTooLarge:
    return RequestTooLarge(
        f"the reply would have more than {max_bytes} bytes, the most that --max-reply-bytes allows; ask"
        " for less: a smaller top_k or limit, fewer queries, no highlight"
    )


@contextmanager
def limited(limit: ReadLimit) -> Iterator[None]:
    """Apply a limit to what this thread reads in the block."""
    token = CURRENT.set(limit)
    try:
        yield
    finally:
        CURRENT.reset(token)


@contextmanager
def unlimited() -> Iterator[None]:
    """Apply no limit in the block: to work that is done once for many reads."""
    token = CURRENT.set(None)
    try:
        yield
    finally:
        CURRENT.reset(token)


def passed() -> bool:
    """Return whether the current read has to end."""
    limit = CURRENT.get()
    return limit is not None and limit.passed


def late() -> ServerError | None:
    """Return why the current read was ended, None where it was not."""
    limit = CURRENT.get()
    return limit.late() if limit is not None and limit.passed else None


def within_limit(items: Iterable[T]) -> Iterator[T]:
    """Yield items, each of which costs time; raises RequestTooLarge where the limit is passed."""
    for item in items:
        check()
        yield item


def check() -> None:
    """Raise RequestTooLarge where the current read has to end."""
    if (error := late()) is not None:
        raise error


def deduct(seconds: float) -> None:
    """Shorten the current limit by what earlier turns of the same request took; raises RequestTooLarge."""
    limit = CURRENT.get()
    if limit is not None:
        limit.deduct(seconds)
        check()


def spend(size: int) -> None:
    """Count bytes that the current read keeps; raises RequestTooLarge."""
    limit = CURRENT.get()
    if limit is not None:
        limit.spend(size)
