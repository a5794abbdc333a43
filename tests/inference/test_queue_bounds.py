"""The bounds of the queue, and refusals before the tokens are known."""

from collections.abc import Callable, Sequence
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import Overloaded, RequestTooLarge
from server.inference.batching import (
    REOPENED,
    RETRY_AFTER_S,
    Job,
    retry_after_s,
)
from tests.support.queues import LIMITS, RATE, abandon, bulk, fail, job, queue_of


@pytest.mark.parametrize(
    "filling, one_more, limit",
    [
        ([job(100)] * 9 + [job(99)], job(2), LIMITS.interactive_queue_tokens),
        ([bulk(50)] + [bulk(39, number=50)], bulk(2, number=51), LIMITS.bulk_queue_tokens),
    ],
    ids=["interactive", "bulk"],
)
def test_each_kind_has_its_bound(filling: list[Job], one_more: Job, limit: int) -> None:
    queue = queue_of(*filling)
    held = sum(one.tokens for one in filling)
    before = queue.tokens
    with pytest.raises(Overloaded) as refusal:
        queue.add(one_more, 0.0, RATE)
    assert str(held) in refusal.value.message and str(limit) in refusal.value.message
    assert queue.tokens == before


def test_bound_can_be_filled_exactly() -> None:
    queue = queue_of(*[job(100) for _ in range(10)])
    assert queue.tokens == (LIMITS.interactive_queue_tokens, 0)


def test_line_that_refused_a_small_job_takes_the_next_when_a_part_of_it_is_free() -> None:
    queue = queue_of(*[job(64, arrived=place) for place in range(15)])
    queue.check_room(1, 40, RATE)
    with pytest.raises(Overloaded):
        queue.add(job(50), 0.0, RATE)
    for texts, tokens in ((1, 1), (1, 40)):
        with pytest.raises(Overloaded):
            queue.check_room(texts, tokens, RATE)
    queue.take(0.0)
    queue.add(job(50), 0.0, RATE)


def test_line_opens_again_when_exactly_a_part_of_it_is_free() -> None:
    part = LIMITS.interactive_queue_tokens // REOPENED
    others = [67] * 14
    assert part + sum(others) == LIMITS.interactive_queue_tokens
    queue = queue_of(job(part), *[job(each, arrived=1) for each in others])
    with pytest.raises(Overloaded):
        queue.add(job(1), 0.0, RATE)
    queue.take(0.0)
    queue.add(job(part), 0.0, RATE)


def test_line_that_refused_a_large_job_takes_small_ones_at_once() -> None:
    queue = queue_of(*[job(64) for _ in range(15)])
    with pytest.raises(Overloaded):
        queue.add(job(100), 0.0, RATE)
    queue.add(job(40), 0.0, RATE)


def test_full_bulk_queue_refuses_no_single_query() -> None:
    queue = queue_of(bulk(50), bulk(40, number=50))
    assert queue.tokens == (0, LIMITS.bulk_queue_tokens)
    queue.add(job(10), 0.0, RATE)
    with pytest.raises(Overloaded):
        queue.add(bulk(2, number=51), 0.0, RATE)


def test_full_interactive_queue_refuses_no_bulk() -> None:
    queue = queue_of(*[job(100) for _ in range(10)])
    queue.add(bulk(10), 0.0, RATE)
    assert queue.tokens == (1000, 600)


@pytest.mark.parametrize("large", [job(1001), job(*[51] * 99)], ids=["interactive", "bulk"])
def test_job_that_never_fits_is_told_so_and_not_to_retry(large: Job) -> None:
    with pytest.raises(RequestTooLarge) as refusal:
        queue_of().add(large, 0.0, RATE)
    assert str(large.tokens) in refusal.value.message


def test_refusal_says_when_half_of_the_queue_is_done() -> None:
    queue = queue_of(*[job(100) for _ in range(10)])
    with pytest.raises(Overloaded) as refusal:
        queue.add(job(1), 0.0, tokens_per_s=50.0)
    assert refusal.value.retry_after_s == 1000 / 50 / 2


