"""Conditions of a filter that no stored value can meet because of its kind, and sentences that say so.

A number never equals a text and never compares with one. So {"year": {"$gte": 2020}} finds nothing
where every stored year is a text, as from a file whose columns are all texts. And {"year": {"$ne": 2020}}
excludes nothing there. Nothing here touches a database.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

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


@dataclass(frozen=True, slots=True)
class Operand:
    """A field of a condition and the kinds of what it is compared with.

    negated: the condition stands below $ne, $nin or $not, so a document is kept where it does not hold.
    """

    key: str
    kinds: frozenset[Kind]
    negated: bool = False


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
            yield Operand(key, frozenset([_kind(operand)]), negated)
        case Contains(key) | Begins(key):
            yield Operand(key, frozenset(["text"]), negated)
        case OneOf(key, values) if values and None not in values:
            yield Operand(key, frozenset(_kind(value) for value in values), negated)
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
    """Return a sentence for each operand that no stored value can meet: it finds or excludes nothing.

    rows: what `stored_kinds` selects for their keys.
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
    return found[:MOST_WARNINGS]


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
