"""Filters on documents: parsed from JSON, validated, and kept as a tree that any store can translate.

A filter is a JSON object in the manner of MongoDB and Chroma:

    {"city": "深圳", "year": {"$gte": 2020, "$lt": 2024}}        both must hold
    {"$or": [{"author.name": "李白"}, {"tags": {"$in": ["诗", "词"]}}]}

A field is a name, or a path of names with dots. A condition on a stored list holds if it holds for
one element. A missing field equals null and nothing else. $ne, $nin and $not keep exactly what their
counterparts leave out: documents that lack the field too, and of {"$ne": null} those that have a
value. Numbers compare with numbers only, and texts with texts, by code point. {"$date": "2024-01-01T08:00+08:00"}
compares with texts that are dates or times, as instants. $contains and $prefix look into texts. "$id", "$title" and
"$text" are fields beside metadata.

`parse` is the only way in, so a tree is always within the limits below. `sql` translates it.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from server.errors import InvalidRequest
from server.store.filters.instants import instant


@dataclass(frozen=True, slots=True)
class Instant:
    """A date or time, in microseconds since 1970."""

    microseconds: int


Scalar = str | int | float | bool | Instant | None
Sign = Literal[">", ">=", "<", "<="]

MAX_DEPTH = 16
# A condition costs 5 us to compile. SQLite takes 32,766 parameters a statement, and expressions 1,000
# deep. Over 63,762 documents (2026-11-24, AMD EPYC): an equality that keeps 1 in 100 takes 0.2 ms, a
# range that keeps 1 in 10, or all, 35 to 40 ms, and 256 times $ne, the worst, 0.6 s.
MAX_CONDITIONS = 256
MAX_LISTED = 1_000
MAX_VALUES = 10_000
SHOWN = 60  # characters of a wrong value in a message

SIGNS: Mapping[str, Sign] = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
SIDES: Mapping[Sign, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
TAKES = {
    "$in": "a list",
    "$nin": "a list",
    "$exists": "true or false",
    "$not": "an object of operators (for one value there is $ne)",
    "$contains": "a text",
    "$prefix": "a text",
}
OPERATORS = ("$eq", "$ne", *SIGNS, *TAKES)
JUNCTIONS = ("$and", "$or")
# Fields beside metadata. A field of metadata cannot be asked for by such a name.
ID, TITLE, TEXT = "$id", "$title", "$text"
RESERVED = (ID, TITLE, TEXT)
DATE = "$date"
# Characters of what $contains and $prefix look for. Of a longer value of metadata, filters read so many.
MAX_PART = 256


# subtle: 1, 1.0 and True are equal in Python, so trees that differ in them are equal too. Their
# `repr` tells them apart.


@dataclass(frozen=True, slots=True)
class OneOf:
    """The field has one of these values; None among them also stands for a missing field."""

    key: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """The field has a value of the operand's kind on this side of it."""

    key: str
    sign: Sign
    operand: str | int | float | Instant


@dataclass(frozen=True, slots=True)
class Contains:
    """The field has a text with this part, in its first MAX_PART characters if it is of metadata."""

    key: str
    part: str


@dataclass(frozen=True, slots=True)
class Begins:
    """The field has a text that begins like this."""

    key: str
    prefix: str


@dataclass(frozen=True, slots=True)
class Exists:
    """The field is there, whatever its value."""

    key: str


@dataclass(frozen=True, slots=True)
class Not:
    """The condition does not hold."""

    condition: "Filter"


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every condition holds; without any it keeps every document."""

    conditions: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one condition holds."""

    conditions: tuple["Filter", ...]


Filter: TypeAlias = OneOf | Compared | Contains | Begins | Exists | Not | AllOf | AnyOf


