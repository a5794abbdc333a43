"""Pages of a list of documents: each names the place where the next one begins.

A place is the number of a document, with a mark of the database that counts so. Another database, as after a
reindex or a restore, or behind an alias that was changed, has other numbers: going on there would leave out
documents without a word. A place fits into the numbers that JavaScript keeps whole.
"""

from uuid import UUID

from server.errors import InvalidRequest
from server.store.collection import Collection
from server.store.filters.tree import Filter
from server.store.reading import filtered
from server.store.records import Document

# Documents that a database can count; the mark has the bits above, of the 53 that JavaScript keeps.
NUMBERS = 1 << 38
MARKS = (1 << 15) - 1


def page_from(
    collection: Collection, after: int, limit: int, filter: Filter | None, max_bytes: int
) -> tuple[list[tuple[int, Document]], bool]:
    """Return a page of no more bytes, each document with the place after it, and whether that cut it.

    after: a place, or a number alone, of any database. Raises InvalidRequest where it is of another one.
    """
    mark = _mark(collection.documents.identity)
    of, number = divmod(after, NUMBERS)
    if of not in (0, mark):
        raise InvalidRequest(
            f"after is {after}, a place in a list that is not there any more: the collection was reindexed or"
            " replaced meanwhile, or its name leads to another one; begin the list again, without after",
            param="after",
        )
    found, cut = filtered.page(collection, number, limit, filter, max_bytes)
    return [(mark * NUMBERS + number, document) for number, document in found], cut


def _mark(identity: UUID) -> int:
    return identity.int % MARKS + 1
