"""Documents in and out of the tables of a collection, inside a transaction that `pool.Pool.write` began.

How this works. The row of inkwell_collection is locked first. So writes to a collection follow one another, none of
them meets another one halfway, and the sums for BM25 are those of the rows. Then all rows of the documents that
are replaced go, and the new ones come by COPY. A search sees all of that or nothing.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from server.databases.database import Entry, Row
from server.databases.portions import portions
from server.databases.postgres import filters
from server.databases.postgres.literals import Field, byteas, line, numbers, vector
from server.databases.postgres.schema import MARK, quoted
from server.databases.postgres.session import Session
from server.errors import DatabaseRefused
from server.store.filters.instants import instant
from server.store.records import Document
from server.store.schema import document_row
from server.types import unit

DOCUMENTS = ("number", "id_instant", "title_instant", "id", "digest", "title", "metadata", "text")
CHUNKS = (
    "label",
    "document",
    "span_begin",
    "span_end",
    "bytes_begin",
    "bytes_end",
    "terms",
    "direction",
    "given",
)
TERMS = ("label", "occurrences", "chunk_terms", "term")
# Chunks that a statement stores, and removes: each changes the index of vectors or hundreds of terms, and a statement
# has `timeout_s`.
CHUNKS_AT_ONCE, REMOVED_AT_ONCE = 200, 1_000
# Documents and characters of a transaction; a document is never divided.
MOST_DOCUMENTS, MOST_CHARACTERS, MOST_CHUNKS = 512, 4_000_000, 1_000
# How far the length of a vector may be from 1 to count as a direction already.
ROUNDING = 1e-6


class Stored(NamedTuple):
    """The version of a document that is there."""

    number: int
    digest: str


def batches(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Yield entries in runs, each for one transaction."""
    begin = characters = chunks = 0
    for at, entry in enumerate(entries):
        characters += len(entry.document.text)
        chunks += len(entry.rows)
        if at > begin and (
            at - begin == MOST_DOCUMENTS or characters > MOST_CHARACTERS or chunks > MOST_CHUNKS
        ):
            yield entries[begin:at]
            begin, characters, chunks = at, len(entry.document.text), len(entry.rows)
    if begin < len(entries):
        yield entries[begin:]


def is_newer(entry: Entry, stored: Stored | None) -> bool:
    """Return whether an entry takes the place of what is stored: of two versions, the one of greater labels counts."""
    if stored is None or entry.number > stored.number:
        return True
    return entry.number == stored.number and entry.digest != stored.digest


def put(session: Session, name: str, entries: Sequence[Entry]) -> None:
    """Store documents in place of their older versions; those that are there already are skipped."""
    _lock(session, name)
    there = _stored(session, name, [entry.document.id for entry in entries])
    new = [entry for entry in entries if is_newer(entry, there.get(entry.document.id))]
    if not new:
        return
    replaced = [there[each.document.id].number for each in new if each.document.id in there]
    _remove(session, name, replaced)
    schema = quoted(name)
    session.copy(f"{schema}.documents", DOCUMENTS, map(_document, new))
    session.copy(
        f"{schema}.attributes",
        filters.COLUMNS,
        (line(row) for entry in new for row in filters.rows(entry.number, entry.document.metadata)),
    )
    rows = [(entry, row) for entry in new for row in entry.rows]
    for some in portions(rows, CHUNKS_AT_ONCE):
        session.copy(f"{schema}.chunks", CHUNKS, _chunks(some))
        session.copy(f"{schema}.terms", TERMS, _terms(row for _, row in some))
    _add(session, name, len(new), len(rows), sum(sum(row.words.values()) for _, row in rows))


def delete(session: Session, name: str, ids: Collection[str]) -> None:
    """Remove documents; those that are not there are skipped."""
    _lock(session, name)
    _remove(session, name, [each.number for each in _stored(session, name, ids).values()])


def _lock(session: Session, name: str) -> None:
    if not session.rows(f"SELECT 1 FROM {quoted(name)}.{MARK} FOR UPDATE"):
        raise DatabaseRefused(f"the collection {name!r} in PostgreSQL has lost its description")


def _stored(session: Session, name: str, ids: Collection[str]) -> Mapping[str, Stored]:
    found = session.rows(
        f"SELECT id, number, digest FROM {quoted(name)}.documents WHERE id = ANY ($1::bytea[])",
        byteas(ids),
    )
    return {id.decode(): Stored(number, digest) for id, number, digest in found}


def _remove(session: Session, name: str, documents: Sequence[int]) -> None:
    if not documents:
        return
    schema, gone = quoted(name), numbers(documents)
    chunks = session.rows(
        f"SELECT label, terms FROM {schema}.chunks WHERE document = ANY ($1::bigint[])", gone
    )
    for some in portions(chunks, REMOVED_AT_ONCE):
        labels = numbers(label for label, _ in some)
        for table in ("terms", "chunks"):
            session.rows(f"DELETE FROM {schema}.{table} WHERE label = ANY ($1::bigint[])", labels)
    session.rows(f"DELETE FROM {schema}.attributes WHERE document = ANY ($1::bigint[])", gone)
    session.rows(f"DELETE FROM {schema}.documents WHERE number = ANY ($1::bigint[])", gone)
    _add(session, name, -len(documents), -len(chunks), -sum(terms for _, terms in chunks))


def _add(session: Session, name: str, documents: int, chunks: int, terms: int) -> None:
    session.rows(
        f"UPDATE {quoted(name)}.{MARK} SET documents = documents + $1::bigint, chunks = chunks + $2::bigint,"
        " terms = terms + $3::bigint",
        documents,
        chunks,
        terms,
    )


def _document(entry: Entry) -> str:
    id, text, title, metadata = document_row(entry.document)
    fields: tuple[Field, ...] = (
        entry.number,
        instant(id),
        None if title is None else instant(title),
        id.encode(),
        entry.digest,
        None if title is None else title.encode(),
        metadata,
        text.encode(),
    )
    return line(fields)


def _chunks(rows: Sequence[tuple[Entry, Row]]) -> Iterator[str]:
    vectors = np.stack([row.vector for _, row in rows])
    directions = unit(vectors)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    before: tuple[Document, int, int] | None = None
    for (entry, row), given, direction, length in zip(
        rows, vectors, directions, lengths, strict=True
    ):
        text = entry.document.text
        if before is None or before[0] is not entry.document or before[1] > row.span.begin:
            before = entry.document, 0, 0
        # The chunks of a long document follow one another, so that each of its characters is counted about once.
        begin = before[2] + len(text[before[1] : row.span.begin].encode())
        end = begin + len(text[row.span.begin : row.span.end].encode())
        before = entry.document, row.span.begin, begin
        is_direction = abs(length - 1) <= ROUNDING
        yield line(
            (
                row.label,
                entry.number,
                row.span.begin,
                row.span.end,
                begin,
                end,
                sum(row.words.values()),
                vector(given if is_direction else direction),
                None if is_direction else vector(given),
            )
        )


def _terms(rows: Iterator[Row]) -> Iterator[str]:
    for row in rows:
        every = sum(row.words.values())
        for term, occurrences in row.words.items():
            yield line((row.label, occurrences, every, term.encode()))
