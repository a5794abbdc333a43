"""Conditions of a filter that no stored value can meet because of its kind, and sentences that say so.

A number never equals a text and never compares with one. So {"year": {"$gte": 2020}} finds nothing
where every stored year is a text, as from a file whose columns are all texts. And {"year": {"$ne": 2020}}
excludes nothing there. A date in another form than the stored ones is a text like any other: '2024/1/5'
comes after every '2024-12-31'. And a number of more than 64 bits, or a long text, is compared by its beginning
alone. Nothing here touches a database.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from server.store.filters.tree import (
    MAX_PART,
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
    Scalar,
    shown,
)

Kind = Literal["number", "text", "true or false", "object or empty list"]

# Conditions on `attributes.value`; see `sql` for how values are stored.
STORED: Mapping[Kind, str] = {
    "number": "value < ''",
    "text": "value >= '' AND value < x''",
    "true or false": "value IN (CAST('true' AS BLOB), CAST('false' AS BLOB))",
    "object or empty list": "value = CAST('{}' AS BLOB)",
}
MOST_WARNINGS = 10
# A date as people write it, and as it sorts by time.
DATE = re.compile(r"[0-9]{4}[-/.年][0-9]{1,2}[-/.月][0-9]{1,2}(?![0-9]).*", re.DOTALL)
SORTED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?![0-9]).*", re.DOTALL)
# The same in SQL, and values of a key that are looked at for one.
SORTED_GLOB = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*"
MOST_VALUES = 100


@dataclass(frozen=True, slots=True)
class Operand:
    """A field of a condition and the kinds of what it is compared with.

    negated: the condition stands below $ne, $nin or $not, so a document is kept where it does not hold.
    date: a text of the condition that is a date and does not sort by time. rough: a value of the condition that
    is not compared to its last digit or character.
    """

    key: str
    kinds: frozenset[Kind]
    negated: bool = False
    date: str | None = None
    rough: int | str | None = None


def operands(filter: Filter, negated: bool = False) -> Iterator[Operand]:
    """Yield the conditions on metadata that compare; null compares with every document."""
    match filter:
        case AllOf(conditions) | AnyOf(conditions):
            for condition in conditions:
                yield from operands(condition, negated)
        case Not(condition):
            yield from operands(condition, not negated)
        case _ if filter.key in RESERVED:
            return
        case Compared(key, _, operand):
            kinds = frozenset([_kind(operand)])
            yield Operand(key, kinds, negated, _date([operand]), _rough([operand], of_texts=True))
        case Contains(key) | Begins(key):
            yield Operand(key, frozenset(["text"]), negated)
        case OneOf(key, values) if values and None not in values:
            kinds = frozenset(map(_kind, values))
            yield Operand(key, kinds, negated, _date(values), _rough(values, of_texts=False))
        case OneOf() | Exists():
            return


def stored_kinds(keys: Sequence[str]) -> tuple[str, list[str]]:
    """Return SQL and its parameters: rows of a key and, for each kind of STORED, whether it is stored."""
    tests = (
        f"EXISTS (SELECT 1 FROM attributes WHERE key = column1 AND {test})"
        for test in STORED.values()
    )
    asked = ", ".join(["(?)"] * len(keys))
    return f"SELECT column1, {', '.join(tests)} FROM (VALUES {asked})", [*keys]


def warnings(operands: Iterable[Operand], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return a sentence for each operand that no stored value can meet, or that is compared roughly.

    What no value can meet finds nothing, or excludes nothing. rows: what `stored_kinds` selects for their keys.
    """
    kinds = {
        row[0]: [kind for kind, there in zip(STORED, row[1:], strict=True) if there] for row in rows
    }
    found = [
        f"{_effect(each)}: the filter compares it with {_listed(sorted(each.kinds))}, and every"
        f" stored value is {_listed(kinds[each.key])}"
        for each in operands
        if kinds[each.key] and each.kinds.isdisjoint(kinds[each.key])
    ]
    found += [
        _rough_warning(each.key, each.rough)
        for each in operands
        if each.rough is not None and _kind(each.rough) in kinds[each.key]
    ]
    return found[:MOST_WARNINGS]


def stored_date(key: str) -> tuple[str, list[str | int]]:
    """Return SQL and its parameters: a stored value of a key that is a date and sorts by time."""
    values = "SELECT value FROM attributes WHERE key = ? AND value >= '0' AND value < ':' LIMIT ?"
    query = f"SELECT value FROM ({values}) WHERE value GLOB ? LIMIT 1"
    return query, [key, MOST_VALUES, SORTED_GLOB]


def date_warning(operand: Operand, stored: str) -> str:
    """Return the sentence for a date in another form than a stored one."""
    return (
        f"the condition on {shown(operand.key)} compares {shown(operand.date)} as a text with dates such as"
        f" {shown(stored)}, by their characters and not by time: write the date in that form"
    )


def _date(values: Iterable[Scalar]) -> str | None:
    """Return the first text that is a date and does not sort by time."""
    texts = (value for value in values if isinstance(value, str))
    return next(
        (each for each in texts if DATE.fullmatch(each) and not SORTED.fullmatch(each)), None
    )


def _rough(values: Iterable[Scalar], *, of_texts: bool) -> int | str | None:
    """Return the first value that is not compared to its end; of_texts: texts are put in order."""
    for value in values:
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            return value
        if of_texts and isinstance(value, str) and len(value) > MAX_PART:
            return value
    return None


def _rough_warning(key: str, value: int | str) -> str:
    if isinstance(value, str):
        return (
            f"the condition on {shown(key)} compares with a text of {len(value)} characters, and the order of"
            f" texts is that of their first {MAX_PART}: give a shorter text"
        )
    return (
        f"the condition on {shown(key)} compares with {shown(value)}, which has more than 64 bits, as a"
        " floating-point number: numbers that differ in their last digits match too; store such numbers as texts"
    )


def _effect(operand: Operand) -> str:
    key = shown(operand.key)
    if operand.negated:
        return f"the condition on {key} excludes no document"
    return f"no value of {key} can match"


def _kind(value: Scalar) -> Kind:
    if isinstance(value, bool):
        return "true or false"
    return "text" if isinstance(value, str | Instant) else "number"


def _listed(kinds: Sequence[Kind]) -> str:
    named = {"true or false": "true or false", "object or empty list": "an object or empty list"}
    return " or ".join(named.get(kind, f"a {kind}") for kind in kinds)
