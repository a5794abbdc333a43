"""Documents that were read together: their numbers, the labels of their chunks, and their columns.

A row stands for a document. Rows follow the documents' numbers; where few numbers are missing, a missing
one has a row too, so that a row is found by a subtraction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from server.store.columns.column import Column, Rows, column
from server.store.filters.sql import SqlValue, in_order
from server.store.selection import FEW_OF, Mask, Selection, found_in
from server.types import Labels

# A row for each missing number pays up to this share of missing ones.
HOLES = 4
# Columns that a part keeps: of twice as many keys as a filter may have. One without values takes a kilobyte.
MOST_COLUMNS = 512


@dataclass(frozen=True, slots=True)
class Places:
    """The rows of document numbers: `n` of them, and one behind the last for numbers that have none.

    numbers: of each row, ascending; None where row i stands for number first + i.
    """

    first: int
    n: int
    numbers: Labels | None

    @classmethod
    def of(cls, numbers: Labels) -> "Places":
        """Return the rows of these numbers, which ascend."""
        if not len(numbers):
            return cls(0, 0, None)
        first, span = int(numbers[0]), int(numbers[-1] - numbers[0]) + 1
        if span <= HOLES * len(numbers):
            return cls(first, span, None)
        return cls(first, len(numbers), numbers)

    def rows(self, numbers: Labels) -> Rows:
        """Return the row of each number, `n` where it has none."""
        if self.numbers is None:
            found = numbers - self.first
            return np.where((found < 0) | (found >= self.n), self.n, found)
        places, there = found_in(self.numbers, numbers)
        return np.where(there, places, self.n)

    def numbers_at(self, rows: Rows) -> Labels:
        """Return the number of each row."""
        return rows + self.first if self.numbers is None else self.numbers[rows]


@dataclass(frozen=True, slots=True)
class Chunks:
    """The labels of the chunks of a segment's documents.

    labels: int64 (M,), ascending. slots: the row of each label from the first to the last, or of each of
    `labels` where too many numbers lie between. in_step: the chunk of row i has label labels[0] + i.
    """

    labels: Labels
    slots: Rows
    is_table: bool
    in_step: bool

    @classmethod
    def of(cls, labels: Labels, rows: Rows, n_rows: int) -> "Chunks":
        """Return chunks. labels: ascending; rows: of each label's document."""
        if not len(labels):
            return cls(labels, rows, False, False)
        span = int(labels[-1] - labels[0]) + 1
        if np.array_equal(labels - labels[0], rows) and span == n_rows:
            return cls(labels, rows[:0], True, True)
        if span > FEW_OF * len(labels):
            return cls(labels, rows, False, False)
        slots = np.full(span, n_rows, dtype=np.int64)
        slots[labels - labels[0]] = rows
        return cls(labels, slots, True, False)

    @property
    def bytes_held(self) -> int:
        return self.labels.nbytes + self.slots.nbytes

    def selection(self, kept: Mask) -> Selection:
        """Return the labels of the kept rows' chunks; kept: bool, a place for each row and one more."""
        if not len(self.labels):
            return Selection.of_labels(self.labels)
        if self.in_step:
            return Selection.of_table(int(self.labels[0]), kept[:-1])
        chosen = np.take(kept, self.slots)
        if self.is_table:
            return Selection.of_table(int(self.labels[0]), chosen)
        return Selection.of_labels(self.labels[chosen])

    def rows_of(self, labels: Labels) -> Rows:
        """Return the rows of those labels that are here."""
        places, there = found_in(self.labels, labels)
        if not self.is_table:
            return self.slots[places[there]]
        rows = labels[there] - self.labels[:1]
        return rows if self.in_step else self.slots[rows]


