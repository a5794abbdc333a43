"""Reads columns from the database: the rows that filters read of metadata, by key.

They lie in the order of their values there. So a value and the number of its documents is one row, and the
documents' numbers are one list for all values.
"""

import json
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from server.store.columns.column import Column
from server.store.columns.segment import Segment, Written
from server.store.filters.sql import SqlValue, attributes, in_order
from server.store.filters.tree import ID, RESERVED, TITLE
from server.store.sqlite.damage import damaged
from server.store.sqlite.database import Database
from server.store.sqlite.integers import integers
from server.types import Labels

# A key with more distinct values, or more characters of distinct texts, stays on the disk: its conditions
# are SQL's. A value takes 9 bytes beside its own.
MOST_VALUES, MOST_CHARACTERS = 4_000_000, 64 << 20

CHUNKS = "SELECT json_group_array(document), json_group_array(label) FROM parts"
VALUES = "SELECT value, count(*) FROM attributes WHERE key = ? GROUP BY value"
NUMBERS = """
    SELECT json_group_array(document) FROM (
        SELECT document FROM attributes WHERE key = ? ORDER BY value, document
    )"""
BESIDE = {
    ID: "SELECT id, number FROM documents",
    TITLE: "SELECT title, number FROM documents WHERE title IS NOT NULL",
}
WRITTEN = "SELECT number, id, title, metadata FROM documents WHERE number IN"
OWNERS = "SELECT document, label FROM parts WHERE label IN"


def segment(database: Database) -> Segment:
    """Return all documents that have chunks."""
    ((owners, labels),) = database.rows(CHUNKS)
    return Segment.of(integers(owners), integers(labels))


def column(database: Database, key: str, of: Segment) -> Column | None:
    """Return the column of a key; None where it has too many values to keep in memory."""
    found = _beside(database, key) if key in RESERVED else _values(database, key)
    if found is None:
        return None
    values, counts = found.values, found.counts
    if not all(value < following for value, following in pairwise(map(in_order, values))):
        raise damaged(database.path, f"the order of what filters read of {ascii(key)}")
    if len(found.numbers) != sum(counts):
        raise damaged(database.path, f"what filters read of {ascii(key)}")
    return of.column(values, found.numbers, counts)


class _Found:
    """Distinct values in their order, how many documents have each, and those documents, by value."""

    def __init__(self) -> None:
        self.values: list[SqlValue] = []
        self.counts: list[int] = []
        self.numbers: Labels = np.empty(0, dtype=np.int64)
        self._characters = 0

    def add(self, value: SqlValue, count: int) -> bool:
        """Add a value; returns whether there is room for it."""
        self.values.append(value)
        self.counts.append(count)
        self._characters += len(value) if isinstance(value, str | bytes) else 0
        return len(self.values) <= MOST_VALUES and self._characters <= MOST_CHARACTERS


def _values(database: Database, key: str) -> _Found | None:
    found = _Found()
    for value, count in database.each(VALUES, (key,)):
        if not found.add(value, count):
            return None
    ((numbers,),) = database.rows(NUMBERS, (key,))
    found.numbers = integers(numbers)
    return found


def _beside(database: Database, key: str) -> _Found | None:
    """Return the values of a field beside metadata."""
    if key not in BESIDE:
        return None
    rows: list[tuple[str, int]] = []
    characters = 0
    for value, number in database.each(BESIDE[key]):
        rows.append((value, number))
        characters += len(value)
        if len(rows) > MOST_VALUES or characters > MOST_CHARACTERS:
            return None
    rows.sort()
    found = _Found()
    for value, _ in rows:
        if found.values and found.values[-1] == value:
            found.counts[-1] += 1
        else:
            found.add(value, 1)
    found.numbers = np.array([number for _, number in rows], dtype=np.int64)
    return found


def written(database: Database, labels: Labels) -> list[Written]:
    """Return the documents of these labels, by their numbers."""
    chunks: dict[int, list[int]] = {}
    for number, label in database.rows_of(OWNERS, labels.tolist()):
        chunks.setdefault(number, []).append(label)
    return [
        Written(number, tuple(sorted(chunks[number])), list(_pairs(database, *row)))
        for number, *row in sorted(database.rows_of(WRITTEN, list(chunks)), key=lambda row: row[0])
    ]


def _pairs(
    database: Database, id: str, title: str | None, metadata: str
) -> Iterator[tuple[str, SqlValue]]:
    try:
        read = json.loads(metadata)
    except ValueError:
        raise damaged(database.path, f"the metadata of document {ascii(id)}") from None
    yield ID, id
    if title is not None:
        yield TITLE, title
    yield from (pair for pair in attributes(read) if pair[0] not in RESERVED)
