"""One field of many documents: which values there are, and which documents have each.

Values have places: numbers first, then texts, then what is stored as bytes, each in its order. That is the
order of SQLite too. So a comparison is a range of places, and a filter finds rows by places alone.
"""

import operator
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from server.store.columns.texts import Texts
from server.store.filters.instants import instant
from server.store.filters.sql import SqlValue
from server.store.filters.tree import SIDES, Sign
from server.store.selection import Mask

# Whole numbers that float64 tells apart.
EXACT = 1 << 53
NO_INSTANT = np.iinfo(np.int64).min
Rows = npt.NDArray[np.int64]
Numbers = npt.NDArray[Any]


class Cells(Protocol):
    """Which rows have which values, named by the values' places."""

    @property
    def bytes_held(self) -> int: ...

    def between(self, begin: int, end: int) -> Mask:
        """Return the rows that have a value at one of these places, half open."""

    def of(self, chosen: Mask) -> Mask:
        """Return the rows that have a chosen value: bool for each place."""


@dataclass(frozen=True, slots=True)
class OneEach:
    """Rows with one value at most. places: of each row's value, unsigned; n_values where it has none."""

    places: npt.NDArray[Any]
    n_values: int

    @property
    def bytes_held(self) -> int:
        return self.places.nbytes

    def between(self, begin: int, end: int) -> Mask:
        if end <= begin:
            return np.zeros(len(self.places), dtype=np.bool_)
        number = self.places.dtype.type
        if end - begin == 1:
            return np.asarray(self.places == number(begin))
        # subtle: below `begin` the difference wraps round to a large number.
        return np.asarray((self.places - number(begin)) < number(end - begin))

    def of(self, chosen: Mask) -> Mask:
        return np.take(np.append(chosen, False), self.places)


@dataclass(frozen=True, slots=True)
class Several:
    """Rows with any number of values. rows: by value; ends: where each value's rows end, from 0."""

    rows: Rows
    ends: Rows
    n_rows: int

    @property
    def bytes_held(self) -> int:
        return self.rows.nbytes + self.ends.nbytes

    def between(self, begin: int, end: int) -> Mask:
        found = np.zeros(self.n_rows, dtype=np.bool_)
        if begin < end:
            found[self.rows[self.ends[begin] : self.ends[end]]] = True
        return found

    def of(self, chosen: Mask) -> Mask:
        found = np.zeros(self.n_rows, dtype=np.bool_)
        found[self.rows[np.repeat(chosen, np.diff(self.ends))]] = True
        return found


def cells(rows: Rows, counts: Rows, n_rows: int) -> Cells:
    """Return which rows have which values. rows: by value; counts: of rows that each value has."""
    n_values = len(counts)
    kind = next(each for each in (np.uint8, np.uint16, np.uint32) if n_values <= np.iinfo(each).max)
    places = np.full(n_rows, n_values, dtype=kind)
    places[rows] = np.repeat(np.arange(n_values, dtype=kind), counts)
    if int(np.count_nonzero(places != n_values)) == len(rows):
        return OneEach(places, n_values)
    ends = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])
    return Several(rows, ends, n_rows)


