"""Documents as they are stored: by id, by number, whole, and counted."""

import json
from collections.abc import Sequence
from typing import Any

from server.databases.database import Entry, Row
from server.databases.postgres.filters import Condition
from server.databases.postgres.literals import byteas, numbers, read_vector
from server.databases.postgres.schema import MARK, quoted
from server.databases.postgres.session import Session
from server.store.filters.tree import Filter
from server.store.records import Document, Span

WHOLE = "d.number, d.id, d.title, d.text, d.metadata, d.digest"


def document(id: bytes, title: bytes | None, text: bytes, metadata: str) -> Document:
    """Return a document of its columns."""
    name = None if title is None else title.decode()
    return Document(id.decode(), text.decode(), name, json.loads(metadata))


def digests(session: Session, name: str, ids: Sequence[str]) -> dict[str, str]:
    """Return the digests of the stored documents among these."""
    found = session.rows(
        f"SELECT id, digest FROM {quoted(name)}.documents WHERE id = ANY ($1::bytea[])", byteas(ids)
    )
    return {id.decode(): digest for id, digest in found}


def documents(session: Session, name: str, ids: Sequence[str]) -> dict[str, Document]:
    """Return the stored documents among these, whole, by id."""
    found = session.rows(
        f"SELECT {WHOLE} FROM {quoted(name)}.documents d WHERE d.id = ANY ($1::bytea[])",
        byteas(ids),
    )
    return {row[1].decode(): document(*row[1:5]) for row in found}


def entries(session: Session, name: str, after: int, limit: int) -> list[Entry]:
    """Return documents with greater numbers than `after`, by number, with all of their rows."""
    schema = quoted(name)
    found = session.rows(
        f"SELECT {WHOLE} FROM {schema}.documents d WHERE d.number > $1::bigint ORDER BY d.number"
        " LIMIT $2::bigint",
        after,
        limit,
    )
    asked = numbers(row[0] for row in found)
    chunks = session.rows(
        "SELECT document, label, span_begin, span_end, COALESCE(given, direction)::text"
        f" FROM {schema}.chunks WHERE document = ANY ($1::bigint[]) ORDER BY label",
        asked,
    )
    terms: dict[int, dict[str, int]] = {row[1]: {} for row in chunks}
    for label, term, occurrences in session.rows(
        f"SELECT label, term, occurrences FROM {schema}.terms WHERE label = ANY ($1::bigint[])",
        numbers(terms),
    ):
        terms[label][term.decode()] = occurrences
    rows: dict[int, list[Row]] = {row[0]: [] for row in found}
    for number, label, begin, end, vector in chunks:
        rows[number].append(Row(label, Span(begin, end), read_vector(vector), terms[label]))
    return [Entry(document(*row[1:5]), row[5], rows[row[0]]) for row in found]


def page(
    session: Session, name: str, after: int, limit: int, filter: Filter | None
) -> list[tuple[int, Document]]:
    """Return documents with greater numbers than `after` that a filter keeps, by number, with it."""
    kept = Condition(quoted(name), (after, limit))
    found = session.rows(
        f"SELECT {WHOLE} FROM {quoted(name)}.documents d WHERE d.number > $1::bigint"
        f" AND {'TRUE' if filter is None else kept.sql(filter)} ORDER BY d.number LIMIT $2::bigint",
        *kept.values,
    )
    return [(row[0], document(*row[1:5])) for row in found]


def count(session: Session, name: str, filter: Filter | None) -> int:
    """Return how many documents there are, or how many a filter keeps."""
    if filter is None:
        return int(session.rows(f"SELECT documents FROM {quoted(name)}.{MARK}")[0][0])
    kept = Condition(quoted(name))
    rows: list[list[Any]] = session.rows(
        f"SELECT count(*) FROM {quoted(name)}.documents d WHERE {kept.sql(filter)}", *kept.values
    )
    return int(rows[0][0])
