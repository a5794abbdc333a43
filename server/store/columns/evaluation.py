"""Which rows of a segment a filter keeps."""

from collections.abc import Callable

import numpy as np

from server.store.columns.column import Column
from server.store.filters.sql import NULL, operand
from server.store.filters.tree import AllOf, AnyOf, Compared, Exists, Filter, Not, OneOf
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
        case OneOf(key, values):
            stored = [operand(key, value) for value in values]
            found = column(key).equal(stored)
            return found | ~column(key).present() if NULL in stored else found
        case Compared(key, sign, value):
            return column(key).compared(sign, operand(key, value))
