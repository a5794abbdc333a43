"""Filters in plain Python: whether a document's own metadata meets a filter.

`sql` reads the rows of `attributes`, which have no checksum. Metadata has one. So a hit whose
metadata does not meet the query's filter shows that those rows were changed. Nothing here touches a
database.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any

from server.store.filters.sql import NULL, SqlValue, attributes, stored_value
from server.store.filters.tree import AllOf, AnyOf, Compared, Exists, Filter, Not, OneOf, Sign

SIDES: Mapping[Sign, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


def matches(filter: Filter, metadata: Mapping[str, object]) -> bool:
    """Return whether the filter keeps a document with this metadata, as its SQL does."""
    values: dict[str, list[SqlValue]] = {}
    for key, value in attributes(metadata):
        values.setdefault(key, []).append(value)
    return _holds(filter, values)


def _holds(filter: Filter, values: Mapping[str, list[SqlValue]]) -> bool:
    match filter:
        case AllOf(conditions):
            return all(_holds(each, values) for each in conditions)
        case AnyOf(conditions):
            return any(_holds(each, values) for each in conditions)
        case Not(condition):
            return not _holds(condition, values)
        case Exists(key):
            return key in values
        case OneOf(key, operands):
            wanted = [stored_value(operand) for operand in operands]
            if key not in values:
                return NULL in wanted
            return any(value in wanted for value in values[key])
        case Compared(key, sign, operand):
            bound = stored_value(operand)
            return any(_compares(value, sign, bound) for value in values.get(key, ()))


def _compares(value: SqlValue, sign: Sign, bound: SqlValue) -> bool:
    """Compare two numbers, or two texts by code point; values of different kinds never compare."""
    if isinstance(value, str) and isinstance(bound, str):
        return SIDES[sign](value, bound)
    if isinstance(value, int | float) and isinstance(bound, int | float):
        return SIDES[sign](value, bound)
    return False
