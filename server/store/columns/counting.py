"""Counts the documents of each value of a field, in memory.

Values have places in a column, and the places of one part of the collection mean nothing in another. So the
largest part is counted by places, and the values of the others, which are few, are added one by one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from server.store.columns.column import Column, OneEach, Rows, Several
from server.store.columns.columns import Columns
from server.store.filters.sql import FALSE, TRUE, SqlValue, in_order
from server.store.filters.tree import Filter
from server.store.selection import Mask
from server.store.sqlite.database import Database
from server.types import Labels


@dataclass(frozen=True, slots=True)
class Counts:
    """How many documents have each of the most frequent values, the most frequent first.

    documents: that have any. is_complete: there are no other values.
    """

    values: Sequence[tuple[SqlValue, int]]
    documents: int
    is_complete: bool


def chosen(
    columns: Columns, among: Filter | Labels | None, database: Database
) -> list[Mask] | None:
    """Return the rows of each part that are counted; None where a column that it needs is not in memory.

    among: a filter, or labels of chunks of the documents that are counted; None for all. database: in a
    snapshot of the moment of the columns.
    """
    if among is None:
        return [segment.alive for segment in columns.segments]
    if isinstance(among, np.ndarray):
        return [segment.having(among) for segment in columns.segments]
    parts = columns.rows(among, database)
    return None if parts is None else [mask for _, mask in parts]


def counts(
    columns: Columns, key: str, masks: Sequence[Mask], most: int, database: Database
) -> Counts | None:
    """Count the values of a key; None where its column is not in memory.

    null, objects and empty lists are no values. masks: of `chosen`. database: as for `chosen`.
    """
    parts = columns.parts([key], database)
    if parts is None:
        return None
    base, by_place, documents = None, np.empty(0, dtype=np.int64), 0
    others: dict[SqlValue, int] = {}
    for (_, column_of), mask in zip(parts, masks, strict=True):
        column = column_of(key)
        found, number = _counted(column, mask)
        documents += number
        if base is None:
            base, by_place = column, found
            continue
        for place in np.flatnonzero(found).tolist():
            value = column.value(place)
            others[value] = others.get(value, 0) + int(found[place])
    assert base is not None
    return _most(base, by_place, others, documents, most)


def _counted(column: Column, mask: Mask) -> tuple[Rows, int]:
    """Return how many rows of the mask have each value, and how many have any."""
    is_value = np.ones(column.n_values, dtype=np.bool_)
    is_value[column.n_values - len(column.others) :] = [
        value in (FALSE, TRUE) for value in column.others
    ]
    match column.cells:
        case OneEach(places, n_values):
            found = np.bincount(places[mask], minlength=n_values + 1)[:n_values]
        case Several(rows, ends, _):
            until = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(mask[rows])])
            found = np.diff(until[ends])
        case other:
            raise AssertionError(other)
    found = np.where(is_value, found, 0)
    return found, int(np.count_nonzero(column.cells.of(is_value) & mask))


def _most(
    base: Column, by_place: Rows, others: dict[SqlValue, int], documents: int, most: int
) -> Counts:
    """Return the most frequent values of all parts; equal ones in the order of the values."""
    only_there: list[tuple[SqlValue, int]] = []
    for value, number in others.items():
        place = base.place(value)
        if place is None:
            only_there.append((value, number))
        else:
            by_place[place] += number
    n_values = int(np.count_nonzero(by_place)) + len(only_there)
    every = [(base.value(place), int(by_place[place])) for place in _greatest(by_place, most)]
    every += only_there
    every.sort(key=lambda each: (-each[1], in_order(each[0])))
    return Counts(every[:most], documents, n_values <= most)


def _greatest(by_place: Rows, most: int) -> Iterator[int]:
    """Yield the places of the greatest counts, of equal ones the first."""
    if len(by_place) > most:
        least = np.partition(by_place, -most)[-most]
        first = np.flatnonzero(by_place > least)
        equal = np.flatnonzero(by_place == least)[: most - len(first)]
        chosen = np.concatenate([first, equal])
    else:
        chosen = np.arange(len(by_place))
    yield from (place for place in chosen.tolist() if by_place[place])
