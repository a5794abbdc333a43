"""Filters in SQL: the rows that are stored of metadata, and the condition that reads them.

Nothing here touches a database. `attributes` and `where` agree on a table
`attributes (key, value, document)` whose value has no declared type.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from server.store.filters.tree import (
    ID,
    MAX_PART,
    RESERVED,
    TEXT,
    TITLE,
    AllOf,
    AnyOf,
    Begins,
    Compared,
    Contains,
    Exists,
    Filter,
    Instant,
    Not,
    OneOf,
    Scalar,
    keys,
)

SqlValue = str | int | float | bytes

# As bytes, because SQLite orders numbers < texts < bytes and none of them equals another kind.
NULL, FALSE, TRUE, CONTAINER = b"null", b"false", b"true", b"{}"
# The least text and the least bytes: where numbers end, and where texts end.
TEXTS, BYTES = "", b""
# A text with more characters than this is stored as its beginning and a digest of the whole. Such
# texts are equal when they were equal, and ordered by their beginnings. So rows stay small.
LONG_TEXT = MAX_PART
IS_TEXT = " AND value >= '' AND value < x''"
# Rows of a field's values, and of the documents that have each.
SOURCES = {
    ID: "SELECT document FROM (SELECT number AS document, id AS value FROM documents) WHERE TRUE",
    TITLE: "SELECT document FROM (SELECT number AS document, title AS value FROM documents)"
    " WHERE value IS NOT NULL",
}
LAST_CHARACTER = 0x10FFFF
SURROGATES = range(0xD800, 0xE000)


def attributes(metadata: Mapping[str, object]) -> list[tuple[str, SqlValue]]:
    """Return key and value of every scalar in `metadata`, as json.loads gives it; each pair once.

    Objects and empty lists also leave a CONTAINER under their own key, so that they exist. Integers
    beyond 64 bits become floats.
    """
    found: dict[tuple[str, SqlValue], None] = {}
    # A stack and no recursion: this module does not limit how deep metadata may be.
    pending: list[tuple[str, object]] = list(metadata.items())[::-1]
    while pending:
        key, value = pending.pop()
        if isinstance(value, Mapping):
            found[(key, CONTAINER)] = None
            pending += [(f"{key}.{name}", inner) for name, inner in value.items()][::-1]
        elif isinstance(value, list):
            if not value:
                found[(key, CONTAINER)] = None
            pending += [(key, element) for element in reversed(value)]
        else:
            # subtle: 1 and 1.0 are one key of a dict, and for SQLite one primary key.
            found[(key, stored_value(value))] = None
    return list(found)


def where(filter: Filter | None, column: str) -> tuple[str, list[SqlValue]]:
    """Return a boolean SQL expression over `column`, which holds document numbers, and its parameters.

    None keeps every document.
    """
    if filter is None:
        return "TRUE", []
    written = _Written(column)
    return f"({written.sql(filter)})", written.parameters


class _Written:
    """Writes SQL from left to right, and collects its parameters."""

    def __init__(self, column: str) -> None:
        self.parameters: list[SqlValue] = []
        self._column = column

    def sql(self, filter: Filter) -> str:
        match filter:
            case AllOf(conditions):
                # Whole texts are read last, of the documents that meet the other conditions.
                ordered = sorted(conditions, key=_reads_texts)
                return f"({' AND '.join(map(self.sql, ordered))})" if conditions else "TRUE"
            case AnyOf(conditions):
                return f"({' OR '.join(map(self.sql, conditions))})"
            case Not(condition):
                return f"NOT {self.sql(condition)}"
            case Exists(key):
                return self._having(key)
            case OneOf(key, values):
                return self._one_of(key, values)
            case Compared(key, sign, Instant(microseconds)):
                return self._having(key, f"{IS_TEXT} AND instant(value) {sign} ?", microseconds)
            case Compared(key, sign, value):
                return self._compared(key, sign, operand(key, value))
            case Contains(key, part) if key == TEXT:
                return self._of_text("has_part(text, ?, 0)", part)
            case Contains(key, part):
                most = 0 if key in RESERVED else LONG_TEXT
                return self._having(key, f"{IS_TEXT} AND has_part(value, ?, ?)", part, most)
            case Begins(key, prefix) if key == TEXT:
                return self._of_text("begins(text, ?)", prefix)
            case Begins(key, prefix):
                end = following(prefix)
                if end is None:
                    return self._having(key, " AND value >= ? AND value < x''", prefix)
                return self._having(key, " AND value >= ? AND value < ?", prefix, end)

    def _having(self, key: str, test: str = "", *values: SqlValue) -> str:
        if key == TEXT:
            return "TRUE"  # every document has one
        source = SOURCES.get(key)
        if source is None:
            self.parameters.append(key)
            source = "SELECT document FROM attributes WHERE key = ?"
        self.parameters += values
        return f"{self._column} IN ({source}{test})"

    def _of_text(self, test: str, value: str) -> str:
        self.parameters.append(value)
        # subtle: a column of the inner table must not have the name of the outer one.
        whole = "(SELECT number AS own, text FROM documents)"
        return f"(SELECT {test} FROM {whole} WHERE own = {self._column})"

    def _one_of(self, key: str, values: Sequence[Scalar]) -> str:
        if not values:
            return "FALSE"
        dates = [value.microseconds for value in values if isinstance(value, Instant)]
        stored = [operand(key, value) for value in values if not isinstance(value, Instant)]
        test = f"value IN ({', '.join('?' * len(stored))})"
        if dates:
            in_dates = f"instant(value) IN ({', '.join('?' * len(dates))})"
            test = f"({test} OR (TRUE{IS_TEXT} AND {in_dates}))"
        sql = self._having(key, f" AND {test}", *stored, *dates)
        return f"({sql} OR NOT {self._having(key)})" if NULL in stored else sql

    def _compared(self, key: str, sign: str, value: SqlValue) -> str:
        # One side is bounded by the operand, the other by where its kind ends; numbers come first.
        text = isinstance(value, str)
        if ">" in sign:
            end = BYTES if text else TEXTS
            return self._having(key, f" AND value {sign} ? AND value < ?", value, end)
        if text:
            return self._having(key, f" AND value {sign} ? AND value >= ?", value, TEXTS)
        return self._having(key, f" AND value {sign} ?", value)


def following(prefix: str) -> str | None:
    """Return the least text behind all that begin like this; None where none of them has one."""
    kept = prefix.rstrip(chr(LAST_CHARACTER))
    if not kept:
        return None
    last = ord(kept[-1]) + 1
    return kept[:-1] + chr(SURROGATES.stop if last in SURROGATES else last)


def _reads_texts(filter: Filter) -> bool:
    return TEXT in keys(filter)


def operand(key: str, value: object) -> SqlValue:
    """Return what a condition on a field compares with; fields beside metadata are stored whole."""
    return value if key in RESERVED and isinstance(value, str) else stored_value(value)


def in_order(value: SqlValue) -> tuple[int, Any]:
    """Return what puts values in the order of SQLite: numbers, texts, bytes."""
    kind = 2 if isinstance(value, bytes) else 1 if isinstance(value, str) else 0
    return kind, value


def stored_value(value: object) -> SqlValue:
    """Return a JSON scalar as it is stored and compared."""
    if isinstance(value, str):
        if len(value) <= LONG_TEXT:
            return value
        digest = hashlib.blake2b(value.encode(), digest_size=16).hexdigest()
        return value[:LONG_TEXT] + digest
    if value is None:
        return NULL
    if isinstance(value, bool):
        return TRUE if value else FALSE
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        try:
            return float(value)
        except OverflowError:
            return float("inf") if value > 0 else float("-inf")
    assert isinstance(value, int | float), f"{type(value)} is not of JSON"
    return value
