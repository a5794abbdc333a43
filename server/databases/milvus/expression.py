"""Filters as expressions of Milvus, over the marks and bounds of a document.

Every comparison stands beside the mark that says that there is something to compare. So no part of an expression is
ever unknown, and `not` keeps exactly what its condition leaves out, whatever an engine makes of missing paths.
"""

from collections.abc import Iterable

from server.databases.milvus.marks import (
    EDGE,
    Order,
    at_instant,
    bound,
    equals,
    exists,
    field,
    instant_bound,
    pattern,
    place,
    several,
    single,
    text_bound,
    whole_bound,
)
from server.errors import InvalidRequest
from server.store.filters.sql import NULL, operand
from server.store.filters.tree import (
    RESERVED,
    TEXT,
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
    Sign,
)

# Contains and Begins are not among them: they are evaluated of every field but of the whole text, which is in pieces.
CONDITIONS: frozenset[type] = frozenset({OneOf, Compared, Exists, Not, AllOf, AnyOf})
EVERY, NONE = "label >= 0", "label < 0"


def expression(filter: Filter | None) -> str:
    """Return the expression of a filter; raises InvalidRequest for a condition that Milvus cannot evaluate."""
    match filter:
        case None:
            return EVERY
        case AllOf(conditions):
            return _joined(" and ", map(expression, conditions)) if conditions else EVERY
        case AnyOf(conditions):
            return _joined(" or ", map(expression, conditions)) if conditions else NONE
        case Not(condition):
            return f"not ({expression(condition)})"
        case Exists(key):
            return EVERY if key == TEXT else _has([exists(key)])
        case OneOf(key, values):
            return _one_of(key, values)
        case Compared(key, sign, Instant(microseconds)):
            return _compared(key, "instant", sign, instant_bound(microseconds))
        case Compared(key, sign, value):
            stored = operand(key, value)
            if isinstance(stored, str):
                written = whole_bound(stored) if key in RESERVED else text_bound(stored)
                return _compared(key, "text", sign, written)
            assert isinstance(stored, int | float), "true, false and null are not compared"
            return _compared(key, "number", sign, bound(stored))
        case Contains(key, part):
            return _like(key, "$contains", f"%{pattern(part)}%")
        case Begins(key, prefix):
            return _like(key, "$prefix", f"%{EDGE}{pattern(prefix)}%")


def all_of(*expressions: str) -> str:
    """Return the expression that holds where all of these do."""
    return _joined(" and ", (each for each in expressions if each != EVERY)) or EVERY


def among(field: str, values: Iterable[int] | Iterable[str]) -> str:
    """Return the expression that holds for these values of a field: labels, or hashes."""
    written = (f'"{each}"' if isinstance(each, str) else str(int(each)) for each in values)
    return f"{field} in [{', '.join(written)}]"


def _one_of(key: str, values: Iterable[Scalar]) -> str:
    wanted, missing = [], False
    for value in values:
        if isinstance(value, Instant):
            wanted.append(at_instant(key, value.microseconds))
            continue
        stored = operand(key, value)
        wanted.append(equals(key, stored))
        missing = missing or stored == NULL
    if not wanted:
        return NONE
    return f"({_has(wanted)} or not {_has([exists(key)])})" if missing else _has(wanted)


def _compared(key: str, order: Order, sign: Sign, written: str) -> str:
    name = place(key, order)
    end = "h" if ">" in sign else "l"
    one = f'({_has([single(key, order)])} and bounds["{name}"] {sign} "{written}")'
    more = f'({_has([several(key, order)])} and bounds["{name}{end}"] {sign} "{written}")'
    return f"({one} or {more})"


def _like(key: str, operator: str, wanted: str) -> str:
    if key == TEXT:
        raise InvalidRequest(
            f"{operator} on {TEXT} cannot be evaluated by Milvus, which holds long texts in pieces; search for"
            " the words instead, or store what is to be filtered as metadata",
            param="filter",
        )
    there = _has([single(key, "text"), several(key, "text")])
    name = place(key, "text")
    return f'({there} and bounds["{name}"] like "{wanted}")'


def _has(marks: list[str]) -> str:
    """Return the expression of documents with one of these marks."""
    found: dict[str, list[str]] = {}
    for mark in marks:
        found.setdefault(field(mark), []).append(f'"{mark}"')
    return _joined(
        " or ",
        (
            f"array_contains({name}, {listed[0]})"
            if len(listed) == 1
            else f"array_contains_any({name}, [{', '.join(listed)}])"
            for name, listed in found.items()
        ),
    )


def _joined(word: str, expressions: Iterable[str]) -> str:
    found = list(expressions)
    return f"({word.join(found)})" if len(found) > 1 else "".join(found)
