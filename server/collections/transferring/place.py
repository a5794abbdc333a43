"""Where a transfer reads and writes: a collection on this server's disk, or one in a vector database.

Both give documents with their chunks and vectors as they are stored, in pages of bounded bytes, and store such
documents as they come. Nothing is embedded. What is written into a vector database goes through its outbox, as every
write does, and is waited for.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple, Protocol

from server.collections.external import reading
from server.collections.external.collection import ExternalCollection
from server.collections.external.digest import digest
from server.collections.live_collection import LiveCollection
from server.databases.database import Entry, VectorDatabase
from server.databases.outbox_rows import Delete, Put
from server.store.reading.parts import Parts, parts_of
from server.store.records import Document, Info

# Documents of a page, and bytes of its texts; the vectors take several times as many.
PAGE_DOCUMENTS, PAGE_BYTES = 256, 1 << 20


class Page(NamedTuple):
    """The next documents, none at the end. last: the number of the last of them. is_full: others may follow."""

    puts: Sequence[Put]
    last: int
    is_full: bool


class Place(Protocol):
    """A collection that a transfer reads or writes.

    identity: what no other collection has, also not one that takes its name. where: for people.
    """

    @property
    def name(self) -> str: ...

    @property
    def info(self) -> Info: ...

    @property
    def identity(self) -> str: ...

    @property
    def where(self) -> str: ...

    async def page(self, after: int) -> Page:
        """Return the next documents after a number, with their chunks, in the order of their writes."""

    async def ids(self, after: int) -> tuple[list[str], int]:
        """Return the ids of the next documents after a number, and the number of the last."""

    async def of(self, ids: Sequence[str]) -> dict[str, Put]:
        """Return the documents of these ids that are stored, by id."""

    async def count(self) -> int:
        """Return how many documents are stored."""

    async def put(self, puts: Sequence[Put]) -> int:
        """Store documents as they are; returns how many were not stored alike. On return they are there."""

    async def delete(self, ids: Sequence[str]) -> None:
        """Remove documents; on return they are gone."""

    def still(self) -> AbstractAsyncContextManager[None]:
        """Let writes of clients wait in the block; what was written before it is stored."""


class LocalPlace:
    """A collection on this server's disk."""

    def __init__(self, live: LiveCollection) -> None:
        self._live = live

    @property
    def name(self) -> str:
        return self._live.name

    @property
    def info(self) -> Info:
        return self._live.info

    @property
    def identity(self) -> str:
        return str(self._live.collection.documents.identity)

    @property
    def where(self) -> str:
        return "on this server's disk"

    async def page(self, after: int) -> Page:
        def read() -> Page:
            documents = self._live.collection.documents
            with documents.snapshot():
                found, cut = documents.page_within(after, PAGE_DOCUMENTS, None, PAGE_BYTES)
                puts = self._puts([document for _, document in found])
            is_full = cut or len(found) == PAGE_DOCUMENTS
            return Page(puts, found[-1][0] if found else after, is_full)

        return await self._live.read(read)

    def _puts(self, documents: Sequence[Document]) -> list[Put]:
        parts = parts_of(self._live.collection.documents, [each.id for each in documents])
        return [self._put(each, parts[each.id]) for each in documents if each.id in parts]

    def _put(self, document: Document, parts: Parts) -> Put:
        # As if the document came from a client now: one that is sent again is then found to be unchanged.
        given = parts if self.info.embedder else None
        return Put(document, digest(document, given), parts.spans, parts.vectors)

    async def ids(self, after: int) -> tuple[list[str], int]:
        def read() -> tuple[list[str], int]:
            documents = self._live.collection.documents
            found, _ = documents.page_within(after, PAGE_DOCUMENTS, None, PAGE_BYTES)
            return [each.id for _, each in found], found[-1][0] if found else after

        return await self._live.read(read)

    async def of(self, ids: Sequence[str]) -> dict[str, Put]:
        def read() -> dict[str, Put]:
            documents = self._live.collection.documents
            with documents.snapshot():
                puts = self._puts(list(documents.get(ids).values()))
            return {put.document.id: put for put in puts}

        return await self._live.read(read)

    async def count(self) -> int:
        return await self._live.read(lambda: self._live.collection.count)

    async def put(self, puts: Sequence[Put]) -> int:
        parts = {put.document.id: Parts(tuple(put.spans), put.vectors) for put in puts}
        return await self._live.add([put.document for put in puts], parts=parts)

    async def delete(self, ids: Sequence[str]) -> None:
        await self._live.delete(ids)

    @asynccontextmanager
    async def still(self) -> AsyncIterator[None]:
        async with self._live.writing:
            yield


class DatabasePlace:
    """A collection in a vector database."""

    def __init__(self, collection: ExternalCollection) -> None:
        self._collection = collection

    @property
    def name(self) -> str:
        return self._collection.name

    @property
    def info(self) -> Info:
        return self._collection.info

    @property
    def identity(self) -> str:
        return self._collection.outbox.identity

    @property
    def where(self) -> str:
        return f"in vector database {self._collection.database!r}"

    async def page(self, after: int) -> Page:
        def read(database: VectorDatabase, info: Info) -> Page:
            # How many documents fit is known by their texts; only then their vectors are read.
            found, cut = reading.page(database, info, after, PAGE_DOCUMENTS, None, PAGE_BYTES)
            entries = database.entries(info, after, len(found)) if found else []
            last = entries[-1].number if entries else after
            is_full = cut or len(found) == PAGE_DOCUMENTS
            return Page([_put_of(each) for each in entries], last, is_full)

        return await self._collection.ask(read)

    async def ids(self, after: int) -> tuple[list[str], int]:
        def read(database: VectorDatabase, info: Info) -> tuple[list[str], int]:
            found, _ = reading.page(database, info, after, PAGE_DOCUMENTS, None, PAGE_BYTES)
            return [each.id for _, each in found], found[-1][0] if found else after

        return await self._collection.ask(read)

    async def of(self, ids: Sequence[str]) -> dict[str, Put]:
        entries = await self._collection.entries(ids)
        return {id: _put_of(each) for id, each in entries.items()}

    async def count(self) -> int:
        return await self._collection.count()

    async def put(self, puts: Sequence[Put]) -> int:
        ids = [put.document.id for put in puts]
        stored = await self._collection.ask(lambda database, info: database.digests(info, ids))
        wanted = [put for put in puts if stored.get(put.document.id) != put.digest]
        await self._collection.send(wanted)
        return len(wanted)

    async def delete(self, ids: Sequence[str]) -> None:
        await self._collection.send([Delete(id) for id in ids])

    @asynccontextmanager
    async def still(self) -> AsyncIterator[None]:
        async with self._collection.still():
            yield


def _put_of(entry: Entry) -> Put:
    parts = reading.parts_of(entry)
    return Put(entry.document, entry.digest, parts.spans, parts.vectors)


def place_of(collection: LiveCollection | ExternalCollection) -> Place:
    """Return a collection as a transfer sees it."""
    if isinstance(collection, ExternalCollection):
        return DatabasePlace(collection)
    return LocalPlace(collection)
