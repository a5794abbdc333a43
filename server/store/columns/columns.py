"""The columns of a collection at one moment: one large part from the database, and what was written since."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np

from server.store.columns import loading
from server.store.columns.column import Column
from server.store.columns.evaluation import ColumnOf, kept
from server.store.columns.segment import MOST_COLUMNS, Recent, Segment, Written, joined
from server.store.columns.turn import Turn
from server.store.filters.tree import Filter, keys
from server.store.selection import Mask, Selection
from server.store.sqlite.database import Database
from server.store.sqlite.read_limit import unlimited
from server.types import Labels

# A part is joined with the one before it unless that is so many times as large: a few parts at any time.
GROWTH = 8
# A part of this many documents is kept by itself; so many of them, or a share of all documents, are read
# again with the rest.
LARGE_PART, MOST_PARTS = 8192, 16
# Bytes of columns that a collection keeps: a base, and for each document.
MOST_BYTES, MOST_BYTES_A_DOCUMENT = 32 << 20, 256


@dataclass(slots=True)
class Kept:
    """A column that was read; None: too large to keep.

    age: of the moment when it was read. It lacks the documents that were deleted until then, so an older
    moment does not use it. used: the number of the last use.
    """

    column: Column | None
    age: int
    used: int = 0

    @property
    def bytes_held(self) -> int:
        return 0 if self.column is None else self.column.bytes_held


@dataclass(slots=True)
class Loaded:
    """The columns of a large part that were read, by key; those used last are kept."""

    turn: Turn = field(default_factory=Turn)
    columns: dict[str, Kept] = field(default_factory=dict)
    _uses: Iterator[int] = field(default_factory=count)

    @property
    def bytes_held(self) -> int:
        return sum(each.bytes_held for each in list(self.columns.values()))

    def get(self, key: str) -> Kept | None:
        """Return what was read of a key."""
        found = self.columns.get(key)
        if found is not None:
            found.used = next(self._uses)
        return found

    def keep(self, key: str, found: Kept, most_bytes: int) -> None:
        """Keep a column, and drop those used least lately as far as there are too many; in a turn."""
        found.used = next(self._uses)
        self.columns[key] = found
        held = self.bytes_held
        for other in sorted(self.columns, key=lambda each: self.columns[each].used)[:-1]:
            is_over = held > most_bytes and self.columns[other].bytes_held > 0
            if is_over or len(self.columns) > MOST_COLUMNS:
                held -= self.columns.pop(other).bytes_held


@dataclass(frozen=True, slots=True)
class Columns:
    """Immutable, but for the columns that are read when a filter first needs them.

    age: how many writes there were.
    """

    segment: Segment
    loaded: Loaded
    recent: tuple[Recent, ...] = ()
    age: int = 0

    @classmethod
    def read(cls, database: Database) -> "Columns":
        """Return the columns of what is stored now."""
        return cls(loading.segment(database), Loaded())

    @property
    def segments(self) -> list[Segment]:
        """The parts of the collection."""
        return [self.segment, *(each.segment for each in self.recent)]

    @property
    def bytes_held(self) -> int:
        return self.loaded.bytes_held + sum(each.bytes_held for each in self.segments)

    def changed(
        self, written: Sequence[Written], removed: Labels, n_writes: int
    ) -> "Columns | None":
        """Return the columns after writes; None where so much was written that all is read again.

        removed: the labels of documents that are gone.
        """
        recent = [each.minus(removed) for each in self.recent]
        if written:
            recent.append(Recent(written))
        while len(recent) > 1 and _is_joined(recent[-2], recent[-1]):
            recent[-2:] = [joined(recent[-2:])]
        if len(recent) > MOST_PARTS:
            return None
        segment = self.segment.minus(removed)
        return replace(self, segment=segment, recent=tuple(recent), age=self.age + n_writes)

    def selection(self, filter: Filter, database: Database) -> Selection | None:
        """Return the labels that a filter keeps; None where it needs a column that is not in memory.

        database: in a snapshot of the moment of these columns.
        """
        parts = self.rows(filter, database)
        if parts is None:
            return None
        return Selection.joined([segment.chunks.selection(mask) for segment, mask in parts])

    def numbers(self, filter: Filter, database: Database) -> Labels | None:
        """Return the numbers of the documents that a filter keeps, ascending; None as for `selection`."""
        parts = self.rows(filter, database)
        if parts is None:
            return None
        found = [segment.places.numbers_at(np.flatnonzero(mask)) for segment, mask in parts]
        return np.sort(np.concatenate(found))

    def rows(self, filter: Filter, database: Database) -> list[tuple[Segment, Mask]] | None:
        """Return the parts of the collection, each with the rows that a filter keeps; None as for `selection`."""
        parts = self.parts(keys(filter), database)
        if parts is None:
            return None
        found = []
        for segment, column in parts:
            mask = kept(filter, segment.places.n + 1, column)
            mask &= segment.alive
            found.append((segment, mask))
        return found

    def parts(
        self, keys: Iterable[str], database: Database
    ) -> list[tuple[Segment, ColumnOf]] | None:
        """Return the parts of the collection, each with its columns; None where one is not in memory.

        keys: of the columns. database: as for `selection`.
        """
        base: dict[str, Column] = {}
        for key in dict.fromkeys(keys):
            column = self._column(key, database)
            if column is None:
                return None
            base[key] = column
        recent = [(each.segment, each.column) for each in self.recent]
        return [(self.segment, base.__getitem__), *recent]

    def _column(self, key: str, database: Database) -> Column | None:
        """Return a column; None where another search is reading one."""
        found = self.loaded.get(key)
        if found is None:
            with self.loaded.turn.tried() as mine:
                if not mine:
                    return None
                found = self.loaded.get(key) or self._read(key, database)
        return found.column if found.age <= self.age else None

    def _read(self, key: str, database: Database) -> Kept:
        with unlimited():
            found = Kept(loading.column(database, key, self.segment), self.age)
        most = MOST_BYTES + MOST_BYTES_A_DOCUMENT * len(self.segment.alive)
        self.loaded.keep(key, found, most)
        return found


def _is_joined(before: Recent, last: Recent) -> bool:
    return len(before) < min(LARGE_PART, GROWTH * len(last))
