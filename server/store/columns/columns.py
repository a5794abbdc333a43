"""The columns of a collection at one moment: one large part from the database, and what was written since."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from server.store.columns import loading
from server.store.columns.column import Column
from server.store.columns.evaluation import ColumnOf, kept
from server.store.columns.segment import Recent, Segment, Written, joined
from server.store.columns.turn import Turn
from server.store.filters.tree import Filter, keys
from server.store.selection import Selection
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
class Loaded:
    """The columns of a large part that were read, by key; the last one used is the last one here.

    A column that was read at a later moment lacks the documents that were deleted until then. So it says
    how old the moment was, and an older one does not use it. None: too large to keep.
    """

    turn: Turn = field(default_factory=Turn)
    columns: dict[str, tuple[Column | None, int]] = field(default_factory=dict)

    @property
    def bytes_held(self) -> int:
        return sum(each.bytes_held for each, _ in list(self.columns.values()) if each is not None)


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
    def bytes_held(self) -> int:
        parts = sum(each.segment.bytes_held for each in self.recent)
        return self.segment.bytes_held + self.loaded.bytes_held + parts

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
        parts = self.parts(keys(filter), database)
        if parts is None:
            return None
        return Selection.joined([_selection(filter, segment, of) for segment, of in parts])

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
        found = self.loaded.columns.get(key)
        if found is None:
            return self._read(key, database)
        column, age = found
        return column if age <= self.age else None

    def _read(self, key: str, database: Database) -> Column | None:
        """Read a column, unless another search is reading one."""
        with self.loaded.turn.tried() as mine:
            if not mine:
                return None
            with unlimited():
                column = loading.column(database, key, self.segment)
            columns = self.loaded.columns
            columns[key] = column, self.age
            most = MOST_BYTES + MOST_BYTES_A_DOCUMENT * len(self.segment.alive)
            while self.loaded.bytes_held > most and len(columns) > 1:
                del columns[next(iter(columns))]
            return column


def _is_joined(before: Recent, last: Recent) -> bool:
    return len(before) < min(LARGE_PART, GROWTH * len(last))


def _selection(filter: Filter, segment: Segment, column: ColumnOf) -> Selection:
    mask = kept(filter, segment.places.n + 1, column)
    np.logical_and(mask, segment.alive, out=mask)
    return segment.chunks.selection(mask)