@dataclass(frozen=True, slots=True)
class Segment:
    """Documents and their chunks; immutable.

    alive: bool, for each row and one more: whether its document is stored.
    """

    places: Places
    chunks: Chunks
    alive: Mask

    @classmethod
    def of(cls, owners: Labels, labels: Labels) -> "Segment":
        """Return a segment of labels and the number of each one's document, both int64 (M,)."""
        order = np.argsort(labels, kind="stable")
        places = Places.of(np.unique(owners))
        rows = places.rows(owners[order])
        alive = np.zeros(places.n + 1, dtype=np.bool_)
        alive[rows] = True
        alive[places.n] = False
        return cls(places, Chunks.of(labels[order], rows, places.n), alive)

    @property
    def bytes_held(self) -> int:
        numbers = 0 if self.places.numbers is None else self.places.numbers.nbytes
        return numbers + self.chunks.bytes_held + self.alive.nbytes

    def having(self, labels: Labels) -> Mask:
        """Return the rows of stored documents that have any of these chunks: bool, as `alive`."""
        found = np.zeros(len(self.alive), dtype=np.bool_)
        found[self.chunks.rows_of(labels)] = True
        return found & self.alive

    def minus(self, labels: Labels) -> "Segment":
        """Return the segment without the documents of these labels; itself where it has none."""
        rows = self.chunks.rows_of(labels)
        if not len(rows) or not self.alive[rows].any():
            return self
        alive = self.alive.copy()
        alive[rows] = False
        return replace(self, alive=alive)

    def column(
        self, values: Sequence[SqlValue], numbers: Labels, counts: Sequence[int] | Rows
    ) -> Column:
        """Return a column of this segment's rows; numbers: of documents, by value."""
        rows = self.places.rows(numbers)
        return column(values, rows, np.asarray(counts, dtype=np.int64), self.places.n + 1)


@dataclass(frozen=True, slots=True)
class Written:
    """A document as filters read it. labels: of its chunks. pairs: key and value, each pair once."""

    number: int
    labels: tuple[int, ...]
    pairs: Sequence[tuple[str, SqlValue]]


class Recent:
    """A few documents that were written lately; immutable, but for the columns that it remembers."""

    def __init__(self, written: Sequence[Written], segment: Segment | None = None) -> None:
        self.written = written
        if segment is None:
            owners = [each.number for each in written for _ in each.labels]
            labels = [label for each in written for label in each.labels]
            segment = Segment.of(np.array(owners, dtype=np.int64), np.array(labels, dtype=np.int64))
        self.segment = segment
        self._columns: dict[str, Column] = {}

    def __len__(self) -> int:
        return len(self.written)

    def minus(self, labels: Labels) -> "Recent":
        segment = self.segment.minus(labels)
        if segment is self.segment:
            return self
        found = Recent(self.written, segment)
        found._columns = self._columns
        return found

    def stored(self) -> list[Written]:
        """Return the documents that were not removed since."""
        numbers = np.array([each.number for each in self.written], dtype=np.int64)
        alive = self.segment.alive[self.segment.places.rows(numbers)]
        return [each for each, there in zip(self.written, alive.tolist(), strict=True) if there]

    def column(self, key: str) -> Column:
        """Return the column of a key, made when it is first asked for."""
        found = self._columns.get(key)
        if found is None:
            found = self._made(key)
            if len(self._columns) >= MOST_COLUMNS:
                self._columns.clear()
            self._columns[key] = found
        return found

    def _made(self, key: str) -> Column:
        by_value: dict[tuple[int, SqlValue], list[int]] = {}
        for each in self.written:
            for name, value in each.pairs:
                if name == key:
                    by_value.setdefault(in_order(value), []).append(each.number)
        ordered = sorted(by_value)
        numbers = [number for value in ordered for number in by_value[value]]
        counts = [len(by_value[value]) for value in ordered]
        return self.segment.column(
            [value for _, value in ordered], np.array(numbers, dtype=np.int64), counts
        )


def joined(parts: Sequence[Recent]) -> Recent:
    """Return the documents of several parts that are still stored, as one part."""
    return Recent([each for part in parts for each in part.stored()])
