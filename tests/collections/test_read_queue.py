"""Whose turn it is to read, and who is refused: the policy alone."""

from collections.abc import Sequence
from typing import Any

import pytest

from server.collections.read_queue import JOINED_S, LIGHT_S, MAX_JOINED, Read, ReadQueue
from server.errors import Overloaded

PLAIN, HEAVY = 0.001, 0.5


def laws(items: Sequence[Any]) -> Sequence[Any]:
    return items


def news(items: Sequence[Any]) -> Sequence[Any]:
    return items


def read(cost_s: float, name: str = "", run: Any = laws, *, joins: bool = False) -> Read:
    return Read(cost_s, run, name, None, joins)


def names(turn: Sequence[Read]) -> list[str]:
    return [each.item for each in turn]


def filled(queue: ReadQueue, *reads: Read, now: float = 0.0) -> ReadQueue:
    for each in reads:
        queue.add(each, now)
    return queue


def test_a_thread_is_left_to_light_reads() -> None:
    queue = filled(ReadQueue(2), *(read(HEAVY, str(n)) for n in range(3)))
    first = queue.take()
    assert names(first) == ["0"] and queue.take() == [], "the other thread is not for heavy reads"
    filled(queue, read(PLAIN, "plain"), now=9.0)
    plain = queue.take()
    assert names(plain) == ["plain"] and queue.take() == []
    queue.ended(plain, PLAIN)
    assert queue.take() == []
    queue.ended(first, HEAVY)
    assert names(queue.take()) == ["1"]


def test_a_cheap_read_overtakes_a_dear_one_but_not_for_ever() -> None:
    queue = filled(ReadQueue(2), read(1.0, "dear"))
    for second in range(40):
        filled(queue, read(0.1, str(second)), now=second)
    order = []
    while turn := queue.take():
        order += names(turn)
        queue.ended(turn, turn[0].cost_s)
    assert order[:3] == ["0", "1", "2"]
    assert 10 < order.index("dear") < 25


def test_light_reads_do_not_starve_heavy_ones() -> None:
    queue = filled(ReadQueue(2), read(HEAVY, "heavy"))
    filled(queue, *(read(PLAIN, str(n)) for n in range(100)), now=60.0)
    assert names(queue.take()) == ["heavy"]


def test_searches_of_one_collection_that_wait_run_together() -> None:
    queue = ReadQueue(3)
    filled(queue, *(read(PLAIN, f"law {n}", joins=True) for n in range(3)))
    filled(queue, *(read(PLAIN, f"news {n}", news, joins=True) for n in range(2)))
    of_laws, of_news = queue.take(), queue.take()
    assert names(of_laws) == ["law 0", "law 1", "law 2"]
    assert names(of_news) == ["news 0", "news 1"]
    filled(queue, read(PLAIN, "law 3", joins=True), read(PLAIN, "law 4", joins=True))
    assert queue.take() == [], "they wait for the call that runs"
    queue.ended(of_laws, PLAIN)
    assert names(queue.take()) == ["law 3", "law 4"]


def test_what_runs_together_is_bounded_in_number_and_in_work() -> None:
    queue = filled(ReadQueue(2), *(read(1e-6, joins=True) for _ in range(MAX_JOINED + 1)))
    assert len(queue.take()) == MAX_JOINED
    queue = filled(ReadQueue(2), *(read(JOINED_S / 4, joins=True) for _ in range(9)))
    assert len(queue.take()) == 4
    queue = filled(ReadQueue(2), *(read(LIGHT_S, joins=True) for _ in range(2)))
    assert len(queue.take()) == 1


def test_another_call_begins_once_what_waits_fills_one() -> None:
    queue = filled(ReadQueue(4), *(read(1e-6, joins=True) for _ in range(2 * MAX_JOINED + 1)))
    first, second = queue.take(), queue.take()
    assert len(first) == len(second) == MAX_JOINED
    assert queue.take() == [], "the last one fills no call, and waits for those that run"
    queue.ended(first, PLAIN)
    assert queue.take() == []
    queue.ended(second, PLAIN)
    assert len(queue.take()) == 1
    queue = filled(ReadQueue(4), *(read(LIGHT_S, str(n), joins=True) for n in range(5)))
    assert [names(queue.take()) for _ in range(5)] == [["0"], ["1"], ["2"], ["3"], []]


def test_reads_that_do_not_join_run_side_by_side() -> None:
    queue = filled(ReadQueue(2), *(read(PLAIN, str(n)) for n in range(3)))
    assert [names(queue.take()) for _ in range(3)] == [["0"], ["1"], []]


def test_what_no_client_waits_for_is_dropped() -> None:
    gone, kept = read(PLAIN, "gone"), read(PLAIN, "kept")
    heavy = read(HEAVY, "gone too")
    queue = filled(ReadQueue(2), gone, heavy, kept)
    gone.wanted = heavy.wanted = False
    assert names(queue.take()) == ["kept"] and queue.take() == []


def admitted(queue: ReadQueue, cost_s: float) -> int:
    """How many reads of this cost are admitted before the first refusal."""
    for number in range(100_000):
        try:
            queue.admit(cost_s)
        except Overloaded as error:
            assert 1 <= error.retry_after_s <= 60
            return number
    raise AssertionError("none was refused")


def test_each_kind_has_a_bound_of_its_own() -> None:
    queue = ReadQueue(2)
    assert admitted(queue, HEAVY) == 10, "5 s on one thread"
    assert admitted(queue, PLAIN) == 3_000, "1.5 s on two"
    queue.leave(HEAVY)
    queue.admit(HEAVY)
    with pytest.raises(Overloaded, match=r"5\.0 s of work now, at most 5 s"):
        queue.admit(HEAVY)


def test_a_lone_read_is_admitted_whatever_it_costs() -> None:
    queue = ReadQueue(2)
    for _ in range(3):
        queue.admit(1_000.0)
        with pytest.raises(Overloaded):
            queue.admit(1_000.0)
        queue.leave(1_000.0)


def test_bounds_follow_how_long_reads_take_here() -> None:
    queue = ReadQueue(2)
    for _ in range(200):
        turn = filled(queue, read(HEAVY)).take()
        queue.ended(turn, 5 * HEAVY)
    assert admitted(queue, HEAVY) == 2, "each takes 2.5 s and not 0.5"
