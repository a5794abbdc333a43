"""The transfers of a server: begun, found, and ended with it; each works on two collections that are there."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

from server.collections.external.collection import ExternalCollection
from server.collections.external.kinds import Writable
from server.collections.live_collection import LiveCollection, uninterrupted
from server.collections.transferring.journal import Journal
from server.collections.transferring.place import place_of
from server.collections.transferring.transfer import Order, Transfer
from server.errors import AlreadyExists, InvalidRequest, OtherModel
from server.store.collection_name import check_name, folder_name
from server.store.records import Info

FOLDER = "transfers"


class Owner(Protocol):
    """The collections that transfers work on."""

    @property
    def names(self) -> list[str]: ...

    @property
    def aliases(self) -> Mapping[str, str]: ...

    async def accepting(self, name: str) -> Writable: ...

    def check_idle(self, name: str, act: str) -> None: ...

    async def create_from(self, info: Info) -> LiveCollection: ...

    async def create_external(self, info: Info, database: str) -> ExternalCollection: ...

    async def set_alias(self, alias: str, collection: str) -> None: ...


class Transfers:
    """The last transfer of each collection, by the name of the source."""

    def __init__(self, data: Path, owner: Owner) -> None:
        """Take the data folder, where journals are, and the collections."""
        self._folder = data / FOLDER
        self._owner = owner
        self._last: dict[str, Transfer] = {}
        self._beginning = asyncio.Lock()

    def uses(self, name: str) -> bool:
        """Return whether a transfer that runs reads or writes the collection of this name."""
        return any(name in (each.source.name, each.target.name) for each in self._running())

    def _running(self) -> list[Transfer]:
        return [each for each in self._last.values() if not each.task.done()]

    def last(self, source: str) -> Transfer | None:
        """Return the transfer of a collection that runs, or the last one since this server started."""
        return self._last.get(source)

    async def begin(self, source: str, to: str, database: str | None, order: Order) -> Transfer:
        """Begin to copy a collection, or go on; one that runs to the same target is returned as it is.

        to: the target, which is created where there is none. database: that keeps it, None for this server.
        Raises OtherModel or InvalidRequest for a target that is there and was made otherwise.
        """
        async with self._beginning:
            found = await self._owner.accepting(source)
            running = self._last.get(found.name)
            if running is not None and not running.task.done():
                if (running.target.name, running.order) == (to, order):
                    return running
                raise AlreadyExists(
                    f"collection {found.name!r} is being copied to {running.target.name!r}; wait for its end"
                )
            self._check(found.name, to, order)
            target = await self._target(found, to, database)
            places = place_of(found), place_of(target)
            journal = await uninterrupted(
                partial(self._journal, to, [each.identity for each in places])
            )
            switched = order.alias is not None and self._owner.aliases.get(order.alias) == to
            switch = partial(self._owner.set_alias, collection=to)
            made = Transfer(*places, journal, order, switch, switched=switched)
            # Marked as retrieved: `why` says what it raised.
            made.task.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._last[found.name] = made
            return made

    def _check(self, source: str, to: str, order: Order) -> None:
        """Raise an error where these collections cannot be used now."""
        if to == source:
            raise InvalidRequest(f'"to" is {to!r}, the collection itself; name another', param="to")
        if to in self._owner.aliases:
            raise InvalidRequest(
                f'"to" is {to!r}, an alias of {self._owner.aliases[to]!r}; name a collection',
                param="to",
            )
        check_name(to)
        if order.alias is not None:
            check_name(order.alias)
            if order.alias == to or order.alias in self._owner.names:
                raise InvalidRequest(
                    f'"alias" is {order.alias!r}, the name of a collection; name an alias that clients use',
                    param="alias",
                )
        for name in (source, to):
            self._owner.check_idle(name, "transfer it")

    async def _target(self, source: Writable, to: str, database: str | None) -> Writable:
        """Return the target, which is made like the source where it is missing."""
        wanted = replace(source.info, name=to)
        if to not in self._owner.names:
            if database is not None:
                return await self._owner.create_external(wanted, database)
            return await self._owner.create_from(wanted)
        target = await self._owner.accepting(to)
        there = target.database if isinstance(target, ExternalCollection) else None
        if there != database:
            place = "on this server's disk" if there is None else f"in vector database {there!r}"
            raise AlreadyExists(
                f"collection {to!r} is there, {place}; give another name", param="to"
            )
        if (target.info.fingerprint, target.info.dimension) != (
            wanted.fingerprint,
            wanted.dimension,
        ):
            raise OtherModel(
                f"collection {to!r} holds vectors of model {target.info.fingerprint}, and {source.name!r} of"
                f" {wanted.fingerprint}; give another name"
            )
        if target.info != wanted:
            raise InvalidRequest(
                f"collection {to!r} was made with chunks of {target.info.chunks}, and {source.name!r} of"
                f" {wanted.chunks}; give another name",
                param="to",
            )
        return target

    def _journal(self, to: str, places: list[str]) -> Journal:
        self._folder.mkdir(exist_ok=True)
        return Journal(self._folder / f"{folder_name(to)}.db", places)

    async def stop(self, source: str) -> None:
        """Stop the transfer of a collection, if one runs; the next one goes on from there."""
        if (running := self._last.get(source)) is not None:
            await _stopped(running)

    async def close(self) -> None:
        """Stop all; they go on when they are begun again."""
        for each in self._running():
            await _stopped(each)


async def _stopped(transfer: Transfer) -> None:
    transfer.task.cancel()
    with suppress(BaseException):
        await asyncio.wait([transfer.task])
