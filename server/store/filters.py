"""Filters on metadata: the rows that are stored of it, and the SQL that finds documents by them.

A filter is a JSON object in the manner of MongoDB and Chroma:

    {"city": "深圳", "year": {"$gte": 2020, "$lt": 2024}}        both must hold
    {"$or": [{"author.name": "李白"}, {"tags": {"$in": ["诗", "词"]}}]}

A field is a name or a path of names with dots. Where a list is stored, a condition holds if it
holds for one element. A field that is missing equals null, and nothing else: so $ne, $nin and $not
keep documents that lack it, and {"$ne": null} keeps those that have a value. Numbers compare with
numbers only, texts with texts, by code point. Nothing here touches a database: `attributes` and
`where` agree on a table `attributes (key, value, document)` whose value has no declared type.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from server.errors import InvalidRequest

Filter = Mapping[str, object]
SqlValue = str | int | float | bytes

# As bytes, because SQLite orders numbers < texts < bytes and none of them equals another kind.
NULL, FALSE, TRUE, CONTAINER = b"null", b"false", b"true", b"{}"
# The least text and the least bytes: where numbers end, and where texts end.
TEXTS, BYTES = "", b""
# Texts over this many characters are stored as their beginning and a digest of the whole: they are
# equal when they were equal, and ordered by their beginnings. Rows stay small whatever is stored.
LONG_TEXT = 256
SHOWN = 60  # characters of a wrong value in a message

MAX_DEPTH = 16
# A condition costs 5 us to compile. SQLite takes 32,766 parameters a statement, and expressions 1,000
# deep. Over 63,762 documents (2026-11-24, AMD EPYC): an equality that keeps 1 in 100 takes 0.2 ms, a
# range that keeps 1 in 10, or all, 35 to 40 ms, and 256 times $ne, the worst, 0.6 s.
MAX_CONDITIONS = 256
MAX_LISTED = 1_000
MAX_VALUES = 10_000

COMPARISONS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
TAKES = {
    "$in": "a list",
    "$nin": "a list",
    "$exists": "true or false",
    "$not": "an object of operators (for one value there is $ne)",
}
OPERATORS = ("$eq", "$ne", *COMPARISONS, *TAKES)
JUNCTIONS = {"$and": " AND ", "$or": " OR "}


@dataclass(frozen=True, slots=True)
class _Condition:
    """A boolean SQL expression, its parameters, and of how many single conditions it is made."""

    sql: str
    parameters: list[SqlValue]
    count: int = 1

    def negated(self) -> "_Condition":
        return _Condition(f"NOT {self.sql}", self.parameters, self.count)


ANYTHING = _Condition("TRUE", [], 0)
NOTHING = _Condition("FALSE", [])


def attributes(metadata: Mapping[str, object]) -> list[tuple[str, SqlValue]]:
    """Key and value of every scalar in `metadata`, which is as json.loads gives it; each pair once.

    Objects and empty lists also leave a CONTAINER under their own key, so that they exist. Integers
    beyond 64 bits become floats.
    """
    found: dict[tuple[str, SqlValue], None] = {}
    # A stack and not recursion: how deep metadata may be is for others to say.
    pending: list[tuple[str, object]] = list(metadata.items())[::-1]
    while pending:
        key, value = pending.pop()
        if isinstance(value, Mapping):
            found[(key, CONTAINER)] = None
            pending += [(f"{key}.{name}", inner) for name, inner in value.items()][::-1]
        elif isinstance(value, list):
            if not value:
                found[(key, CONTAINER)] = None
            pending += [(key, element) for element in reversed(value)]
        else:
            # subtle: 1 and 1.0 are one key of a dict, and for SQLite one primary key.
            found[(key, _sql_value(value))] = None
    return list(found)


def where(filter: Filter, column: str) -> tuple[str, list[SqlValue]]:
    """A boolean SQL expression over `column`, which holds document numbers, and its parameters.

    Raises InvalidRequest for what is no filter, or one beyond the limits above.
    """
    condition = _all_of(filter, column, 1)
    if len(condition.parameters) > MAX_VALUES:
        raise _refusal(
            f"the filter has {len(condition.parameters)} values and fields, at most {MAX_VALUES}"
            " are allowed; split the request"
        )
    return f"({condition.sql})", condition.parameters


def check(filter: Filter) -> None:
    """Raise InvalidRequest for what `where` would refuse."""
    where(filter, "document")


def _all_of(filter: object, column: str, depth: int) -> _Condition:
    """Every key of an object holds; an empty object holds for everything."""
    if not isinstance(filter, Mapping):
        raise _refusal(f"{_shown(filter)} is not an object of fields and conditions")
    if depth > MAX_DEPTH:
        raise _refusal(
            f"the filter is nested deeper than {MAX_DEPTH} levels, the most allowed; flatten it"
        )
    return _joined(_of_key(key, value, column, depth) for key, value in filter.items())


def _of_key(key: str, value: object, column: str, depth: int) -> _Condition:
    if key in JUNCTIONS:
        if not isinstance(value, list) or not value:
            raise _refusal(f"{key} takes a list of one or more filters, not {_shown(value)}")
        parts = (_all_of(part, column, depth + 1) for part in value)
        return _joined(parts, JUNCTIONS[key])
    if key == "$not":
        return _all_of(value, column, depth + 1).negated()
    if key.startswith("$"):
        known = ", ".join((*JUNCTIONS, "$not"))
        raise _refusal(f"unknown operator {_shown(key)}; outside a field there are {known}")
    return _of_field(_Field(_text(key), column), value, depth)


def _joined(parts: Iterator[_Condition], junction: str = " AND ") -> _Condition:
    sql: list[str] = []
    parameters: list[SqlValue] = []
    count = 0
    for part in parts:
        sql.append(part.sql)
        parameters += part.parameters
        count += part.count
        if count > MAX_CONDITIONS:
            raise _refusal(
                f"the filter has more than {MAX_CONDITIONS} conditions, the most allowed;"
                " use $in for several values of one field"
            )
    if not sql:
        return ANYTHING
    return _Condition(f"({junction.join(sql)})", parameters, count)


@dataclass(frozen=True, slots=True)
class _Field:
    """Conditions on one key: each names the documents that have a row of some kind."""

    key: str
    column: str

    def having(self, test: str = "", *values: SqlValue) -> _Condition:
        rows = f"SELECT document FROM attributes WHERE key = ?{test}"
        return _Condition(f"{self.column} IN ({rows})", [self.key, *values])

    def one_of(self, values: Sequence[object]) -> _Condition:
        if not values:
            return NOTHING
        stored = [self.value(value) for value in values]
        condition = self.having(f" AND value IN ({', '.join('?' * len(stored))})", *stored)
        if NULL not in stored:
            return condition
        missing = self.having().negated()
        sql = f"({condition.sql} OR {missing.sql})"
        return _Condition(sql, condition.parameters + missing.parameters)

    def compared(self, operator: str, operand: object) -> _Condition:
        sign = COMPARISONS[operator]
        value = self.value(operand)
        if isinstance(value, bytes):
            raise _refusal(
                f"{operator} of {_shown(self.key)} takes a number or a text, not {_shown(operand)}"
            )
        # One side is bounded by the operand, the other by where its kind ends; numbers come first.
        text = isinstance(value, str)
        if ">" in sign:
            end = BYTES if text else TEXTS
            return self.having(f" AND value {sign} ? AND value < ?", value, end)
        if text:
            return self.having(f" AND value {sign} ? AND value >= ?", value, TEXTS)
        return self.having(f" AND value {sign} ?", value)

    def value(self, operand: object) -> SqlValue:
        if isinstance(operand, list | Mapping) or operand != operand:
            raise _refusal(
                f"{_shown(self.key)} is compared with {_shown(operand)}; give a text, number, true,"
                " false or null, for several of them $in, and for a field of an object its path"
                " with dots"
            )
        return _sql_value(_text(operand) if isinstance(operand, str) else operand)


def _of_field(field: _Field, value: object, depth: int) -> _Condition:
    """`value` is what the field equals, or an object of operators which all hold."""
    if not isinstance(value, Mapping):
        return field.one_of([value])
    if depth > MAX_DEPTH:
        raise _refusal(f"$not is nested deeper than {MAX_DEPTH} levels, the most allowed")
    if not value:
        raise _refusal(f"{_shown(field.key)} has an empty object; give a value or an operator")
    return _joined(_of_operator(field, name, operand, depth) for name, operand in value.items())


def _of_operator(field: _Field, operator: str, operand: object, depth: int) -> _Condition:
    match operator, operand:
        case "$eq", _:
            return field.one_of([operand])
        case "$ne", _:
            return field.one_of([operand]).negated()
        case (("$in" | "$nin"), list()) if len(operand) > MAX_LISTED:
            raise _refusal(
                f"{operator} of {_shown(field.key)} has {len(operand)} values, at most {MAX_LISTED}"
                " are allowed; use several of them in an $or"
            )
        case "$in", list():
            return field.one_of(operand)
        case "$nin", list():
            return field.one_of(operand).negated()
        case (("$gt" | "$gte" | "$lt" | "$lte"), _):
            return field.compared(operator, operand)
        case "$exists", bool():
            return field.having() if operand else field.having().negated()
        case "$not", Mapping():
            return _of_field(field, operand, depth + 1).negated()
    if operator in TAKES:
        raise _refusal(
            f"{operator} of {_shown(field.key)} takes {TAKES[operator]}, not {_shown(operand)}"
        )
    raise _refusal(
        f"unknown operator {_shown(operator)} of {_shown(field.key)}; there are"
        f" {', '.join(OPERATORS)}, and a field of an object is named by its path with dots"
    )


def _sql_value(value: object) -> SqlValue:
    """A JSON scalar as it is stored and compared."""
    if isinstance(value, str):
        if len(value) <= LONG_TEXT:
            return value
        digest = hashlib.blake2b(value.encode(), digest_size=16).hexdigest()
        return value[:LONG_TEXT] + digest
    if value is None:
        return NULL
    if isinstance(value, bool):
        return TRUE if value else FALSE
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        try:
            return float(value)
        except OverflowError:
            return float("inf") if value > 0 else float("-inf")
    assert isinstance(value, int | float), f"{type(value)} is not of JSON"
    return value


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _refusal(
            f"{_shown(value)} has a lone surrogate at character {error.start}, which is half a"
            " character and not text"
        ) from None
    return value


def _shown(value: object) -> str:
    if isinstance(value, list | Mapping):
        return "a list" if isinstance(value, list) else "an object"
    text = repr(value)  # of a text, it escapes what cannot be printed, lone surrogates too
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _refusal(message: str) -> InvalidRequest:
    return InvalidRequest(message, param="filter")
