"""Which columns are read, and which are written."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from server.errors import BadSettings
from server.messages.message import Message
from server.sources.checked import NotADocument, shown
from server.sources.columns import Columns

TYPES = {"string": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
BOOLS = {"true": True, "false": False}
# Columns that every file of vectors has, or may have.
OWN = ("id", "digest", "vector", "title", "text")
INT64 = range(-(1 << 63), 1 << 63)


@dataclass(frozen=True, slots=True)
class Kept:
    """A column that is copied to the vectors; type: one of TYPES."""

    name: str
    type: str = "string"

    def value(self, given: Any) -> Any:
        """Return a value of the column as its type; raises NotADocument."""
        if given is None:
            return None
        if self.type == "string" and isinstance(given, str):
            return given
        try:
            return self._other(given)
        except ValueError:
            kind = Message("a value of type {type}", type=self.type)
            raise NotADocument(
                '"{key}" is {shown}, which is not {wanted}',
                key=self.name,
                shown=shown(given),
                wanted=kind,
            ) from None

    def _other(self, given: Any) -> Any:
        if self.type == "bool" and isinstance(given, str) and given.lower() in BOOLS:
            return BOOLS[given.lower()]
        if self.type == "bool" and isinstance(given, bool):
            return given
        if self.type == "int" and isinstance(given, str | int) and not isinstance(given, bool):
            number = int(given) if given != "" else None
            if number is None or number in INT64:
                return number
        if self.type == "float" and isinstance(given, str | int | float):
            amount = float(given) if given != "" else None
            if amount is None or math.isfinite(amount):
                return amount
        raise ValueError


@dataclass(frozen=True, slots=True)
class Layout:
    """What is read of each row, and what is written beside its id and its vector.

    with_text: whether title and text are written.
    """

    columns: Columns = Columns()
    kept: tuple[Kept, ...] = ()
    with_text: bool = False

    @property
    def kept_fields(self) -> list[Any]:
        return [pa.field(each.name, TYPES[each.type]) for each in self.kept]

    def metadata(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the kept values of a row that has them; raises NotADocument."""
        return {
            each.name: value
            for each in self.kept
            if (value := each.value(row.get(each.name))) is not None
        }


def kept_of(text: str) -> Kept:
    """Return the column of `NAME` or `NAME:TYPE`; raises BadSettings."""
    name, _, type = text.rpartition(":") if ":" in text else (text, "", "string")
    if type not in TYPES:
        raise BadSettings(
            "--keep {text}: {type} is none of the types {types}",
            text=text,
            type=type,
            types=", ".join(TYPES),
        )
    if name in OWN or not name:
        raise BadSettings(
            "--keep {text}: {names} are columns of the vectors themselves; use --with-text for title"
            " and text",
            text=text,
            names=", ".join(OWN),
        )
    return Kept(name, type)
