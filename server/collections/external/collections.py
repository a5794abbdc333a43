"""All collections in vector databases: opened with the data folder, created, found, removed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from server.collections.external.collection import ExternalCollection, Shared
from server.collections.external.connection import Connection
from server.collections.external.contact import check_same
from server.collections.live_collection import uninterrupted
from server.collections.query_cache import QueryCache
from server.collections.read_threads import ReadThreads
from server.config import Config
from server.databases.database import VectorDatabase
from server.databases.naming import database_name
from server.databases.outbox import Outbox, Record
from server.databases.outbox_folder import OutboxFolder
from server.errors import (
    CollectionNotFound,
    DatabaseAway,
    InvalidRequest,
    RequestTooLarge,
    StoreError,
    shown,
)
from server.inference.registry import ModelRegistry
from server.store.records import Info
from server.telemetry.metrics import Metrics

# What the names of this server's collections in a database begin with.
PREFIX = "inkwell_"
# Seconds after which a client whose write found the outbox full may try again.
FULL_RETRY_S = 30

NOT_GIVEN = (
    "collection {name} is kept in vector database {database}, which this process was not given; start the "
    "server with --vector-database {database}=URI"
)


class ExternalCollections:
    """The collections by name, on the event loop. connections: the databases of the settings."""

    def __init__(
        self,
        data: Path,
        connections: Sequence[Connection],
        config: Config,
        models: ModelRegistry,
        queries: QueryCache,
        reads: ReadThreads,
        metrics: Metrics,
    ) -> None:
        self.connections = {each.name: each for each in connections}
        self._most_bytes = config.outbox_mb << 20
        self._shared = Shared(models, queries, reads, metrics, self._check_room, config.query_s)
        self._folder = OutboxFolder(data)
        self._lacking: dict[str, StoreError] = {}
        self._open: dict[str, ExternalCollection] = {}
        for name, outbox in self._folder.outboxes.items():
            database = outbox.record.database
            if database in self.connections:
                self._open[name] = self._opened(outbox)
            else:
                self._lacking[name] = StoreError(NOT_GIVEN, name=name, database=database)

    def _opened(self, outbox: Outbox) -> ExternalCollection:
        return ExternalCollection(outbox, self.connections[outbox.record.database], self._shared)

    def _check_room(self, n_bytes: int) -> None:
        if n_bytes > self._most_bytes:
            raise RequestTooLarge(
                f"the documents of this request take {n_bytes} bytes with their vectors, and at most"
                f" {self._most_bytes} may wait for vector databases (--outbox-mb); send fewer at once"
            )
        waiting = sum(each.waiting.bytes for each in self._folder.outboxes.values())
        if waiting + n_bytes > self._most_bytes:
            raise DatabaseAway(
                f"{waiting} bytes of acknowledged writes wait for vector databases, {n_bytes} more are to come,"
                f" and at most {self._most_bytes} may wait (--outbox-mb); try again when the databases answer",
                retry_after_s=FULL_RETRY_S,
            )

    @property
    def names(self) -> Sequence[str]:
        return list(self._open)

    @property
    def damaged(self) -> Mapping[str, StoreError]:
        """Errors of collections that cannot be opened, by name."""
        return {**self._folder.damaged, **self._lacking}

    def __contains__(self, name: str) -> bool:
        """Return whether a collection has this name, also one that cannot be opened."""
        return name in self._folder.outboxes or name in self._folder.damaged

    def get(self, name: str) -> ExternalCollection | None:
        """Return the collection of this name; raises StoreError where it cannot be opened."""
        if (error := self.damaged.get(name)) is not None:
            raise type(error)(error.sentence)
        return self._open.get(name)

    def all(self) -> list[ExternalCollection]:
        """Return those that are open; from any thread."""
        return list(self._open.values())

    async def create(self, info: Info, database: str) -> ExternalCollection:
        """Create a collection in a database, or attach one that is there; its name must be free.

        Raises InvalidRequest for a database that is not there, OtherModel or DatabaseRefused where a collection
        of this name is there and was made otherwise.
        """
        connection = self.connections.get(database)
        if connection is None:
            known = ", ".join(map(repr, self.connections)) or "none"
            raise InvalidRequest(
                f"there is no vector database {shown(database)}; this server has {known}: they are named by"
                " --vector-database NAME=URI",
                param="database",
            )
        record = Record(info, database, database_name(PREFIX, info.name))
        await connection.read(lambda database: _create(database, record))
        outbox = await uninterrupted(lambda: self._folder.create(record))
        made = self._open[info.name] = self._opened(outbox)
        return made

    async def remove(self, name: str) -> None:
        """Delete a collection in its database and here, with what waits; raises DatabaseAway."""
        found = self._open.get(name)
        if found is None:
            raise CollectionNotFound(f"there is no collection {name!r}")
        # No call may find it meanwhile.
        del self._open[name]
        try:
            await found.leave()
            await found.connection.read(lambda database: database.drop(found.outbox.record.there))
            await uninterrupted(lambda: self._folder.remove(name))
        except BaseException:
            if name in self._folder.outboxes:
                self._open[name] = self._opened(found.outbox)
            raise

    async def close(self) -> None:
        """End the deliveries, and close files and connections; what waits is delivered after the next start."""
        for each in self.all():
            await each.delivery.close()
        await uninterrupted(self._folder.close)
        for connection in self.connections.values():
            await connection.close()


def _create(database: VectorDatabase, record: Record) -> None:
    found = database.info(record.there)
    if found is not None:
        check_same(record, found)
    database.create(replace(record.info, name=record.there))