@dataclass(slots=True)
class Column:
    """The values of a field, and the rows that have them.

    numbers: ascending; whole numbers, floats, or Python's where neither is exact. others: what is stored
    as bytes, ascending.
    """

    numbers: Numbers
    texts: Texts
    others: Sequence[bytes]
    cells: Cells
    # Of each text, made when a filter first compares dates.
    _instants: npt.NDArray[np.int64] | None = None

    @property
    def n_values(self) -> int:
        return len(self.numbers) + len(self.texts) + len(self.others)

    @property
    def bytes_held(self) -> int:
        instants = 0 if self._instants is None else self._instants.nbytes
        return self.numbers.nbytes + self.texts.bytes_held + self.cells.bytes_held + instants

    def present(self) -> Mask:
        """Return the rows that have any value."""
        return self.cells.between(0, self.n_values)

    def equal(self, values: Sequence[SqlValue]) -> Mask:
        """Return the rows that have one of these values."""
        places = [place for value in values if (place := self.place(value)) is not None]
        if len(places) == 1:
            return self.cells.between(places[0], places[0] + 1)
        return self._of(places)

    def compared(self, sign: Sign, bound: SqlValue) -> Mask:
        """Return the rows that have a value of the bound's kind on this side of it."""
        if isinstance(bound, str):
            first, last = len(self.numbers), len(self.numbers) + len(self.texts)
            middle = first + self._text(bound, after=sign in (">", "<="))
        else:
            assert not isinstance(bound, bytes)
            first, last = 0, len(self.numbers)
            middle = self._number(bound, after=sign in (">", "<="))
        return self.cells.between(*((middle, last) if ">" in sign else (first, middle)))

    def at(self, sign: Sign | Literal["=="], microseconds: int) -> Mask:
        """Return the rows that have a date or time on this side of an instant, or at it."""
        if self._instants is None:
            found = [instant(self.texts[place]) for place in range(len(self.texts))]
            known = [NO_INSTANT if each is None else each for each in found]
            self._instants = np.array(known, dtype=np.int64)
        side = operator.eq if sign == "==" else SIDES[sign]
        compared = side(self._instants, microseconds) & (self._instants != NO_INSTANT)
        return self._of_texts(compared)

    def beginning_with(self, prefix: str) -> Mask:
        """Return the rows that have a text that begins like this."""
        begin, end = self.texts.beginning_with(prefix)
        return self.cells.between(len(self.numbers) + begin, len(self.numbers) + end)

    def having(self, part: str, most: int) -> Mask:
        """Return the rows that have a text with this part among its first `most` characters."""
        return self._of_texts(self.texts.having(part, most))

    def _of_texts(self, chosen: Mask) -> Mask:
        """Return the rows that have a chosen text."""
        every = np.zeros(self.n_values, dtype=np.bool_)
        every[len(self.numbers) : len(self.numbers) + len(self.texts)] = chosen
        return self.cells.of(every)

    def _of(self, places: Sequence[int]) -> Mask:
        chosen = np.zeros(self.n_values, dtype=np.bool_)
        chosen[np.asarray(places, dtype=np.int64)] = True
        return self.cells.of(chosen)

    def value(self, place: int) -> SqlValue:
        """Return the value at a place."""
        texts = place - len(self.numbers)
        if texts < 0:
            return self._exact(place)
        others = texts - len(self.texts)
        return self.texts[texts] if others < 0 else self.others[others]

    def place(self, value: SqlValue) -> int | None:
        """Return the place of a value; None where no row has it."""
        if isinstance(value, bytes):
            others = len(self.numbers) + len(self.texts)
            return others + self.others.index(value) if value in self.others else None
        if isinstance(value, str):
            place = self._text(value, after=False)
            there = place < len(self.texts) and self.texts[place] == value
            return len(self.numbers) + place if there else None
        place = self._number(value, after=False)
        there = place < len(self.numbers) and self._exact(place) == value
        return place if there else None

    def _text(self, text: str, *, after: bool) -> int:
        return self.texts.until(text) if after else self.texts.before(text)

    def _number(self, number: float, *, after: bool) -> int:
        find: Callable[..., int] = bisect_right if after else bisect_left
        return find(range(len(self.numbers)), number, key=self._exact)

    def _exact(self, place: int) -> int | float:
        # subtle: Python compares a whole number with a float exactly, and numpy does not.
        found: int | float = self.numbers.item(place)
        return found


def numbers(values: Sequence[int | float]) -> Numbers:
    """Return numbers as an array that has them exactly."""
    if all(type(value) is int for value in values):
        return np.array(values, dtype=np.int64)
    if all(type(value) is float or -EXACT <= value <= EXACT for value in values):
        return np.array(values, dtype=np.float64)
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def column(values: Sequence[SqlValue], rows: Rows, counts: Rows, n_rows: int) -> Column:
    """Return a column. values: in SQLite's order, each once; rows: by value; counts: of each value's rows."""
    found = [value for value in values if isinstance(value, int | float)]
    texts = [value for value in values if isinstance(value, str)]
    others = [value for value in values if isinstance(value, bytes)]
    return Column(numbers(found), Texts(texts), others, cells(rows, counts, n_rows))
