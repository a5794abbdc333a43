"""Reads documents of a collection in a vector database, on a thread."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from server.clock import now
from server.databases.database import Entry, VectorDatabase
from server.errors import RequestTooLarge
from server.store.filters.match import matches
from server.store.filters.tree import ID, TEXT, TITLE, Filter, OneOf
from server.store.reading.parts import Parts
from server.store.records import Document, Info

# Documents of one call: they may be long.
PORTION = 100
# Documents that are read with their vectors at once, of which one is surely wanted.
NEIGHBOURS = 8

Page = list[tuple[int, Document]]


def page(
    database: VectorDatabase, info: Info, after: int, limit: int, filter: Filter | None, most: int
) -> tuple[Page, bool]:
    """Return a page of at most `most` bytes of texts, each with its number, and whether that cut it."""
    found: Page = []
    n_bytes = 0
    while len(found) < limit:
        wanted = min(PORTION, limit - len(found))
        some = database.page(info, found[-1][0] if found else after, wanted, filter)
        for number, document in some:
            n_bytes += len(document.text.encode()) + len(document.title or "")
            if found and n_bytes > most:
                return found, True
            found.append((number, document))
        if len(some) < wanted:
            break
    return found, False


def ids(
    database: VectorDatabase, info: Info, filter: Filter, most: int, end_by: float
) -> list[str]:
    """Return the ids of the documents that a filter keeps; raises RequestTooLarge.

    most: how many there may be. end_by: when it must be done, by `clock.now`.
    """
    found: list[str] = []
    after = 0
    while some := database.page(info, after, PORTION, filter):
        found += [document.id for _, document in some]
        after = some[-1][0]
        if len(found) > most or now() > end_by:
            raise RequestTooLarge(
                f"the filter keeps more documents than are changed at once ({len(found)} and more, at most"
                f" {most}, in the seconds of --query-s); give a narrower filter, and repeat it"
            )
        if len(some) < PORTION:
            break
    return found


def keeps(filter: Filter, document: Document) -> bool:
    """Return whether a filter keeps a document that waits."""
    beside = {ID: document.id, TITLE: document.title, TEXT: document.text}
    return matches(filter, document.metadata, beside) is True


def entries(
    database: VectorDatabase, info: Info, ids: Sequence[str], end_by: float
) -> dict[str, Entry]:
    """Return the documents of these ids that are there, with their chunks; raises RequestTooLarge.

    end_by: when it must be done, by `clock.now`.
    """
    found: dict[str, Entry] = {}
    for begin in range(0, len(ids), PORTION):
        some = tuple(ids[begin : begin + PORTION])
        last = 0
        for number, _ in database.page(info, 0, len(some), OneOf(ID, some)):
            if number <= last:
                continue
            if now() > end_by:
                raise RequestTooLarge(
                    f"{len(found)} of {len(ids)} documents with their vectors took the seconds of --query-s; ask"
                    " for fewer"
                )
            # Those that were stored together follow each other.
            following = database.entries(info, number - 1, NEIGHBOURS)
            found |= {each.document.id: each for each in following if each.document.id in some}
            last = following[-1].number if following else last
    return found


def exported(
    database: VectorDatabase,
    info: Info,
    filter: Filter | None,
    after: int,
    write: Callable[[Document, Parts | None], bytes],
    *,
    with_vectors: bool,
) -> tuple[bytes, int]:
    """Return the next documents as bytes, and the number of the last; -1 at the end."""
    if not with_vectors:
        found = database.page(info, after, PORTION, filter)
        last = found[-1][0] if len(found) == PORTION else -1
        return b"".join(write(document, None) for _, document in found), last
    every = database.entries(info, after, PORTION)
    kept = every if filter is None else [each for each in every if keeps(filter, each.document)]
    last = every[-1].number if len(every) == PORTION else -1
    return b"".join(write(each.document, parts_of(each)) for each in kept), last


def parts_of(entry: Entry) -> Parts:
    """Return the chunks of a document with their vectors."""
    vectors = np.stack([row.vector for row in entry.rows])
    return Parts(tuple(row.span for row in entry.rows), vectors)


def latest(
    waiting: Iterator[tuple[str, Document | None]], filter: Filter
) -> tuple[set[str], set[str]]:
    """Return the ids of waiting writes, and of those the ones whose document a filter keeps."""
    every, kept = set[str](), set[str]()
    for id, document in waiting:
        every.add(id)
        if document is not None and keeps(filter, document):
            kept.add(id)
    return every, kept
