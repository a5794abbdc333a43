"""Sets of labels that a search may find: both forms say the same."""

import numpy as np
import pytest

from server.store.selection import Selection

ROWS = [[], [7], [3, 4, 5], [1, 2, 40, 41], [5, 10**12], list(range(10, 200, 3))]


def both(labels: list[int]) -> list[Selection]:
    """Return a selection made from a list, and one from a table where that is short."""
    made = [Selection.of_labels(np.array(labels, dtype=np.int64))]
    if not labels or labels[-1] < 1000:
        table = np.isin(np.arange(2, 300), labels)
        if not labels or labels[0] >= 2:
            made.append(Selection.of_table(2, table))
    return made


@pytest.mark.parametrize("labels", ROWS, ids=str)
def test_a_selection_has_its_labels_and_no_others(labels: list[int]) -> None:
    asked = np.array([[-1, 0, 1], [5, 7, 41], [13, 299, 300], [10**12, 3, 4]])
    for selection in both(labels):
        assert selection.contains(asked).tolist() == np.isin(asked, labels).tolist()
        assert selection.contains(asked[:0]).shape == (0, 3)
        for row in (np.arange(3, 9), np.arange(0, 6), np.arange(290, 400), np.array([3, 7, 13])):
            assert selection.of_row(row).tolist() == np.isin(row, labels).tolist()
        assert (selection.count, selection.labels.tolist()) == (len(labels), labels)


@pytest.mark.parametrize("labels", ROWS, ids=str)
def test_a_selection_is_narrowed_to_a_row_of_labels(labels: list[int]) -> None:
    for selection in both(labels):
        for first, last in ((0, 0), (0, 5), (4, 41), (250, 10**13), (3, 2)):
            narrowed = selection.between(first, last)
            expected = [label for label in labels if first <= label <= last]
            assert (narrowed.count, narrowed.labels.tolist()) == (len(expected), expected)
            asked = np.arange(60)
            assert narrowed.contains(asked).tolist() == np.isin(asked, expected).tolist()


def test_a_table_answers_for_a_row_by_a_slice() -> None:
    table = Selection.of_table(100, np.ones(50, dtype=np.bool_))
    assert table.is_slice(np.arange(90, 400))
    assert not table.is_slice(np.array([100, 102]))
    assert not table.is_slice(np.empty(0, dtype=np.int64))
    assert not Selection.of_labels(np.array([1, 1000])).is_slice(np.arange(5))
