"""Sends what waits in an outbox to its database: in order, again after every failure, until it is there.

A database that is away is tried again when its `circuit` allows it. A write that the database refuses would be
refused again, so sending stops with it, and an administrator decides: try again, or set it aside. A start of the
server tries again too.
"""

import asyncio
import logging
from collections import Counter, deque
from contextlib import suppress

from server.clock import now
from server.collections.external.circuit import Circuit
from server.collections.external.connection import Connection
from server.collections.external.contact import Contact
from server.collections.live_collection import uninterrupted
from server.databases.database import VectorDatabase
from server.databases.outbox import Outbox
from server.errors import (
    CallerError,
    DatabaseAway,
    DatabaseBusy,
    DatabaseRefused,
    ServerError,
    StoreDamaged,
)

# Documents and bytes of one call, and documents after a refusal: then the one at fault is alone.
MOST, MOST_BYTES, ALONE = 256, 8 << 20, 1
# Seconds for which a write waits for its delivery before it is acknowledged all the same.
PATIENCE_S = 2.0
# Between attempts after an error of this server, such as a disk that is full.
PAUSE_S = 10.0

log = logging.getLogger(__name__)


class Delivery:
    """The delivery of one collection. delivered, retries: how many writes and attempts, for the metrics."""

    def __init__(self, outbox: Outbox, connection: Connection, contact: Contact) -> None:
        self._outbox = outbox
        self._connection = connection
        self._contact = contact
        self._most = MOST
        self._done = 0
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._woken = asyncio.Event()
        self._stopped = False
        # Of this collection alone: the database may be busy with it, and answer others.
        self._circuit = Circuit()
        # Held while the head of the outbox is sent: nothing else may change it then.
        self._sending = asyncio.Lock()
        self.counts: Counter[str] = Counter()
        self._task = asyncio.ensure_future(self._run())

    async def reached(self, number: int) -> bool:
        """Return whether the database has a write now, or soon; `number` as `append` returned it."""
        self._woken.set()
        if number <= self._done:
            return True
        is_away = self._connection.is_away or self._circuit.is_away
        if is_away or self._outbox.refusal is not None:
            return False
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append((number, waiter))
        with suppress(TimeoutError):
            await asyncio.wait_for(waiter, PATIENCE_S)
        return number <= self._done

    def retry(self) -> None:
        """Try a refused write again."""
        self._most, self._stopped = MOST, False
        self._woken.set()

    async def set_aside(self) -> str | None:
        """Set the refused write aside and send what waits behind it; returns its document's id, None for none.

        A call to the database that runs is waited for: it may be taking this write at last.
        """
        async with self._sending:
            id = await uninterrupted(self._outbox.set_aside)
            self.retry()
        return id

    async def close(self) -> None:
        """Stop; a call to the database that runs is waited for."""
        self._task.cancel()
        await asyncio.wait([self._task])
        self._let_go()

    async def _run(self) -> None:
        while True:
            # Cleared first: what is appended meanwhile wakes it again.
            self._woken.clear()
            if self._stopped or not self._outbox.waiting.writes:
                await self._woken.wait()
                continue
            try:
                await self._send_or_stop()
            except (DatabaseAway, DatabaseBusy) as error:
                self._circuit.failed(now(), error.message)
                self.counts["retries"] += 1
                self._let_go()
                # Not woken by further writes: they would find the same.
                circuit = self._connection.circuit if self._connection.is_away else self._circuit
                await asyncio.sleep(max(circuit.wait_s(now()), 0.1))
            except Exception as error:
                log.error("what waits for %s was not sent", self._name, exc_info=error)
                self.counts["retries"] += 1
                self._let_go()
                await asyncio.sleep(PAUSE_S)

    @property
    def _name(self) -> str:
        return f"collection {self._outbox.record.info.name!r}"

    async def _send_or_stop(self) -> None:
        """Send the next writes; stop where one of them can never be sent. Raises DatabaseAway or DatabaseBusy."""
        async with self._sending:
            try:
                await self._send()
            except (DatabaseRefused, CallerError, StoreDamaged) as error:
                await self._refused(error)

    async def _send(self) -> None:
        """Send the next writes. Raises what the database raises."""
        outbox, most = self._outbox, self._most

        def send(database: VectorDatabase) -> tuple[int, int]:
            batch = outbox.head(most, MOST_BYTES)
            info = self._contact.info(database)
            if batch.entries:
                database.put(info, batch.entries)
            if batch.removed:
                database.delete(info, batch.removed)
            outbox.remove(batch)
            return batch.last, batch.size

        self._done, number = await self._connection.write(send)
        self._circuit.answered()
        self.counts["delivered"] += number
        self._most = min(2 * self._most, MOST)
        while self._waiters and self._waiters[0][0] <= self._done:
            _, waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    async def _refused(self, error: ServerError) -> None:
        if self._most > ALONE:
            # One of several is at fault; those before it are sent.
            self._most = ALONE
            return
        # First: a stop that no disk has would show nobody what to do.
        await uninterrupted(lambda: self._outbox.note_refusal(error.message))
        self._stopped = True
        self._let_go()
        log.error(
            "a write to %s is refused, and what follows waits behind it: %s",
            self._name,
            error.message,
        )

    def _let_go(self) -> None:
        """Let the writes that wait for their delivery be acknowledged without it."""
        while self._waiters:
            _, waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
