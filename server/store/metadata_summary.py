"""The keys of a collection's metadata and their most frequent values, for people who choose a filter.

A small collection is counted whole, in the rows that filters read. Of a large one, documents at even distances
are read, and their rows are counted in the same way.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from server.store.documents import Documents
from server.store.filters.kinds import STORED, stored_kinds
from server.store.filters.sql import LONG_TEXT, TRUE, attributes
from server.store.sqlite.database import in_memory
from server.store.sqlite.read_limit import within_limit

Kind = Literal["number", "text", "date", "boolean", "mixed"]
# Documents of a collection that is counted whole: 63,762 with 5 keys take 0.1 s.
WHOLE = 100_000
SAMPLE = 2_000
MOST_KEYS, MOST_VALUES = 100, 20
DATE = re.compile(r"\d{4}-\d\d(-\d\d([T ]\d\d:\d\d\S*)?)?")

# One key after the other, without a look at the rows between.
KEYS = f"""
    WITH RECURSIVE each (key) AS (
        SELECT min(key) FROM attributes UNION ALL
        SELECT (SELECT min(key) FROM attributes WHERE key > each.key) FROM each WHERE key IS NOT NULL
        LIMIT {MOST_KEYS + 2}
    )
    SELECT key FROM each WHERE key IS NOT NULL"""
SCALAR = "typeof(value) <> 'blob' OR value IN (CAST('true' AS BLOB), CAST('false' AS BLOB))"
VALUES = f"""
    SELECT value, number FROM (
        SELECT value, count(*) AS number FROM attributes WHERE key = ? AND ({SCALAR}) GROUP BY value
    ) ORDER BY number DESC, value LIMIT {MOST_VALUES + 1}"""
NUMBER = "SELECT count(DISTINCT document) FROM attributes WHERE key = ?"
BOUNDS = "SELECT min(value), max(value) FROM attributes WHERE key = ? AND value < ''"
# Numbers of documents at or after others.
NEAREST = """
    SELECT DISTINCT (SELECT min(number) FROM documents WHERE number >= value) FROM json_each(?)"""

Rows = Callable[[str, Sequence[object]], list[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class ValueCount:
    value: str | int | float | bool
    documents: int


@dataclass(frozen=True, slots=True)
class KeySummary:
    """A key and its values; one inside an object has a path with dots.

    documents: that have the key. values: the most frequent first. complete: there are no other values.
    least, greatest: of its numbers.
    """

    key: str
    kind: Kind
    documents: int
    values: list[ValueCount]
    complete: bool
    least: float | None
    greatest: float | None


@dataclass(frozen=True, slots=True)
class MetadataSummary:
    """The keys in the order of their names.

    documents: that were looked at, of `total`. more_keys: there are others than these.
    """

    keys: list[KeySummary]
    documents: int
    total: int
    more_keys: bool

    @property
    def sampled(self) -> bool:
        return self.documents < self.total


def metadata_summary(documents: Documents, whole: int = WHOLE) -> MetadataSummary:
    """Describe the metadata, of all documents where there are at most `whole`, else of a sample."""
    total = documents.count()
    if total <= whole:
        return _summary(documents.database.rows, total, total)
    numbers = _spread(documents, min(SAMPLE, whole))
    with in_memory() as sample:
        sample.execute(
            "CREATE TABLE attributes (key, value, document, PRIMARY KEY (key, value, document))"
            " WITHOUT ROWID"
        )
        for number in within_limit(numbers):
            for _, document in documents.page(number - 1, 1):
                pairs = [(*pair, number) for pair in attributes(document.metadata)]
                sample.executemany("INSERT INTO attributes VALUES (?, ?, ?)", pairs)

        def rows(query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
            return sample.execute(query, parameters).fetchall()

        return _summary(rows, len(numbers), total)


def _spread(documents: Documents, most: int) -> list[int]:
    """Return numbers of documents at even distances, about as many as `most`."""
    ((low, high),) = documents.database.rows("SELECT min(number), max(number) FROM documents")
    wanted = [low + (high - low) * place // most for place in range(most)]
    return [number for (number,) in documents.database.rows(NEAREST, (json.dumps(wanted),))]


def _summary(rows: Rows, documents: int, total: int) -> MetadataSummary:
    keys = [key for (key,) in rows(KEYS, ())]
    found = [_key(rows, key) for key in within_limit(keys[:MOST_KEYS])]
    # An object has a row of its own; what it holds stands under other keys.
    summaries = [each for each in found if each is not None]
    return MetadataSummary(summaries, documents, total, len(keys) > MOST_KEYS)


def _key(rows: Rows, key: str) -> KeySummary | None:
    values = rows(VALUES, (key,))
    if not values:
        return None
    ((documents,),) = rows(NUMBER, (key,))
    ((least, greatest),) = rows(BOUNDS, (key,))
    shown = [
        ValueCount(value == TRUE if isinstance(value, bytes) else value, number)
        for value, number in values[:MOST_VALUES]
        # A long text is stored as its beginning and a digest, which no filter could be given.
        if not (isinstance(value, str) and len(value) > LONG_TEXT)
    ]
    return KeySummary(
        key,
        _kind(rows, key, shown),
        documents,
        shown,
        len(shown) == len(values),
        _number(least),
        _number(greatest),
    )


def _kind(rows: Rows, key: str, shown: Sequence[ValueCount]) -> Kind:
    ((_, *there),) = rows(*stored_kinds([key]))
    kinds = {kind for kind, is_there in zip(STORED, there, strict=True) if is_there}
    kinds.discard("object or empty list")
    if kinds == {"text"}:
        dates = [DATE.fullmatch(str(each.value)) for each in shown]
        return "date" if dates and all(dates) else "text"
    if kinds == {"number"}:
        return "number"
    return "boolean" if kinds == {"true or false"} else "mixed"


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) else None