def parse(given: object) -> Filter:
    """Return the tree of a filter; raises InvalidRequest for anything else, or beyond a limit.

    An empty object keeps every document. Inside of a filter it is refused: it is a condition that was
    left out by mistake, and would make the conditions beside it in an $or meaningless.
    """
    parser = _Parser()
    found = AllOf(()) if given == {} else parser.filter(given, 1)
    if parser.n_values > MAX_VALUES:
        raise _refusal(
            f"the filter has {parser.n_values} values and fields, at most {MAX_VALUES}"
            " are allowed; split the request"
        )
    return found


def keys(filter: Filter) -> Iterator[str]:
    """Yield the fields of a filter's conditions, each as often as it is there."""
    match filter:
        case AllOf(conditions) | AnyOf(conditions):
            for condition in conditions:
                yield from keys(condition)
        case Not(condition):
            yield from keys(condition)
        case _:
            yield filter.key


def fixed(filter: Filter) -> bool | None:
    """Return whether a filter keeps every document (True) or none (False), whatever they are.

    None where it depends on the document, as far as its form shows.
    """
    match filter:
        case OneOf(_, values):
            return None if values else False
        case Not(condition):
            inner = fixed(condition)
            return None if inner is None else not inner
        case AllOf(conditions):
            found = {fixed(each) for each in conditions}
            return False if False in found else None if None in found else True
        case AnyOf(conditions):
            found = {fixed(each) for each in conditions}
            return True if True in found else None if None in found else False
    return None


class _Parser:
    """Counts the conditions, and the values and fields, of one filter."""

    def __init__(self) -> None:
        self.n_values = 0
        self._n_conditions = 0

    def filter(self, given: object, depth: int) -> Filter:
        if not isinstance(given, Mapping):
            raise _refusal(f"{shown(given)} is not an object of fields and conditions")
        if depth > MAX_DEPTH:
            raise _refusal(
                f"the filter is nested deeper than {MAX_DEPTH} levels, the most allowed; flatten it"
            )
        if not given:
            raise _refusal(
                "an empty object inside a filter keeps every document; give it a condition, or leave"
                " it out"
            )
        return _all(self._entry(key, value, depth) for key, value in given.items())

    def _entry(self, key: str, value: object, depth: int) -> Filter:
        if key in JUNCTIONS:
            if not isinstance(value, list) or not value:
                raise _refusal(f"{key} takes a list of one or more filters, not {shown(value)}")
            conditions = (self.filter(condition, depth + 1) for condition in value)
            return _all(conditions) if key == "$and" else AnyOf(tuple(conditions))
        if key == "$not":
            return Not(self.filter(value, depth + 1))
        if key.startswith("$") and key not in RESERVED:
            known = ", ".join((*JUNCTIONS, "$not"))
            raise _refusal(
                f"unknown operator {shown(key)}; outside a field there are {known}, and fields beside"
                f" metadata are {', '.join(RESERVED)}"
            )
        return self._field(_text(key), value, depth)

    def _field(self, key: str, value: object, depth: int) -> Filter:
        """Return the condition on a field: a value that it equals, or operators which all hold."""
        if not isinstance(value, Mapping) or DATE in value:
            return self._one_of(key, [value])
        if depth > MAX_DEPTH:
            raise _refusal(f"$not is nested deeper than {MAX_DEPTH} levels, the most allowed")
        if not value:
            raise _refusal(f"{shown(key)} has an empty object; give a value or an operator")
        return _all(self._operator(key, *each, depth) for each in value.items())

    def _operator(self, key: str, operator: str, operand: object, depth: int) -> Filter:
        match operator, operand:
            case "$eq", _:
                return self._one_of(key, [operand])
            case "$ne", _:
                return Not(self._one_of(key, [operand]))
            case (("$in" | "$nin"), list()) if len(operand) > MAX_LISTED:
                raise _refusal(
                    f"{operator} of {shown(key)} has {len(operand)} values, at most {MAX_LISTED}"
                    " are allowed; use several of them in an $or"
                )
            case "$in", list():
                return self._one_of(key, operand)
            case "$nin", list():
                return Not(self._one_of(key, operand))
            case (("$gt" | "$gte" | "$lt" | "$lte"), _):
                return self._compared(key, operator, operand)
            case "$exists", bool():
                self._count(1)
                return Exists(key) if operand else Not(Exists(key))
            case "$contains", str():
                return Contains(key, self._part(key, operator, operand))
            case "$prefix", str():
                return Begins(key, self._part(key, operator, operand))
            case "$not", Mapping():
                return Not(self._field(key, operand, depth + 1))
        if operator in TAKES:
            raise _refusal(
                f"{operator} of {shown(key)} takes {TAKES[operator]}, not {shown(operand)}"
            )
        raise _refusal(
            f"unknown operator {shown(operator)} of {shown(key)}; there are"
            f" {', '.join(OPERATORS)}, and a field of an object is named by its path with dots"
        )

    def _part(self, key: str, operator: str, operand: object) -> str:
        """Return what $contains or $prefix looks for."""
        self._count(2)
        if not isinstance(operand, str) or not 1 <= len(operand) <= MAX_PART:
            raise _refusal(
                f"{operator} of {shown(key)} takes a text of 1 to {MAX_PART} characters, not"
                f" {f'one of {len(operand)}' if isinstance(operand, str) else shown(operand)}"
            )
        return _text(operand)

    def _one_of(self, key: str, operands: list[object]) -> OneOf:
        self._count(1 + len(operands))
        return OneOf(key, tuple(_scalar(key, operand) for operand in operands))

    def _compared(self, key: str, operator: str, operand: object) -> Compared:
        self._count(2)
        value = _scalar(key, operand)
        if value is None or isinstance(value, bool):
            raise _refusal(
                f"{operator} of {shown(key)} takes a number or a text, not {shown(operand)}"
            )
        return Compared(key, SIGNS[operator], value)

    def _count(self, n_values: int) -> None:
        """Count one condition with so many values and fields."""
        self.n_values += n_values
        self._n_conditions += 1
        if self._n_conditions > MAX_CONDITIONS:
            raise _refusal(
                f"the filter has more than {MAX_CONDITIONS} conditions, the most allowed;"
                " use $in for several values of one field"
            )


