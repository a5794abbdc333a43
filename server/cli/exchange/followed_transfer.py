"""Follows a transfer, which its server does in the background, until it has ended.

The server may be stopped or killed meanwhile. Then the same request is sent again once it answers: it goes on where it
was, or says how far it is.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from server.cli.connection import Json, Unreachable
from server.cli.remote import PROGRESS_S, Remote
from server.clock import now

# How long a server that is started again is waited for.
PATIENCE_S = 120.0

Pause = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Seen:
    """A transfer as the server describes it. is_over: whether it has ended. why: it waits or has failed."""

    state: str
    done: int
    total: int
    written: int
    removed: int
    others: int
    compared: int
    why: str | None

    @classmethod
    def of(cls, found: Json) -> "Seen":
        return cls(
            state=str(found["state"]),
            done=int(found["done"]),
            total=int(found["total"]),
            written=int(found["written"]),
            removed=int(found["removed"]),
            others=int(found["others"]),
            compared=int(found["compared"]),
            why=None if found["why"] is None else str(found["why"]),
        )

    @property
    def is_over(self) -> bool:
        return self.state in ("done", "failed")


async def follow(remote: Remote, order: Json, show: Callable[[Seen], None], pause: Pause) -> Seen:
    """Begin a transfer, or go on, and return how it ended. Raises StartupError where the server refuses it.

    show: gets how far it is, again and again.
    """
    heard = None
    is_begun = False
    while True:
        try:
            seen = await remote.transfer(Seen.of) if is_begun else None
            if seen is None:
                # Not begun yet, or the server was started again.
                seen = await remote.begin_transfer(order, Seen.of)
        except Unreachable:
            if heard is None or now() - heard > PATIENCE_S:
                raise
        else:
            heard, is_begun = now(), True
            show(seen)
            if seen.is_over:
                return seen
        await pause(PROGRESS_S)
