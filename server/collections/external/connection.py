"""A vector database on the event loop: its calls block, so they run on a few threads of their own.

A database that hangs keeps these threads, and neither the loop nor the threads that read local collections.
What waits for a thread is bounded, and so is how long a caller waits. Writes from outboxes have threads
apart: a crowd of searches must not hold them up.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from server.clock import now
from server.collections.external.circuit import Circuit
from server.collections.live_collection import uninterrupted
from server.databases.database import VectorDatabase
from server.errors import DatabaseAway, DatabaseBusy, DatabaseRefused, Overloaded, RetryableError

T = TypeVar("T")
Call = Callable[[VectorDatabase], T]
# Threads that read, and calls that run or wait for one; threads that deliver.
READERS, MOST_READS, WRITERS = 8, 64, 4


class Connection:
    """One database of the settings. name: as requests say it. timeout_s: the longest that a read is waited for."""

    def __init__(self, name: str, database: VectorDatabase, timeout_s: float) -> None:
        self.name = name
        self.database = database
        self.abilities = database.abilities
        self.circuit = Circuit()
        self._timeout_s = timeout_s
        self._readers = ThreadPoolExecutor(READERS, f"read-{name}")
        self._writers = ThreadPoolExecutor(WRITERS, f"deliver-{name}")
        self._reads = 0

    @property
    def is_away(self) -> bool:
        """Whether the last call found no answer."""
        return self.circuit.is_away

    def check(self) -> None:
        """Raise DatabaseAway or Overloaded where a read would be refused now."""
        if wait_s := self.circuit.wait_s(now()):
            raise self._away(self.circuit.reason, wait_s)
        if self._reads >= MOST_READS:
            raise Overloaded(
                f"{self._reads} requests wait for vector database {self.name!r}, at most {MOST_READS} may;"
                " try again later",
                retry_after_s=1,
            )

    async def read(self, call: Call[T]) -> T:
        """Call something that asks the database; raises DatabaseAway, -Busy, -Refused or Overloaded."""
        self.check()
        self._reads += 1
        waiting, running = self._begin(self._readers, call)
        running.add_done_callback(self._ended)
        try:
            done, _ = await asyncio.wait([running], timeout=self._timeout_s)
        finally:
            # One that has not begun must not begin when nobody waits for it any more: it may remove a collection.
            waiting.cancel()
        if not done:
            # Its thread comes back when the client's own time-out ends the call, and counts until then.
            reason = f"it did not answer in {self._timeout_s:g} s"
            self.circuit.failed(now(), reason)
            raise self._away(reason)
        return running.result()

    async def write(self, call: Call[T]) -> T:
        """Call something that delivers to the database; on return it has ended, also where it is cancelled."""
        _, running = self._begin(self._writers, call)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            raise

    def _begin(
        self, pool: ThreadPoolExecutor, call: Call[T]
    ) -> tuple["Future[T]", "asyncio.Future[T]"]:
        """Return a call that waits for a thread or runs on it, and the same as it ends on the loop."""
        waiting = pool.submit(partial(call, self.database))
        return waiting, asyncio.ensure_future(self._judged(asyncio.wrap_future(waiting)))

    async def _judged(self, running: "asyncio.Future[T]") -> T:
        """Return what a call returns, and note whether the database answered."""
        try:
            found = await running
        except DatabaseBusy as error:
            # One call that takes too long, or a lock, must not keep all others from being asked.
            self.circuit.answered()
            raise DatabaseBusy(
                f"vector database {self.name!r} cannot do this now ({error.message}); try again",
                retry_after_s=error.retry_after_s,
            ) from error
        except DatabaseAway as error:
            self.circuit.failed(now(), error.message)
            raise self._away(error.message) from error
        except DatabaseRefused as error:
            self.circuit.answered()
            raise DatabaseRefused(
                f"vector database {self.name!r} refuses this: {error.message}"
            ) from error
        self.circuit.answered()
        return found

    def _ended(self, running: "asyncio.Future[T]") -> None:
        self._reads -= 1
        # Marked as retrieved, also where the caller has left.
        if not running.cancelled():
            running.exception()

    def _away(self, reason: str, wait_s: float = 1.0) -> RetryableError:
        return DatabaseAway(
            f"vector database {self.name!r} does not answer ({reason}); writes are kept here until it does;"
            " try again, or ask the server's administrator to look at it",
            retry_after_s=max(1, round(wait_s)),
        )

    async def close(self) -> None:
        """Close the connection; a call that hangs is not waited for."""
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._writers.shutdown(wait=False, cancel_futures=True)
        await uninterrupted(self.database.close)
