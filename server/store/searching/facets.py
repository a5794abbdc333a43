"""Counts documents by the values of their metadata."""

import json
from collections.abc import Sequence

from server.store.documents import Documents
from server.store.filters.sql import LONG_TEXT, TRUE, where
from server.store.filters.tree import Filter
from server.store.searching.found import Facet, Value

MOST_VALUES = 20
SCALAR = "(typeof(value) <> 'blob' OR value IN (CAST('true' AS BLOB), CAST('false' AS BLOB)))"


def facets(
    documents: Documents,
    keys: Sequence[str],
    filter: Filter | None,
    numbers: Sequence[int] | None = None,
) -> list[Facet]:
    """Count the documents that the filter keeps by their values of each key.

    numbers: of the documents that are counted instead.
    """
    if numbers is None:
        condition, parameters = where(filter, "document")
    else:
        condition = "document IN (SELECT value FROM json_each(?))"
        parameters = [json.dumps(list(numbers))]
    return [_facet(documents, key, condition, parameters) for key in keys]


def _facet(documents: Documents, key: str, condition: str, parameters: Sequence[object]) -> Facet:
    rows = documents.database.rows(
        "SELECT value, count(*) AS number FROM attributes"
        f" WHERE key = ? AND {SCALAR} AND {condition}"
        f" GROUP BY value ORDER BY number DESC, value LIMIT {MOST_VALUES + 1}",
        (key, *parameters),
    )
    ((number,),) = documents.database.rows(
        f"SELECT count(DISTINCT document) FROM attributes WHERE key = ? AND {SCALAR} AND {condition}",
        (key, *parameters),
    )
    shown = [(_value(value), count) for value, count in rows[:MOST_VALUES]]
    return Facet(key, shown, number, len(rows) <= MOST_VALUES)


def _value(stored: object) -> Value:
    if isinstance(stored, bytes):
        return stored == TRUE
    assert isinstance(stored, int | float | str)
    # A longer text is stored as its beginning and a digest.
    return stored[:LONG_TEXT] if isinstance(stored, str) else stored
