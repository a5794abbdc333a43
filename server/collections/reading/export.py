"""All documents of one moment, page by page, while their client takes them.

How this works. One snapshot of the database is held open, and each page is a read of its own that takes its
turn with others. So memory is that of a page, whatever the collection holds. SQLite's log cannot shrink until
the snapshot is closed. So the time in which the client is waited for has a limit. A collection may be
reindexed or removed meanwhile: the snapshot's file is there until it is closed.
"""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from functools import partial

from server.collections import read_cost
from server.collections.empty_collection import EmptyCollection
from server.collections.external import reading
from server.collections.external.collection import ExternalCollection
from server.collections.external.kinds import Readable
from server.collections.read_threads import ReadThreads
from server.collections.reading.long_streams import Pace, Running
from server.collections.reading.opened import opened
from server.store.collection import Collection
from server.store.filters.tree import Filter
from server.store.reading import filtered
from server.store.reading.parts import Parts, parts_of
from server.store.records import Document
from server.types import Labels

# Documents of a page, with their vectors and without, and bytes of their texts.
PAGE_DOCUMENTS, PAGE_WITH_VECTORS, PAGE_BYTES = 1000, 128, 1 << 20
# A client must take so many bytes a second: a line of 4 Mbit/s is fast enough.
BYTES_PER_S = 1 << 19
RUNNING = Running(4, 10, "{number} exports are running, at most {most} run at once")

Write = Callable[[Document, Parts | None], bytes]


@dataclass(frozen=True, slots=True)
class Export:
    """What is exported, and how. write: the bytes of a document; its chunks only where with_vectors."""

    filter: Filter | None
    with_vectors: bool
    write: Write


async def exported(
    collection: Readable, export: Export, reads: ReadThreads
) -> AsyncGenerator[bytes, None]:
    """Yield the documents, oldest first, as bytes.

    Raises Overloaded where too many run, RequestTooLarge where the client takes too long.
    """
    if isinstance(collection, EmptyCollection):
        return
    if isinstance(collection, ExternalCollection):
        async for piece in _elsewhere(collection, export):
            yield piece
        return
    rows, hit_s = len(collection.collection.index), collection.hit_time.seconds
    limit = PAGE_WITH_VECTORS if export.with_vectors else PAGE_DOCUMENTS
    cost_s = read_cost.of_page(limit, export.filter, rows, 2 * hit_s)
    pace = _pace()
    with RUNNING.one(), reads.admitted(cost_s):
        async with opened(collection.read(lambda: _Held(collection.collection))) as held:
            numbers = await reads.turn(cost_s, partial(_among, held, export.filter))
            after = 0
            while after >= 0:
                page = partial(_page, held, export, after, limit, numbers)
                piece, after = await reads.turn(cost_s, page)
                if piece:
                    with pace.waiting(len(piece)):
                        yield piece


def _pace() -> Pace:
    return Pace("the export", BYTES_PER_S, "export a part of it with a filter")


async def _elsewhere(collection: ExternalCollection, export: Export) -> AsyncGenerator[bytes, None]:
    """Yield the documents of a collection in a vector database, which are not of one moment."""
    pace, after = _pace(), 0
    with RUNNING.one():
        while after >= 0:
            call = partial(
                reading.exported,
                filter=export.filter,
                after=after,
                write=export.write,
                with_vectors=export.with_vectors,
            )
            piece, after = await collection.ask(call)
            if piece:
                with pace.waiting(len(piece)):
                    yield piece


class _Held:
    """A collection as it is now, until this is closed; another may take its place meanwhile."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self.snapshot = collection.documents.database.hold()

    def close(self) -> None:
        self.snapshot.close()


def _among(held: _Held, filter: Filter | None) -> Labels | None:
    """Return the numbers of the documents that a filter keeps, once for all pages.

    None without a filter, and where SQLite has to evaluate it for each page.
    """
    if filter is None:
        return None
    with held.snapshot.here():
        return filtered.numbers(held.collection, filter)


def _page(
    held: _Held, export: Export, after: int, limit: int, numbers: Labels | None
) -> tuple[bytes, int]:
    """Return the next documents as bytes, and the number of the last one; -1 at the end."""
    among = None if numbers is None else filtered.following(numbers, after, limit)
    documents = held.collection.documents
    with held.snapshot.here():
        found, cut = documents.page_within(after, limit, export.filter, PAGE_BYTES, among)
        some = [document for _, document in found]
        parts = parts_of(documents, [each.id for each in some]) if export.with_vectors else {}
    last = found[-1][0] if cut or len(found) == limit else -1
    return b"".join(export.write(each, parts.get(each.id)) for each in some), last
