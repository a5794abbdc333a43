"""The labels that a filtered search may find.

A selection is a table with one place for each label in a row of numbers, or a list of ascending labels. A
table answers for a label in a nanosecond or two, and a list takes less room where few labels are chosen among
many numbers. Each form is made from the other when it is first needed.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from server.types import Labels

Mask = npt.NDArray[np.bool_]

# Looking labels up one by one pays in a list that is so many times as long. And a table may have so many
# places for each chosen label.
FEW_OF = 16
# A table that is no longer than this is always worth its room.
SHORT = 4_000_000


class Selection:
    """An immutable set of labels; made by `of_labels` or `of_table`."""

    def __init__(self, first: int, table: Mask | None, labels: Labels | None) -> None:
        self._first = first
        self._table = table
        self._labels = labels

    @classmethod
    def of_labels(cls, labels: Labels) -> "Selection":
        """Return a selection of these labels: int64 (N,), ascending, each once."""
        return cls(int(labels[0]) if len(labels) else 0, None, labels)

    @classmethod
    def of_table(cls, first: int, table: Mask) -> "Selection":
        """Return a selection of the labels `first` + i for which table[i] is True.

        The table is kept, not copied; the caller must not write to it.
        """
        return cls(first, table, None)

    @classmethod
    def joined(cls, parts: Sequence["Selection"]) -> "Selection":
        """Return a selection of all labels of the parts, whose labels ascend from one to the next."""
        parts = [part for part in parts if part.count]
        if len(parts) == 1:
            return parts[0]
        count = sum(part.count for part in parts)
        if not parts or any(part._table is None for part in parts):
            labels = [part.labels for part in parts]
            return cls.of_labels(np.concatenate([np.empty(0, dtype=np.int64), *labels]))
        first, last = parts[0]._first, parts[-1]._first + len(_table(parts[-1]))
        if last - first > FEW_OF * count and last - first > SHORT:
            return cls.of_labels(np.concatenate([part.labels for part in parts]))
        table = np.zeros(last - first, dtype=np.bool_)
        for part in parts:
            begin = part._first - first
            table[begin : begin + len(_table(part))] = part._table
        return cls.of_table(first, table)

    @cached_property
    def count(self) -> int:
        """The number of labels."""
        return len(self.labels) if self._table is None else int(np.count_nonzero(self._table))

    @property
    def labels(self) -> Labels:
        """The labels: int64 (N,), ascending."""
        if self._labels is None:
            assert self._table is not None
            self._labels = np.flatnonzero(self._table) + self._first
        return self._labels

    def contains(self, labels: Labels) -> Mask:
        """Return which of these labels are selected: bool, in their shape."""
        if self._table is None and labels.size * FEW_OF < self.count:
            return found_in(self.labels, labels)[1]
        table = self._dense()
        if table is None:
            return np.isin(labels, self.labels)
        places = labels - self._first
        inside = (places >= 0) & (places < len(table))
        if inside.all():
            return table[places]
        found = np.zeros(labels.shape, dtype=np.bool_)
        found[inside] = table[places[inside]]
        return found

    def of_row(self, labels: Labels) -> Mask:
        """Return which of these labels are selected; they ascend, each once: bool (N,).

        It takes microseconds where `is_slice`, and else as long as `contains`.
        """
        table = self._dense()
        if table is None or not _are_in_step(labels):
            return self.contains(labels)
        begin = int(labels[0]) - self._first
        end = begin + len(labels)
        if 0 <= begin and end <= len(table):
            return table[begin:end]
        found = np.zeros(len(labels), dtype=np.bool_)
        inner = table[max(0, begin) : max(0, end)]
        after = max(0, -begin)
        found[after : after + len(inner)] = inner
        return found

    def is_slice(self, labels: Labels) -> bool:
        """Return whether a slice of a table answers for a row of labels, as in `of_row`."""
        return _are_in_step(labels) and self._dense() is not None

    def between(self, first: int, last: int) -> "Selection":
        """Return the selected labels from `first` to `last`, both included, as a view."""
        table = self._dense()
        if table is None:
            begin, end = np.searchsorted(self.labels, (first, last + 1))
            return Selection.of_labels(self.labels[begin:end])
        begin = min(max(0, int(first) - self._first), len(table))
        end = max(begin, int(last) + 1 - self._first)
        return Selection.of_table(self._first + begin, table[begin:end])

    def dense(self) -> tuple[int, Mask] | None:
        """Return the first label of a table and the table; None where that would be far too long."""
        table = self._dense()
        return None if table is None else (self._first, table)

    def _dense(self) -> Mask | None:
        """Return the table; None where it would have far more places than there are labels."""
        if self._table is None:
            labels = self.labels
            if not len(labels) or labels[-1] - labels[0] >= FEW_OF * len(labels):
                return None
            table = np.zeros(int(labels[-1] - labels[0]) + 1, dtype=np.bool_)
            table[labels - self._first] = True
            self._table = table
        return self._table


def _are_in_step(labels: Labels) -> bool:
    """Return whether ascending labels lack none between the first and the last."""
    return len(labels) > 0 and bool(labels[-1] - labels[0] + 1 == len(labels))


def found_in(ascending: Labels, sought: Labels) -> tuple[Labels, Mask]:
    """Return the place of each sought number among ascending ones, and whether it is there: bool.

    The place of one that is not there means nothing. A number costs 0.1 us.
    """
    if not len(ascending):
        return np.zeros(sought.shape, dtype=np.int64), np.zeros(sought.shape, dtype=np.bool_)
    places = np.minimum(np.searchsorted(ascending, sought), len(ascending) - 1)
    return places, ascending[places] == sought


def _table(selection: Selection) -> Mask:
    assert selection._table is not None
    return selection._table
