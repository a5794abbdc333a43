"""The policy as a pure function of `now`, and its promises under random use."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import Overloaded
from server.inference.batching import (
    Item,
    Job,
    Queue,
)
from server.types import Packing
from tests.support.queues import (
    LIMITS,
    RATE,
    SEVERAL,
    abandon,
    bulk,
    fail,
    job,
    lengths,
    owners,
    queue_of,
    take_all,
)


def test_empty_queue_gives_an_empty_batch() -> None:
    assert queue_of().take(0.0) == []


def test_lone_text_is_taken_at_once() -> None:
    lone = job(7, arrived=5.0)
    assert owners(queue_of(lone).take(5.0)) == [lone]


def test_equal_lengths_go_together_up_to_the_token_budget() -> None:
    queue = queue_of(*[job(10, arrived=i) for i in range(9)])
    assert [lengths(batch) for batch in take_all(queue)] == [[10] * 6, [10] * 3]


def test_batch_for_an_encoder_of_rectangles_has_one_length() -> None:
    queue = queue_of(*[job(5 + i % 3, arrived=i) for i in range(12)])
    assert [lengths(batch) for batch in take_all(queue)] == [[5] * 4, [6] * 4, [7] * 4]


def test_text_longer_than_the_budget_goes_alone() -> None:
    queue = queue_of(job(90), job(90, arrived=1))
    assert [lengths(batch) for batch in take_all(queue)] == [[90], [90]]


def test_oldest_text_chooses_the_length() -> None:
    queue = queue_of(job(30, arrived=1), job(9, arrived=2), job(30, arrived=3), job(4, arrived=4))
    assert [lengths(batch) for batch in take_all(queue)] == [[30, 30], [9], [4]]


def test_other_lengths_fill_the_batch_side_by_side_and_oldest_first() -> None:
    jobs = [job(length, arrived=i) for i, length in enumerate((10, 7, 10, 5, 7, 10))]
    assert lengths(queue_of(*jobs, groups=4).take(0.0)) == [10, 10, 10, 7, 7, 5]


def test_batch_has_as_many_lengths_as_the_encoder_takes() -> None:
    queue = queue_of(*[job(3 + i, arrived=i) for i in range(7)], groups=3)
    assert [lengths(batch) for batch in take_all(queue)] == [[3, 4, 5], [6, 7, 8], [9]]


def test_text_too_long_to_be_packed_has_only_its_own_length_for_company() -> None:
    first = queue_of(
        job(21), job(9, arrived=1), job(21, arrived=2), job(20, arrived=3), groups=4, longest=20
    )
    assert [lengths(batch) for batch in take_all(first)] == [[21, 21], [9, 20]]
    later = queue_of(
        job(9), job(21, arrived=1), job(20, arrived=2), job(9, arrived=3), groups=4, longest=20
    )
    assert [lengths(batch) for batch in take_all(later)] == [[9, 9, 20], [21]]


def test_mixed_lengths_stay_within_the_token_budget() -> None:
    queue = queue_of(job(30), job(40, arrived=1), job(20, arrived=2), job(30, arrived=3), groups=4)
    assert [lengths(batch) for batch in take_all(queue)] == [[30, 30], [40, 20]]


def test_text_longer_than_the_budget_goes_alone_also_beside_shorter_ones() -> None:
    queue = queue_of(job(90), job(1, arrived=1), groups=4)
    assert [lengths(batch) for batch in take_all(queue)] == [[90], [1]]


def test_first_in_is_first_out_within_a_length() -> None:
    jobs = [job(16, arrived=i) for i in range(11)]
    batches = take_all(queue_of(*jobs))
    assert [one for batch in batches for one in owners(batch)] == jobs


def test_texts_of_a_job_keep_their_order_within_a_length() -> None:
    queue = queue_of(job(8, 9, 8, 9, 8))
    assert [item.position for item in queue.take(0.0)] == [0, 2, 4]
    assert [item.position for item in queue.take(0.0)] == [1, 3]


def test_interactive_goes_before_bulk_that_came_earlier() -> None:
    large, small = bulk(12), job(5, arrived=0.5)
    queue = queue_of(large, small)
    assert owners(queue.take(0.6)) == [small]
    assert owners(queue.take(0.6)) == [large] * 5


def test_a_single_text_is_interactive_however_long() -> None:
    queue = queue_of()
    assert queue.is_interactive(job(101))
    assert queue.is_interactive(job(50, 50))
    assert not queue.is_interactive(job(50, 51))


def test_bulk_is_served_when_none_of_it_has_run_for_the_patience() -> None:
    step_s = 0.25
    queue = queue_of(bulk(12))
    served = []
    for tick in range(1, 41):
        now = tick * step_s
        queue.add(job(5, arrived=now), now, RATE)
        batch = queue.take(now)
        if lengths(batch) == [12] * 5:
            served.append(now)
        queue.ended(batch, now)
    gaps = np.diff([0.0, *served])
    assert len(served) >= 9
    assert gaps.max() <= LIMITS.bulk_patience_s + step_s


def test_bulk_takes_no_more_than_its_turn_while_interactive_waits() -> None:
    queue = queue_of(bulk(12), *[job(5 + i, arrived=0.1) for i in range(5)])
    turn = queue.take(1.0)
    assert lengths(turn) == [12] * 5
    assert queue.bulk_running
    assert lengths(queue.take(1.5)) == [5]
    # However long its batch takes, the other lanes are not bulk's.
    assert lengths(queue.take(9.0)) == [6]
    queue.ended(turn, 9.0)
    assert not queue.bulk_running
    assert lengths(queue.take(9.9)) == [7]
    assert lengths(queue.take(10.0)) == [12] * 5
    assert lengths(queue.take(10.1)) == [8]


def test_bulk_has_every_lane_where_nobody_else_waits() -> None:
    queue = queue_of(bulk(12, number=20))
    assert [lengths(queue.take(0.0)) for _ in range(4)] == [[12] * 5] * 4


def test_patience_begins_when_bulk_work_begins_to_wait() -> None:
    queue = queue_of(bulk(12, arrived=100.0), job(5, arrived=100.0))
    assert lengths(queue.take(100.9)) == [5]
    queue.add(job(5, arrived=100.9), 100.9, RATE)
    assert lengths(queue.take(101.0)) == [12] * 5


def test_a_lane_takes_no_more_than_its_share_of_what_waits_and_runs() -> None:
    queue = Queue(LIMITS, SEVERAL, lanes=2)
    for _ in range(8):
        queue.add(job(5), 0.0, RATE)
    first = queue.take(0.0)
    assert lengths(first) == [5] * 4
    # 20 run and 20 wait: half of that is 20 once more.
    assert lengths(queue.take(0.0)) == [5] * 4
    assert queue.take(0.0) == []
    queue.ended(first, 1.0)
    queue.add(job(5), 1.0, RATE)
    queue.add(job(5), 1.0, RATE)
    # 20 run and 10 wait: 15 would be fair, which is all of it.
    last = queue.take(1.0)
    assert lengths(last) == [5, 5]


def test_a_text_longer_than_the_share_is_taken_alone() -> None:
    queue = Queue(LIMITS, SEVERAL, lanes=4)
    for length in (12, 3):
        queue.add(job(length), 0.0, RATE)
    assert lengths(queue.take(0.0)) == [12]
    assert lengths(queue.take(0.0)) == [3]


def test_what_did_not_wait_counts_as_running() -> None:
    queue = Queue(LIMITS, SEVERAL, lanes=2)
    beside = [Item(job(10), 0, np.zeros(10, dtype=np.int64))]
    queue.began(beside)
    queue.add(job(5), 0.0, RATE)
    queue.add(job(5), 0.0, RATE)
    assert lengths(queue.take(0.0)) == [5, 5]
    queue.ended(beside, 0.0)
    queue.add(job(5), 0.0, RATE)
    queue.add(job(5), 0.0, RATE)
    assert lengths(queue.take(0.0)) == [5, 5]


@pytest.mark.parametrize("length", [10, 9], ids=["same length", "other length"])
def test_kinds_never_share_a_batch(length: int) -> None:
    large, small = bulk(length), job(10, arrived=0.5)
    queue = queue_of(large, small, groups=2)
    assert owners(queue.take(0.5)) == [small]
    turn = queue.take(0.5)
    assert set(owners(turn)) == {large}
    queue.ended(turn, 0.5)
    queue.add(job(length, arrived=2.0), 2.0, RATE)
    assert set(owners(queue.take(9.0))) == {large}


def test_interactive_can_be_asked_for_also_when_bulk_is_due() -> None:
    large, small = bulk(10), job(10, arrived=0.5)
    queue = queue_of(large, small)
    assert owners(queue.take_interactive()) == [small]
    assert queue.take_interactive() == []
    assert set(owners(queue.take(9.0))) == {large}


@pytest.mark.parametrize("end", [abandon, fail])
def test_ended_job_is_dropped_before_it_costs(end: Callable[[Job], None]) -> None:
    gone, wanted = job(10, 20, 10), job(10, arrived=1)
    large = bulk(10, arrived=2)
    queue = queue_of(gone, wanted, large)
    end(gone)
    end(large)
    assert [owners(batch) for batch in take_all(queue)] == [[wanted]]
    assert queue.tokens == (0, 0)


@pytest.mark.parametrize("end", [abandon, fail])
def test_job_that_ends_half_way_is_dropped_from_there(end: Callable[[Job], None]) -> None:
    large = bulk(32, number=9)
    queue = queue_of(large)
    assert len(queue.take(0.0)) == 2
    end(large)
    assert queue.take(0.0) == []
    assert queue.tokens == (0, 0)


def test_drain_gives_each_waiting_job_once_and_empties_the_queue() -> None:
    gone, small, large = job(5, 6), job(7, 8, 9), bulk(10, number=20)
    queue = queue_of(gone, small, large)
    queue.take(0.0)
    abandon(gone)
    drained = queue.drain()
    assert len(drained) == 2
    assert {id(one) for one in drained} == {id(small), id(large)}
    assert queue.tokens == (0, 0)
    assert queue.take(9.0) == []


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.integers(1, 40), min_size=1, max_size=12)),
        st.tuples(st.just("take"), st.floats(0, 2)),
        st.tuples(st.sampled_from(["abandon", "fail"]), st.integers(0, 30)),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(ACTIONS, st.sampled_from([Packing(1, 512), Packing(3, 512), Packing(3, 20)]))
def test_every_wanted_text_is_handed_out_exactly_once(
    actions: Sequence[tuple[str, Any]], packing: Packing
) -> None:
    queue = Queue(LIMITS, packing)
    jobs: list[Job] = []
    handed: set[tuple[int, int]] = set()
    now = 0.0

    def take() -> bool:
        batch = queue.take(now)
        assert not batch or packing.allows(lengths(batch))
        assert len(list(groupby(lengths(batch)))) == len(set(lengths(batch)))
        assert sum(lengths(batch)) <= LIMITS.batch_tokens or len(batch) == 1
        for item in batch:
            assert not item.job.abandoned and item.job.error is None
            key = (jobs.index(item.job), item.position)
            assert key not in handed
            handed.add(key)
        return bool(batch)

    for action, value in actions:
        if action == "add":
            one = job(*value, arrived=now)
            before = queue.tokens
            try:
                queue.add(one, now, RATE)
            except Overloaded:
                assert queue.tokens == before
            else:
                jobs.append(one)
        elif action == "take":
            now += value
            take()
        elif jobs:
            {"abandon": abandon, "fail": fail}[action](jobs[value % len(jobs)])

    while take():
        pass
    wanted = {
        (index, position)
        for index, one in enumerate(jobs)
        if not one.abandoned and one.error is None
        for position in range(len(one.ids))
    }
    assert wanted <= handed
    assert queue.tokens == (0, 0)
