"""Filters in plain Python: whether a document's own metadata meets a filter.

`sql` reads the rows of `attributes`, which have no checksum. Metadata has one. So a hit whose metadata does
not meet the query's filter shows that those rows were changed. Nothing here touches a database.
"""

from collections.abc import Iterable, Iterator, Mapping

from server.store.filters.functions import has_part
from server.store.filters.instants import instant
from server.store.filters.sql import LONG_TEXT, SqlValue, attributes, operand
from server.store.filters.tree import (
    RESERVED,
    SIDES,
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
    Sign,
    keys,
)

Values = Mapping[str, list[SqlValue]]


def matches(
    filter: Filter, metadata: Mapping[str, object], beside: Mapping[str, str | None] | None = None
) -> bool | None:
    """Return whether the filter keeps a document with this metadata, as its SQL does.

    beside: its values of RESERVED fields. None where it depends on one that is not given.
    """
    values: dict[str, list[SqlValue]] = {}
    # A filter asks for few fields of many.
    names = {name for key in keys(filter) for name in _names(key)}
    asked = {name: metadata[name] for name in names if name in metadata}
    for key, value in attributes(asked):
        if key not in RESERVED:
            values.setdefault(key, []).append(value)
    known = set(beside or {})
    for key, text in (beside or {}).items():
        if text is not None:
            values[key] = [text]
    return _holds(filter, values, set(RESERVED) - known)


def _names(key: str) -> Iterator[str]:
    """Yield the names that a field may have in metadata: of a.b they are a.b, and a with b inside."""
    yield key
    while "." in key:
        key = key.rpartition(".")[0]
        yield key


def _holds(filter: Filter, values: Values, unknown: set[str]) -> bool | None:
    match filter:
        case AllOf(conditions):
            return _all(_holds(each, values, unknown) for each in conditions)
        case AnyOf(conditions):
            return _not(_all(_not(_holds(each, values, unknown)) for each in conditions))
        case Not(condition):
            return _not(_holds(condition, values, unknown))
        case _ if filter.key in unknown:
            return None
        case Exists(key):
            return key in values
        case OneOf(key, operands):
            if key not in values:
                return None in operands
            return any(_equals(key, value, operands) for value in values[key])
        case Compared(key, sign, bound):
            return any(_compares(key, value, sign, bound) for value in values.get(key, ()))
        case Contains(key, part):
            most = 0 if key in RESERVED else LONG_TEXT
            return any(has_part(text, part, most) for text in _texts(key, values))
        case Begins(key, prefix):
            return any(text.startswith(prefix) for text in _texts(key, values))


def _all(found: Iterable[bool | None]) -> bool | None:
    every = set(found)
    return False if False in every else None if None in every else True


def _not(found: bool | None) -> bool | None:
    return None if found is None else not found


def _texts(key: str, values: Values) -> list[str]:
    return [value for value in values.get(key, ()) if isinstance(value, str)]


def _equals(key: str, value: SqlValue, operands: Iterable[object]) -> bool:
    when = instant(value) if isinstance(value, str) else None
    return any(
        when == each.microseconds if isinstance(each, Instant) else value == operand(key, each)
        for each in operands
    )


def _compares(key: str, value: SqlValue, sign: Sign, given: str | int | float | Instant) -> bool:
    """Compare two numbers, two texts by code point, or two instants; no others ever compare."""
    if isinstance(given, Instant):
        when = instant(value) if isinstance(value, str) else None
        return when is not None and SIDES[sign](when, given.microseconds)
    bound = operand(key, given)
    if isinstance(value, str) and isinstance(bound, str):
        return SIDES[sign](value, bound)
    if isinstance(value, int | float) and isinstance(bound, int | float):
        return SIDES[sign](value, bound)
    return False
