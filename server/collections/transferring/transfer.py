"""Copies a collection into another store, in the background, while it is read and written as before.

How this works. Documents are copied in pages, in the order of their writes, with their chunks and vectors as they
are stored. A document that is written again gets a greater number, so what was written meanwhile follows in the
next pages. What was deleted shows in the counts: the source must have as many documents as were copied. Only where it
has fewer, its ids are read and compared. When a pass finds nothing new, writes to the source wait for the moment
of a last pass, which is short; then counts and a sample are compared, and an alias may be switched.

Every step may be repeated. So whatever fails for a moment is tried again, and a kill costs a page: the `journal` knows
what was copied.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from server.collections.external.digest import digest
from server.collections.live_collection import uninterrupted
from server.collections.transferring.comparison import SAMPLE, differences
from server.collections.transferring.journal import Journal
from server.collections.transferring.place import PAGE_DOCUMENTS, Page, Place
from server.databases.outbox_rows import Put
from server.errors import RetryableError, ServerError

# Passes without a lock; a source that is written all the time has something new in each.
PASSES = 10
# Seconds before a failed step is tried again, at most.
LONGEST_PAUSE_S = 30
# Passes after an alias was switched, for writes that were under way, and the seconds before each.
LATE_PASSES, LATE_S = 10, 1.0
# Documents that are named where they differ.
NAMED = 10

State = Literal["running", "waiting", "done", "failed"]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Order:
    """What a transfer is to do. prune: remove what else is in the target. alias: to switch at the end."""

    prune: bool = False
    alias: str | None = None


class Differs(ServerError):
    """Raised where the copy is not the source; the message says in what."""

    code = "transfer_differs"


class Transfer:
    """One run, and what is known of it.

    done, total: documents copied, of how many there are. written, removed: documents that had to be written in the
    target or removed there. others: what else the target has. why: for what it waits, or why it failed.
    """

    def __init__(
        self,
        source: Place,
        target: Place,
        journal: Journal,
        order: Order,
        switch: Callable[[str], Awaitable[None]],
        *,
        switched: bool = False,
    ) -> None:
        """Begin. switch: lets an alias lead to the target. switched: whether it leads there already."""
        self.source, self.target, self.order = source, target, order
        self.state: State = "running"
        self.done = self.total = self.written = self.removed = self.others = self.compared = 0
        self.why: str | None = None
        self._journal = journal
        self._switch = switch
        self._switched = switched
        # Whether nothing is known of what was copied before the alias was switched.
        self._is_over = switched and journal.is_new
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        try:
            while True:
                try:
                    self.why = await self._attempt()
                    break
                except RetryableError as error:
                    self.state, self.why = "waiting", error.public
                    await asyncio.sleep(min(error.retry_after_s, LONGEST_PAUSE_S))
            await uninterrupted(self._journal.delete)
            self.state = "done"
        except BaseException as error:
            self.state = "failed"
            self.why = _said(error)
            await uninterrupted(self._journal.close)
            log.error("collection %s was not transferred: %s", self.source.name, self.why)
            raise

    async def _attempt(self) -> str | None:
        """Copy, compare and switch; return why there was nothing to do. Raises RetryableError to go on later."""
        if self._is_over:
            return f"alias {self.order.alias!r} leads to {self.target.name!r} already"
        if not self._switched:
            await self._copy()
        for _ in range(LATE_PASSES if self._switched else 0):
            # Requests that were under way store in the source what belongs into the target.
            await asyncio.sleep(LATE_S)
            await self._pass()
        return None

    async def _copy(self) -> None:
        self.done = await uninterrupted(self._journal.count)
        self.total = await self.source.count()
        for _ in range(PASSES):
            if not await self._pass():
                break
        if self.order.prune:
            await self._prune()
        ids = await uninterrupted(lambda: self._journal.sample(SAMPLE))
        unlike = await differences(self.source, self.target, ids)
        async with self.source.still():
            while await self._pass():
                continue
            # What was written between two looks differed only then.
            unlike = await differences(self.source, self.target, list(unlike))
            self.compared = len(ids)
            await self._check(unlike)
            if self.order.alias is not None:
                await self._switch(self.order.alias)
                self._switched = True

    async def _pass(self) -> bool:
        """Copy what is new and remove what is gone; return whether there was anything."""
        copied = await self._copy_new()
        return await self._forget_gone() or copied

    async def _copy_new(self) -> bool:
        """Copy what is new, up to a page that is not full: the end must come although clients write."""
        found, is_full = False, True
        while is_full and (page := await self.source.page(self._journal.after)).puts:
            found, is_full = True, page.is_full
            ids = [put.document.id for put in page.puts]
            untouched = await self._untouched(ids)
            await uninterrupted(partial(self._journal.expect, ids))
            self.written += await self.target.put(
                [put for put in page.puts if put.document.id in untouched]
            )
            self.done = await uninterrupted(partial(self._note, page))
            self.total = max(self.total, self.done)
            self.state, self.why = "running", None
        return found

    def _note(self, page: Page) -> int:
        self._journal.note([(put.document.id, _digest(put)) for put in page.puts], page.last)
        return self._journal.count()

    async def _forget_gone(self) -> bool:
        """Remove from the target what was copied and the source no longer has."""
        self.total = await self.source.count()
        if self.total >= await uninterrupted(self._journal.count):
            return False
        sweep = await uninterrupted(self._journal.begin_round)
        async for ids in _every_id(self.source):
            await uninterrupted(partial(self._journal.saw, ids, sweep))
        found = False
        while gone := await uninterrupted(partial(self._journal.unseen, sweep, PAGE_DOCUMENTS)):
            await self._remove(list(await self._untouched(gone)))
            await uninterrupted(partial(self._journal.forget, gone))
            found = True
        self.done = await uninterrupted(self._journal.count)
        return found

    async def _remove(self, ids: Sequence[str]) -> None:
        if ids:
            await self.target.delete(ids)
            self.removed += len(ids)

    async def _untouched(self, ids: Sequence[str]) -> Collection[str]:
        """Return those of the ids that a transfer may write: once the alias leads there, clients write too."""
        if not self._switched:
            return ids
        before = await uninterrupted(lambda: self._journal.digests(ids))
        there = await self.target.of(ids)
        digests = await uninterrupted(lambda: {id: _digest(put) for id, put in there.items()})
        return {id for id in ids if digests.get(id) == (before.get(id) or None)}

    async def _prune(self) -> None:
        """Remove from the target what was never copied."""
        async for ids in _every_id(self.target):
            copied = await uninterrupted(partial(self._journal.digests, ids))
            await self._remove([id for id in ids if id not in copied])

    async def _check(self, unlike: Mapping[str, str]) -> None:
        """Raise Differs unless the target has every document, and those that were compared are alike."""
        source, target = await self.source.count(), await self.target.count()
        copied = await uninterrupted(self._journal.count)
        self.others = max(target - copied, 0)
        said = [f"document {ascii(id)}: {what}" for id, what in list(unlike.items())[:NAMED]]
        if len(unlike) > NAMED:
            said.append(f"and {len(unlike) - NAMED} documents more")
        if copied != source:
            said.append(f"the source has {source} documents, and {copied} were copied")
        if target < copied:
            said.append(f"{copied} documents were copied, and the target has {target}")
        if said:
            raise Differs(
                f"{self.target.name!r} is not a copy of {self.source.name!r}, and no alias was switched:"
                f" {'; '.join(said)}; transfer it again, into another collection if this stays"
            )


def _said(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "it was stopped"
    return error.public if isinstance(error, ServerError) else type(error).__name__


async def _every_id(place: Place) -> AsyncIterator[list[str]]:
    """Yield the ids of all documents, page by page."""
    ids, after = await place.ids(0)
    while ids:
        yield ids
        ids, after = await place.ids(after)


def _digest(put: Put) -> str:
    """Return a digest of a document as it is in any store."""
    return digest(put.document, None)