def test_retry_after_is_never_under_a_second_nor_over_a_minute() -> None:
    shortest, longest = RETRY_AFTER_S
    assert retry_after_s(0, 1e9) == shortest
    assert retry_after_s(10**12, 1.0) == longest
    assert retry_after_s(10**6, 0.0) == longest
    waits = [retry_after_s(tokens, 1000.0) for tokens in range(0, 200_000, 5000)]
    assert waits == sorted(waits)
    assert len(set(waits)) > 20


@pytest.mark.parametrize("end", [abandon, fail])
def test_ended_job_keeps_no_room_from_others(end: Callable[[Job], None]) -> None:
    wanted, gone = bulk(10, number=250), bulk(10, number=250)
    queue = queue_of(wanted, gone)
    end(gone)
    queue.lost_interest()
    queue.add(bulk(10, number=200), 0.0, RATE)


def test_room_is_missed_before_the_tokens_are_known_only_where_it_is_certain() -> None:
    # The bulk line has room for 200 tokens, the interactive one for 100.
    queue = queue_of(bulk(48, number=100), *[job(90) for _ in range(10)])
    assert queue.tokens == (900, 4800)
    for texts, tokens in ((1, 100), (2, 100), (50, 150), (200, 200)):
        queue.check_room(texts, tokens, RATE)
    # One long text is interactive, as are two of 100 tokens; from 101 tokens on two are bulk.
    for texts, tokens in ((1, 101), (2, 201), (201, 201)):
        with pytest.raises(Overloaded, match=f"at least {tokens} more"):
            queue.check_room(texts, tokens, RATE)


def test_request_that_may_stand_in_either_line_is_refused_if_both_are_full() -> None:
    small = [job(100) for _ in range(10)]
    full_of_small, full_of_large = queue_of(*small), queue_of(bulk(49, number=102))
    full_of_small.check_room(2, 2, RATE)
    full_of_large.check_room(2, 2, RATE)
    for one in small:
        full_of_large.add(one, 0.0, RATE)
    with pytest.raises(Overloaded):
        full_of_large.check_room(2, 2, RATE)


def test_more_tokens_than_an_empty_line_holds_are_too_many_before_all_are_known() -> None:
    for texts, tokens in ((1, 1001), (5001, 5001)):
        with pytest.raises(RequestTooLarge, match=f"at least {tokens} tokens"):
            queue_of().check_room(texts, tokens, RATE)
    queue_of().check_room(5000, 5000, RATE)


@pytest.mark.parametrize("end", [abandon, fail])
def test_ended_job_keeps_no_room_from_what_is_not_yet_tokenised(
    end: Callable[[Job], None],
) -> None:
    gone = bulk(10, number=500)
    queue = queue_of(gone)
    end(gone)
    queue.lost_interest()
    queue.check_room(200, 200, RATE)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 400), min_size=1, max_size=30), max_size=30),
    st.lists(st.integers(1, 400), min_size=1, max_size=30),
    st.data(),
)
def test_what_would_be_accepted_is_never_refused_before_its_tokens_are_known(
    waiting: Sequence[Sequence[int]], wanted: Sequence[int], data: st.DataObject
) -> None:
    queue = queue_of()
    for one in waiting:
        with suppress(Overloaded, RequestTooLarge):
            queue.add(job(*one), 0.0, RATE)
    known = data.draw(st.integers(len(wanted), sum(wanted)))
    try:
        queue.check_room(len(wanted), known, RATE)
    except (Overloaded, RequestTooLarge):
        with pytest.raises((Overloaded, RequestTooLarge)):
            queue.add(job(*wanted), 0.0, RATE)
    else:
        # Once all tokens are known the answer is that of `add`, and changes nothing.
        try:
            queue.check_room(len(wanted), sum(wanted), RATE)
        except (Overloaded, RequestTooLarge) as refusal:
            with pytest.raises(type(refusal)):
                queue.add(job(*wanted), 0.0, RATE)
