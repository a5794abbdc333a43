"""A collection in a vector database, on the event loop: embedded here, written through an outbox, searched there.

It has the surface of a `LiveCollection`, as far as `abilities` says. A write is acknowledged when it is in the
outbox on this server's disk; `delivery` sends it on. Reads ask the database, which does not show what still waits;
only documents that are asked for by their ids are answered from the outbox too.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from server.clock import now
from server.collections import read_cost
from server.collections.document_limits import check_all_paths, check_texts
from server.collections.external import reading, searching
from server.collections.external.abilities import check_words
from server.collections.external.connection import Connection
from server.collections.external.contact import Contact
from server.collections.external.delivery import Delivery
from server.collections.external.digest import digest
from server.collections.live_collection import NO_PARTS, uninterrupted
from server.collections.query_cache import QueryCache
from server.collections.read_threads import ReadThreads
from server.collections.served_model import VectorsReplaced, engine_of
from server.collections.write_batch import WriteBatch
from server.collections.writing.merge_patch import Changed, Patch, patched
from server.collections.writing.outcome import Outcome
from server.databases.database import Entry, VectorDatabase
from server.databases.outbox import Aside, Outbox, Waiting
from server.databases.outbox_rows import Delete, PreparedWrite, Put, Write, prepared
from server.errors import (
    AlreadyExists,
    CollectionNotFound,
    DatabaseAway,
    DatabaseBusy,
    DatabaseRefused,
    InvalidRequest,
    RequestTooLarge,
)
from server.inference.engine import Engine
from server.inference.registry import ModelRegistry
from server.store.filters.tree import Filter
from server.store.lexical import ask
from server.store.reading.parts import Parts
from server.store.records import Document, Info
from server.store.search import Hit, Query
from server.telemetry import spans
from server.telemetry.metrics import Metrics
from server.types import Vectors, unit

T = TypeVar("T")
# Documents of one removal by filter, and of one change of metadata.
MOST_REMOVED, MOST_CHANGED = 100_000, 1_000
# Between two looks at a delivery that is waited for.
PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Shared:
    """What all collections in vector databases share.

    check_room: raises DatabaseAway where so many more bytes must not wait now, and RequestTooLarge where they never
    may. query_s: seconds of one request.
    """

    models: ModelRegistry
    queries: QueryCache
    reads: ReadThreads
    metrics: Metrics
    check_room: Callable[[int], None]
    query_s: float


@dataclass(frozen=True, slots=True)
class OutboxDescription:
    """The outbox of a collection. refused: what the database said of the write at the head. set_aside: writes."""

    bytes_on_disk: int
    waiting: Waiting
    refused: str | None
    set_aside: int


class ExternalCollection:
    """One collection in a vector database; its outbox is open, and its delivery runs until `close`."""

    def __init__(self, outbox: Outbox, connection: Connection, shared: Shared) -> None:
        self.outbox = outbox
        self.connection = connection
        self._shared = shared
        self._contact = Contact(outbox.record)
        self.delivery = Delivery(outbox, connection, self._contact)
        # Held from what a write reads until it is appended.
        self._appending = asyncio.Lock()
        # Set when the collection is removed.
        self.gone = False
        # As of a `LiveCollection`: no backup ever takes the place of its documents.
        self.restored = 0

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def info(self) -> Info:
        return self.outbox.record.info

    @property
    def database(self) -> str:
        """The name of its vector database."""
        return self.connection.name

    @property
    def waiting(self) -> Waiting:
        return self.outbox.waiting

    @property
    def engine(self) -> Engine:
        """The engine of the model whose vectors it holds; raises OtherModel where none serves it."""
        return engine_of(self._shared.models, self.info)

    # --- writing ------------------------------------------------------------------------------------

    async def add(
        self,
        documents: Sequence[Document],
        *,
        replace: bool = True,
        parts: Mapping[str, Parts] = NO_PARTS,
    ) -> Outcome:
        """Embed and keep documents, all or none; see `LiveCollection.add`.

        While the database is away none is known to be unchanged, so all are written. Raises DatabaseAway where
        the outbox is full, and where `replace` is False and the database cannot say what it has.
        """
        check_texts(documents, self.info, parts)
        latest = list({document.id: document for document in documents}.values())
        batch = WriteBatch(self.info, latest, replace, parts=parts)
        engine = self.engine if batch.lacks_vectors() else None
        self._shared.check_room(0)
        digests = await uninterrupted(lambda: _digests(latest, parts))
        if replace:
            wanted = await self._changed(latest, digests)
        else:
            await self._check_new(digests)
            wanted = latest
        await batch.embed(wanted, engine)
        writes = await uninterrupted(
            lambda: [
                # Databases rank unit vectors by their products, which are cosines.
                prepared(Put(document, digests[document.id], spans, unit(vectors)))
                for document, spans, vectors in batch.embedded()
            ]
        )
        async with self._appending:
            if not replace:
                # Another request may have stored one meanwhile.
                await self._check_new(digests)
            number = await self._append(writes)
        return Outcome(len(wanted), not await self.delivery.reached(number))

    async def _changed(
        self, documents: Sequence[Document], digests: Mapping[str, str]
    ) -> list[Document]:
        """Return the documents that are not stored unchanged, as far as that is known."""
        waiting = await self._waiting(digests)
        asked = [id for id in digests if id not in waiting]
        try:
            stored = await self._ask(lambda database, info: database.digests(info, asked))
        except (DatabaseAway, DatabaseBusy):
            stored = {}
        return [each for each in documents if stored.get(each.id) != digests[each.id]]

    async def _check_new(self, digests: Mapping[str, str]) -> None:
        """Raise AlreadyExists where one of these ids is stored or waits."""
        for id in await self._there(list(digests)):
            raise AlreadyExists(
                f'document {id!r} exists already; leave out "replace": false to replace it',
                param="documents",
            )

    async def _there(self, ids: Sequence[str]) -> list[str]:
        """Return those of the ids that have a document, also one that waits; raises DatabaseAway."""
        waiting = await self._waiting(ids)
        asked = [id for id in ids if id not in waiting]
        stored = await self._ask(lambda database, info: database.digests(info, asked))
        return [id for id in ids if waiting.get(id) is not None or id in stored]

    async def delete(self, ids: Sequence[str]) -> Outcome:
        """Delete these documents; where the database cannot say which it has, all ids count."""
        each = list(dict.fromkeys(ids))
        async with self._appending:
            try:
                found = await self._there(each)
            except (DatabaseAway, DatabaseBusy):
                waiting = await self._waiting(each)
                found = [id for id in each if id not in waiting or waiting[id] is not None]
            number = await self._append_removal(found)
        return Outcome(len(found), not await self.delivery.reached(number))

    async def delete_where(self, filter: Filter) -> Outcome:
        """Delete the documents that the filter keeps, also those that wait; raises DatabaseAway."""
        async with self._appending:
            waiting, kept = await self._local(
                lambda: reading.latest(self.outbox.every_latest(), filter)
            )
            end_by = now() + self._shared.query_s
            stored = await self._ask(
                lambda database, info: reading.ids(database, info, filter, MOST_REMOVED, end_by)
            )
            found = [*(id for id in stored if id not in waiting), *kept]
            number = await self._append_removal(found)
        return Outcome(len(found), not await self.delivery.reached(number))

    async def _append_removal(self, ids: Sequence[str]) -> int:
        return await self._append(await uninterrupted(lambda: [prepared(Delete(id)) for id in ids]))

    async def change(self, patches: Mapping[str, Patch]) -> tuple[Changed, Outcome]:
        """Change the metadata of documents, all or none; their vectors stay as they are."""
        if len(patches) > MOST_CHANGED:
            raise RequestTooLarge(
                f"the metadata of {len(patches)} documents is to be changed, at most {MOST_CHANGED} are changed"
                " at once in a vector database; send several requests"
            )
        async with self._appending:
            entries = await self.entries(list(patches))
            changed, writes = await uninterrupted(lambda: _patched(entries, patches))
            missing = [id for id in patches if id not in entries]
            if not writes:
                return Changed([], missing), Outcome(0)
            number = await self._append(writes)
        queued = not await self.delivery.reached(number)
        return Changed(changed, missing), Outcome(len(changed), queued)

    async def _append(self, writes: Sequence[PreparedWrite]) -> int:
        """Append writes; raises DatabaseAway where too much waits. Returns the number of the last, 0 for none."""
        self._check_there()
        if not writes:
            return 0
        self._shared.check_room(sum(write.bytes for write in writes))
        return await uninterrupted(lambda: self.outbox.append(writes))

    # --- for a transfer -----------------------------------------------------------------------------

    async def send(self, writes: Sequence[Write]) -> None:
        """Append writes as they are, and wait until the database has them.

        Raises DatabaseAway while it does not answer, DatabaseRefused where it refuses a write.
        """
        if not writes:
            return
        rows = await uninterrupted(
            lambda: [
                prepared(
                    replace(each, vectors=unit(each.vectors)) if isinstance(each, Put) else each
                )
                for each in writes
            ]
        )
        async with self._appending:
            number = await self._append(rows)
        while not await self.delivery.reached(number):
            await self._pause()

    @asynccontextmanager
    async def still(self) -> AsyncIterator[None]:
        """Let writes wait in the block; those before it have reached the database. Raises as `send`."""
        async with self._appending:
            while self.waiting.writes:
                await self._pause()
            yield

    async def _pause(self) -> None:
        """Wait a moment for the delivery; raises DatabaseAway or DatabaseRefused where it cannot go on."""
        self._check_there()
        if (reason := self.outbox.refusal) is not None:
            raise DatabaseRefused(
                f"a write to collection {self.name!r} is refused, and what follows waits behind it:"
                f" {reason}; see /collections/{self.name}/outbox"
            )
        self.connection.check()
        await asyncio.sleep(PAUSE_S)

    # --- searching ----------------------------------------------------------------------------------

    async def vectors_of(self, texts: Sequence[str]) -> Vectors:
        """Embed queries: float32 (B, D), comparable with the collection's vectors."""
        return await self._shared.queries.of(texts, self.engine)

    def check_room(self, queries: Sequence[Query]) -> None:
        """Raise Overloaded or DatabaseAway if a search would be refused now: before its queries are embedded."""
        self.connection.check()

    async def search(self, queries: Sequence[Query], space: str | None = None) -> list[list[Hit]]:
        """Find the best documents of each query, best first; see `LiveCollection.search`."""
        if space not in (None, self.info.fingerprint):
            raise VectorsReplaced
        started = now()
        self._shared.metrics.searches.inc(len(queries))
        found: list[list[Hit]] = []
        for query in queries:
            if now() > started + self._shared.query_s:
                raise RequestTooLarge(
                    f"{len(found)} of {len(queries)} queries took the {self._shared.query_s:g} s of --query-s;"
                    " send fewer queries at once"
                )
            found.append(await self._ask(partial(self._searched, query=query)))
        self._shared.metrics.search_seconds.observe((ended := now()) - started)
        spans.note("search", started, ended)
        return found

    def _searched(self, database: VectorDatabase, info: Info, query: Query) -> list[Hit]:
        """Search on a thread; raises InvalidRequest for a query with phrases or exclusions."""
        if query.words is None or query.mode == "dense":
            return searching.search(database, info, query, ())
        asked = ask(query.words)
        check_words(self.name, self.database, asked)
        return searching.search(database, info, query, asked.terms)

    # --- reading ------------------------------------------------------------------------------------

    async def get(self, id: str) -> Document | None:
        """Return the document of this id, also one that waits; None where there is none."""
        return (await self.documents([id])).get(id)

    async def documents(self, ids: Sequence[str]) -> dict[str, Document]:
        """Return the documents of these ids that exist, also those that wait, in the order of the ids."""
        found = await self._waiting(ids)
        if asked := [id for id in dict.fromkeys(ids) if id not in found]:
            found |= await self._ask(lambda database, info: database.documents(info, asked))
        every = {id: found.get(id) for id in ids}
        return {id: document for id, document in every.items() if document is not None}

    async def parts(self, ids: Sequence[str]) -> dict[str, tuple[Document, Parts]]:
        """Return the documents of these ids that exist, with their chunks and vectors."""
        return {
            id: (entry.document, reading.parts_of(entry))
            for id, entry in (await self.entries(ids)).items()
        }

    async def entries(self, ids: Sequence[str]) -> dict[str, Entry]:
        """Return the documents of these ids that exist, as a database stores them."""
        waiting = await self._local(lambda: self.outbox.latest_entries(ids))
        every: dict[str, Entry | None] = dict(waiting)
        if asked := [id for id in dict.fromkeys(ids) if id not in waiting]:
            end_by = now() + self._shared.query_s
            every |= await self._ask(
                lambda database, info: reading.entries(database, info, asked, end_by)
            )
        return {id: entry for id in ids if (entry := every.get(id)) is not None}

    async def page_within(
        self, after: int, limit: int, filter: Filter | None
    ) -> tuple[list[tuple[int, Document]], bool]:
        """Return a page of no more bytes than a reply, each with the place after it, and whether that cut it."""
        most = self._shared.reads.max_bytes
        return await self._ask(
            lambda database, info: reading.page(database, info, after, limit, filter, most)
        )

    async def count(self, filter: Filter | None = None) -> int:
        """Count the documents that the database has, or those that the filter keeps."""
        return await self._ask(lambda database, info: database.count(info, filter))

    async def warnings(self, filter: Filter | None) -> list[str]:
        """Return what a reply says of writes that the database does not have yet."""
        if not (writes := self.waiting.writes):
            return []
        return [
            f"{writes} writes wait for vector database {self.database!r}, and are not in this answer"
        ]

    async def description(self) -> OutboxDescription:
        """Describe what waits, as far as this server knows it."""

        def describe() -> OutboxDescription:
            outbox, waiting = self.outbox, self.outbox.waiting
            return OutboxDescription(
                outbox.bytes_on_disk(), waiting, outbox.refusal, outbox.n_aside()
            )

        return await self._local(describe)

    async def retry(self) -> None:
        """Try the write that the database refused again, at once."""
        self._check_there()
        self.delivery.retry()

    async def set_aside(self) -> str | None:
        """Set the refused write aside and send what waits behind it; returns its document's id, None for none."""
        self._check_there()
        return await self.delivery.set_aside()

    async def writes_aside(self, limit: int) -> list[Aside]:
        """Return writes that were set aside, oldest first."""
        return await self._local(lambda: self.outbox.aside(limit))

    async def forget_aside(self) -> int:
        """Delete the writes that were set aside; returns how many there were."""
        self._check_there()
        return await uninterrupted(self.outbox.forget_aside)

    async def ask(self, call: Callable[[VectorDatabase, Info], T]) -> T:
        """Ask the database on a thread."""
        return await self._ask(call)

    async def _ask(self, call: Callable[[VectorDatabase, Info], T]) -> T:
        self._check_there()
        return await self.connection.read(
            lambda database: call(database, self._contact.info(database))
        )

    async def _waiting(self, ids: Iterable[str]) -> dict[str, Document | None]:
        asked = list(ids)
        return await self._local(lambda: self.outbox.latest(asked))

    async def _local(self, call: Callable[[], T]) -> T:
        """Read the outbox on a thread."""
        return await self._shared.reads.run(read_cost.CALL_S, call)

    async def leave(self) -> None:
        """Refuse calls from now on, and end those that write; called before it is removed."""
        self.gone = True
        async with self._appending:
            await self.delivery.close()

    def _check_there(self) -> None:
        if self.gone:
            raise CollectionNotFound(f"there is no collection {self.name!r} any more")


def _digests(documents: Sequence[Document], parts: Mapping[str, Parts]) -> dict[str, str]:
    try:
        return {each.id: digest(each, parts.get(each.id)) for each in documents}
    except ValueError as error:
        raise InvalidRequest(f"metadata is not JSON: {error}", param="documents") from None


def _patched(
    entries: Mapping[str, Entry], patches: Mapping[str, Patch]
) -> tuple[list[Document], list[PreparedWrite]]:
    found = {id: patched(entry.document, patches[id]) for id, entry in entries.items()}
    changed = {id: each.document for id, each in found.items() if each is not None}
    check_all_paths(sum(each.paths for each in found.values() if each is not None))
    parts = {id: reading.parts_of(entries[id]) for id in changed}
    writes = [
        prepared(Put(document, digest(document, None), parts[id].spans, parts[id].vectors))
        for id, document in changed.items()
    ]
    return list(changed.values()), writes
