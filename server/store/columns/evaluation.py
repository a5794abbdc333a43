"""Which rows of a segment a filter keeps."""

import sys
from collections.abc import Callable

import numpy as np

from server.store.columns.column import Column
from server.store.filters.sql import LONG_TEXT, NULL, operand
from server.store.filters.tree import (
    RESERVED,
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
)
from server.store.selection import Mask
from server.store.sqlite.read_limit import check

ColumnOf = Callable[[str], Column]


def kept(filter: Filter, n_rows: int, column: ColumnOf) -> Mask:
    """Return the rows that the filter keeps: bool (n_rows,); column: of a key."""
    check()
    match filter:
        case AllOf(conditions) if not conditions:
            return np.ones(n_rows, dtype=np.bool_)
        case AllOf(conditions) | AnyOf(conditions):
            found = kept(conditions[0], n_rows, column)
            join = np.logical_and if isinstance(filter, AllOf) else np.logical_or
            for condition in conditions[1:]:
                found = join(found, kept(condition, n_rows, column), out=found)
            return found
        case Not(condition):
            return ~kept(condition, n_rows, column)
        case Exists(key):
            return column(key).present()
        case Contains(key, part):
            return column(key).having(part, sys.maxsize if key in RESERVED else LONG_TEXT)
        case Begins(key, prefix):
            return column(key).beginning_with(prefix)
        case OneOf(key, values):
            dates = [value.microseconds for value in values if isinstance(value, Instant)]
            stored = [operand(key, value) for value in values if not isinstance(value, Instant)]
            found = column(key).equal(stored)
            for date in dates:
                found = found | column(key).at("==", date)
            return found | ~column(key).present() if NULL in stored else found
        case Compared(key, sign, Instant(microseconds)):
            return column(key).at(sign, microseconds)
        case Compared(key, sign, value):
            return column(key).compared(sign, operand(key, value))
