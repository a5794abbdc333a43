"""Puts hits, or all documents that a filter keeps, in the order of their metadata.

Numbers come before texts and texts before false and true; descending, it is the other way round. Documents
without a value come last in both. Of a list, the least value counts, descending the greatest.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing

from server.store.documents import Documents
from server.store.filters.sql import CONTAINER, NULL, SqlValue, attributes, in_order, where
from server.store.filters.tree import Filter
from server.store.records import Chunk
from server.store.search import Ranked
from server.store.searching import rows
from server.store.searching.options import SortKey


def put_in_order(
    ranking: Sequence[Ranked], chunks: Mapping[int, Chunk], keys: Sequence[SortKey]
) -> list[Ranked]:
    """Return a ranking in the order of the metadata; equal ones keep the order of their scores."""
    found = list(ranking)
    metadata = {label: attributes(chunks[label].metadata) for label, _ in ranking}
    for key in reversed(keys):
        values = {label: _value(metadata[label], key) for label, _ in ranking}
        there = [each for each in found if values[each[0]] is not None]
        # subtle: a descending sort keeps the order of equal ones too.
        there.sort(key=lambda each: values[each[0]] or (), reverse=key.is_descending)
        found = there + [each for each in found if values[each[0]] is None]
    return found


def _value(pairs: Sequence[tuple[str, SqlValue]], key: SortKey) -> tuple[object, ...] | None:
    values = [in_order(value) for name, value in pairs if name == key.key]
    known = [value for value in values if value[1] not in (NULL, CONTAINER)]
    if not known:
        return None
    return max(known) if key.is_descending else min(known)


def listed(
    documents: Documents, keys: Sequence[SortKey], filter: Filter | None, offset: int, limit: int
) -> list[int]:
    """Return the first chunk's label of documents in order; of equal ones the oldest comes first."""
    numbers = _by_one(documents, keys[0], filter, offset + limit) if len(keys) == 1 else None
    if numbers is None:
        numbers = _by_all(documents, keys, filter, offset + limit)
    page = numbers[offset:]
    first = rows.first_labels(documents, page)
    return [first[number] for number in page]


def _by_one(
    documents: Documents, key: SortKey, filter: Filter | None, number: int
) -> list[int] | None:
    """Return the first documents by one key, which the rows of filters are in the order of.

    Returns None where there are not so many documents with a value.
    """
    condition, parameters = where(filter, "document")
    side = "DESC" if key.is_descending else "ASC"
    found_rows = documents.database.each(
        "SELECT document FROM attributes WHERE key = ? AND value NOT IN (?, ?)"
        f" AND {condition} ORDER BY value {side}, document",
        (key.key, NULL, CONTAINER, *parameters),
    )
    found: dict[int, None] = {}
    with closing(found_rows):
        for (document,) in found_rows:
            # Of a list the first value counts.
            found.setdefault(document)
            if len(found) == number:
                return list(found)
    return None


def _by_all(
    documents: Documents, keys: Sequence[SortKey], filter: Filter | None, number: int
) -> list[int]:
    joins, order, parameters = [], [], list[object]()
    for place, key in enumerate(keys):
        best, side = ("max", "DESC") if key.is_descending else ("min", "ASC")
        joins.append(
            f"LEFT JOIN (SELECT document, {best}(value) AS value FROM attributes"
            " WHERE key = ? AND value NOT IN (?, ?) GROUP BY document)"
            f" AS sort{place} ON sort{place}.document = number"
        )
        order.append(f"sort{place}.value IS NULL, sort{place}.value {side}")
        parameters += [key.key, NULL, CONTAINER]
    condition, of_filter = where(filter, "number")
    numbers = documents.database.rows(
        f"SELECT number FROM documents {' '.join(joins)} WHERE {condition}"
        f" ORDER BY {', '.join(order)}, number LIMIT ?",
        (*parameters, *of_filter, number),
    )
    return [number for (number,) in numbers]
