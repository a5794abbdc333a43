"""Counts documents by the values of their metadata."""

import json
from collections.abc import Sequence

import numpy as np

from server.store.collection import Collection
from server.store.columns.counting import Counts, chosen, counts
from server.store.documents import Documents
from server.store.filters.sql import SqlValue, where
from server.store.filters.tree import Filter
from server.store.searching.found import Facet, Value, value_of
from server.store.searching.rows import owners
from server.types import Labels

# SQL and its parameters.
Condition = tuple[str, Sequence[object]]
MOST_VALUES = 20
SCALAR = "(typeof(value) <> 'blob' OR value IN (CAST('true' AS BLOB), CAST('false' AS BLOB)))"


def facets(
    collection: Collection, keys: Sequence[str], among: Filter | Labels | None
) -> list[Facet]:
    """Count documents by their values of each key, inside `Collection.reading`.

    among: a filter, or ascending labels of chunks of the documents that are counted; None for all.
    """
    columns, documents = collection.columns(), collection.documents
    # What is counted among is the same for all keys.
    masks = None if columns is None else chosen(columns, among, documents.database)
    condition: Condition | None = None
    found = []
    for key in keys:
        counted = None
        if columns is not None and masks is not None:
            counted = counts(columns, key, masks, MOST_VALUES, documents.database)
        if counted is None:
            condition = condition or _condition(documents, among)
            found.append(_facet(documents, key, *condition))
        else:
            found.append(_of(key, counted))
    return found


def _of(key: str, counted: Counts) -> Facet:
    shown = [(_value(value), number) for value, number in counted.values]
    return Facet(key, shown, counted.documents, counted.is_complete)


def _condition(documents: Documents, among: Filter | Labels | None) -> Condition:
    if isinstance(among, np.ndarray):
        owned = json.dumps(owners(documents, among))
        return "document IN (SELECT value FROM json_each(?))", [owned]
    return where(among, "document")


def _facet(documents: Documents, key: str, condition: str, parameters: Sequence[object]) -> Facet:
    """Count in SQL, where the columns are not in memory."""
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


def _value(stored: SqlValue) -> Value:
    if isinstance(stored, float) and stored.is_integer():
        # Whole numbers among fractions are kept as fractions in memory.
        return int(stored)
    return value_of(stored)
