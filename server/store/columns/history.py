"""Columns by the revision of the database: one for each moment that a search may read.

How this works. A write costs nothing here but a note of the labels that it adds and removes. The first
filtered search at a revision makes its columns: from those of the last revision that has some and the notes
since then, or else from the database. A search that meets another one at this work does not wait: it lets
SQLite evaluate its filter.
"""

import numpy as np

from server.store.columns import loading
from server.store.columns.columns import Columns
from server.store.columns.turn import Turn
from server.store.filters.tree import Filter
from server.store.records import Change
from server.store.selection import Selection
from server.store.sqlite.database import Database
from server.store.sqlite.read_limit import unlimited
from server.types import Labels

# Writes, and labels of them, that are noted; after more, the columns are read from the database again.
MOST_WRITES, MOST_LABELS = 10_000, 100_000


class Moment:
    """The columns of one revision, made when a filter first needs them."""

    def __init__(self, before: "Moment | None" = None, change: Change | None = None) -> None:
        """Begin with nothing; or with what was `before` a change."""
        self._turn = Turn()
        self._columns: Columns | None = None
        self._before, self._change = before, change
        self._n_writes = self._n_labels = 0
        if before is not None and change is not None:
            self._n_writes = before._n_writes + 1
            self._n_labels = before._n_labels + len(change.added) + len(change.removed)

    @property
    def bytes_held(self) -> int:
        """The bytes of the columns that are known."""
        columns = self._columns
        return 0 if columns is None else columns.bytes_held

    def after(self, change: Change) -> "Moment":
        """Return the moment after a write."""
        used = self._columns is not None or self._before is not None or self._turn.is_taken
        if used and self._n_writes < MOST_WRITES and self._n_labels < MOST_LABELS:
            return Moment(self, change)
        return Moment()

    def selection(self, filter: Filter, database: Database) -> Selection | None:
        """Return the labels that a filter keeps; None where SQLite has to evaluate it.

        database: in a snapshot of this moment.
        """
        columns = self.columns(database)
        return None if columns is None else columns.selection(filter, database)

    def columns(self, database: Database) -> Columns | None:
        """Return the columns of this moment; None while another search makes them.

        database: in a snapshot of this moment.
        """
        if self._columns is None:
            with self._turn.tried() as mine:
                return (self._columns or self._made(database)) if mine else None
        return self._columns

    def _made(self, database: Database) -> Columns:
        with unlimited():
            found = self._caught_up(database) or Columns.read(database)
        self._columns = found
        self._before = self._change = None
        self._n_writes = self._n_labels = 0
        return found

    def _caught_up(self, database: Database) -> Columns | None:
        """Return the columns of the last moment that has some, with what was written since."""
        changes: list[Change] = []
        moment = self
        while moment._columns is None:
            before, change = moment._before, moment._change
            if before is None or change is None:
                break
            changes.append(change)
            moment = before
        columns = moment._columns
        if columns is None:
            return None
        removed = _all([change.removed for change in changes])
        added = np.setdiff1d(_all([change.added for change in changes]), removed)
        return columns.changed(loading.written(database, added), removed, len(changes))


def _all(labels: list[Labels]) -> Labels:
    return np.concatenate([np.empty(0, dtype=np.int64), *labels])
