"""Reading ends where a damaged database returns the same row again and again."""

from itertools import repeat
from pathlib import Path

import pytest

from server.errors import StoreDamaged
from server.store.sqlite.ascending import ascending
from tests.support.stored_documents import check_advice

PATH = Path("documents.sqlite3")


def test_rows_in_order_are_passed_on() -> None:
    rows = [(3, "a"), (4, "b"), (9, "c")]
    assert list(ascending(rows, 2, PATH)) == rows


@pytest.mark.parametrize("number", [0, 2, -1, None, "3", 3.0])
def test_a_row_that_is_not_behind_the_one_before_ends_the_reading(number: object) -> None:
    with pytest.raises(StoreDamaged, match="behind number 2") as failure:
        list(ascending(repeat((number, "a")), 2, PATH))
    check_advice(failure.value, PATH, "restore the collection from a backup", "从备份恢复")


def test_a_row_that_comes_twice_ends_the_reading() -> None:
    with pytest.raises(StoreDamaged, match="returns number 3 behind number 3"):
        list(ascending(repeat((3,)), 2, PATH))
