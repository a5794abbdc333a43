"""The remaining time of a run, which new documents take up."""

import pytest

from server.cli.indexing.pace import RECENT, Pace

# Bytes and seconds of a batch of 100 documents.
SIZE, NEW_S, OLD_S = 1_000, 4.0, 0.01


def paced(batches: list[tuple[int, float]], n_bytes: int) -> Pace:
    """Return the pace after batches, each with its new documents and its seconds."""
    pace, moment, n_read = Pace(n_bytes, 0), 0.0, 0
    for added, seconds in batches:
        moment, n_read = moment + seconds, n_read + SIZE
        pace.add(moment, n_read, added, 100 - added)
    return pace


def test_the_rest_takes_as_long_as_what_was_new() -> None:
    pace = paced([(100, NEW_S)] * 5, 20 * SIZE)
    assert pace.left_s == pytest.approx(15 * NEW_S)
    assert pace.per_second == pytest.approx(100 / NEW_S)


@pytest.mark.parametrize("number", [1, 5, RECENT, 200])
def test_what_was_stored_before_says_nothing_of_the_rest(number: int) -> None:
    """A run that continues: the first batches go by in an instant, and the rest is new."""
    before = [(0, OLD_S)] * number
    n_bytes = (number + 50) * SIZE
    assert paced(before, n_bytes).left_s is None
    assert paced(before, n_bytes).per_second == pytest.approx(100 / OLD_S)
    for new in (1, 2, 30):
        pace = paced([*before, *[(100, NEW_S)] * new], n_bytes)
        assert pace.left_s == pytest.approx((50 - new) * NEW_S)
        assert pace.per_second == pytest.approx(100 / NEW_S)


def test_changes_here_and_there_are_judged_together() -> None:
    mixed = [(100, NEW_S), (0, OLD_S), (0, OLD_S), (0, OLD_S)] * 8
    pace = paced(mixed, 64 * SIZE)
    assert pace.left_s == pytest.approx(32 * (NEW_S + 3 * OLD_S) / 4)


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert paced([(100, NEW_S)], 0).left_s is None
    assert paced([], SIZE).left_s is None
    assert paced([(100, NEW_S), *[(0, OLD_S)] * RECENT], 64 * SIZE).left_s is None