def _all(conditions: Iterable[Filter]) -> Filter:
    found = tuple(conditions)
    return found[0] if len(found) == 1 else AllOf(found)


def _scalar(key: str, operand: object) -> Scalar:
    if key == TEXT:
        raise _refusal(f"{TEXT} takes $contains or $prefix with a text, not {shown(operand)}")
    if isinstance(operand, Mapping) and DATE in operand:
        return _date(key, operand)
    if key in RESERVED and not (isinstance(operand, str) or (operand is None and key == TITLE)):
        raise _refusal(f"{shown(key)} is compared with texts, not with {shown(operand)}")
    if isinstance(operand, list | Mapping) or operand != operand:
        raise _refusal(
            f"{shown(key)} is compared with {shown(operand)}; give a text, number, true,"
            " false or null, for several of them $in, and for a field of an object its path"
            " with dots"
        )
    return _text(operand) if isinstance(operand, str) else cast(Scalar, operand)


def _date(key: str, operand: Mapping[object, object]) -> Instant:
    given = operand[DATE]
    found = instant(given) if isinstance(given, str) and len(operand) == 1 else None
    if found is None:
        raise _refusal(
            f"{shown(key)} is compared with the date {shown(given)}; give an object with {DATE} alone"
            " and an ISO 8601 text, such as 2024-01-01 or 2024-01-01T08:30:00+08:00"
        )
    return Instant(found)


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _refusal(
            f"{shown(value)} has a lone surrogate at character {error.start}, which is half a"
            " character and not text"
        ) from None
    return value


def shown(value: object) -> str:
    """Return a value as a message shows it: short, and with nothing that cannot be printed."""
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, Mapping):
        return "an object" if value else "an empty object"
    text = repr(value)  # of a text, it escapes what cannot be printed, lone surrogates too
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _refusal(message: str) -> InvalidRequest:
    return InvalidRequest(message, param="filter")
