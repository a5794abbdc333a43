"""Types of a table's columns: which are numbers, booleans and dates, and their values.

A table says nothing of types, and a filter finds a number only where a number is stored. So a column
whose every value is of one type is stored in that type, where that loses nothing.

number   plain numbers. It stays a text if a value has a leading zero (007), a sign +, an exponent or more
         than ten digits before the point (13800138000), more than 15 digits at all, or a last zero that
         others lack (1.9 and 1.10 are versions, 12.50 and 9.00 are prices)
boolean  true and false in any case, 是 and 否
date     2024-01-05, 2024/1/5 or 2024年1月5日, perhaps with a time: stored as 2024-01-05 or
         2024-01-05T09:30:00, which sorts by time as a text

No type depends on the order of the rows. A blank cell of a column that has a type is left out.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

from server.messages.message import Message
from server.sources.checked import wrong

Kind = Literal["text", "number", "boolean", "date"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# The name that stands for all other columns in --types.
OTHERS = "*"

PLAIN = re.compile(r"-?(?:0|[1-9][0-9]{0,9})(?:\.([0-9]+))?")
# What float64 keeps exactly, whatever the number.
MOST_DIGITS = 15
# What a column may hold that is named a number: also 007, +5 and 1e-3. 18 digits are within 64 bits.
WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
DECIMAL = re.compile(r"[+-]?[0-9]{1,300}(?:\.[0-9]{1,300})?(?:[eE][+-]?[0-9]{1,3})?")
BOOLEANS: Mapping[str, bool] = {"true": True, "false": False, "是": True, "否": False}
DATE = re.compile(
    r"([0-9]{4})(?:-([0-9]{1,2})-([0-9]{1,2})|/([0-9]{1,2})/([0-9]{1,2})|年([0-9]{1,2})月([0-9]{1,2})日)"
    r"(?:[ T]?([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?)?"
)
WANTED: Mapping[Kind, Message] = {
    "text": Message("a text"),
    "number": Message("a number"),
    "boolean": Message("true, false, 是 or 否"),
    "date": Message("a date such as 2024-01-05 or 2024年1月5日"),
}

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Types:
    """The types that were asked for, by column; others: of columns without one, None to find them."""

    named: Mapping[str, Kind] = field(default_factory=dict)
    others: Kind | None = None

    def of(self, name: str) -> Kind | None:
        """Return the type of a column, None to find it."""
        return self.named.get(name, self.others)


class Column:
    """What the values of a column have in common, as far as they were read."""

    __slots__ = ("_dates", "_decimals", "_flags", "_plain", "_some", "_zero_last")

    def __init__(self) -> None:
        self._plain = self._flags = self._dates = True
        self._zero_last = self._some = False
        self._decimals = set[int]()

    def add(self, value: str) -> None:
        """Examine a value; a blank one says nothing."""
        value = value.strip()
        if not value:
            return
        self._some = True
        if self._flags:
            self._flags = value.lower() in BOOLEANS
        if self._dates:
            self._dates = _date(value) is not None
        if self._plain:
            self._add_number(value)

    def _add_number(self, value: str) -> None:
        found = PLAIN.fullmatch(value)
        n_digits = sum(map(str.isdigit, value))
        if found is None or n_digits > MOST_DIGITS or value[0] == "-" and not float(value):
            self._plain = False
            return
        decimals = found[1] or ""
        self._decimals.add(len(decimals))
        self._zero_last = self._zero_last or decimals.endswith("0")

    @property
    def kind(self) -> Kind:
        """The type in which the values are told apart as their texts are."""
        if not self._some:
            return "text"
        if self._flags:
            return "boolean"
        if self._dates:
            return "date"
        return "number" if self._plain and not self._loses_zeros else "text"

    @property
    def _loses_zeros(self) -> bool:
        return len(self._decimals) > 1 and self._zero_last


def typed(fields: Iterable[tuple[str, str]], kinds: Mapping[str, Kind]) -> dict[str, Value]:
    """Return metadata in the types of its columns, without blank cells of those that have one."""
    found: dict[str, Value] = {}
    for name, value in fields:
        kind = kinds.get(name, "text")
        if kind == "text":
            found[name] = value
        elif value.strip():
            found[name] = converted(name, value.strip(), kind)
    return found


def converted(name: str, value: str, kind: Kind) -> Value:
    """Return a value in a type; raises NotADocument for one that is not of this type."""
    found = _CONVERTED[kind](value)
    if found is None:
        raise wrong(name, value, WANTED[kind])
    return found


def _number(value: str) -> int | float | None:
    if WHOLE.fullmatch(value):
        return int(value)
    if DECIMAL.fullmatch(value) and math.isfinite(number := float(value)):
        return number
    return None


def _date(value: str) -> str | None:
    found = DATE.fullmatch(value)
    if found is None:
        return None
    year, *rest = found.groups()
    month, day = (int(each) for each in rest[:6] if each is not None)
    hour, minute, second = (int(each or 0) for each in rest[6:])
    with suppress(ValueError):
        moment = datetime(int(year), month, day, hour, minute, second)
        return moment.isoformat() if rest[6] else moment.date().isoformat()
    return None


def parse_types(text: str) -> Types | None:
    """Return the types of a flag such as "year=number,code=text,*=text"; None if it is none."""
    named: dict[str, Kind] = {}
    for part in text.split(","):
        name, _, kind = (each.strip() for each in part.rpartition("="))
        if not name or kind not in KINDS:
            return None
        named[name] = kind
    others = named.pop(OTHERS, None)
    return Types(named, others)


_CONVERTED: Mapping[Kind, Callable[[str], Value | None]] = {
    "text": str,
    "number": _number,
    "boolean": lambda value: BOOLEANS.get(value.lower()),
    "date": _date,
}
