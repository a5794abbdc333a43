"""The threads around the queue: every job answered exactly once, whatever the encoder does."""

import logging
import random
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from itertools import count

import numpy as np
import pytest

from server.errors import InferenceFailed, Overloaded, RequestTooLarge, ShuttingDown
from server.inference.batching import BatchLimits, Job
from server.telemetry.metrics import Metrics
from server.types import Ids, Vectors
from tests.support.fakes import PATIENCE_S, Broken, Echo, Gated, OneModel, eventually
from tests.support.lane_jobs import (
    ECHO,
    LIMITS,
    POISON,
    Answers,
    Poisoned,
    check_vectors,
    held,
    job_of,
    lane_threads,
    lone,
    running,
)


def test_every_job_of_many_threads_is_answered_once_with_its_own_vectors() -> None:
    answers, numbers, submitted = Answers(), count(100), []
    jobs_of_thread: list[list[Job]] = [[] for _ in range(8)]
    start = threading.Barrier(8)

    def submit(index: int, lanes: OneModel) -> None:
        choose = random.Random(index)
        start.wait(PATIENCE_S)
        for _ in range(150):
            texts = [[next(numbers)] * choose.randint(1, 40) for _ in range(choose.choice((1, 9)))]
            if choose.random() < 0.1:
                choose.choice(texts)[0] = POISON
            jobs_of_thread[index].append(job_of(*texts))
            lanes.put(jobs_of_thread[index][-1])

    with running(Poisoned(), answers, 4) as lanes:
        threads = [threading.Thread(target=submit, args=(index, lanes)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        submitted = [job for jobs in jobs_of_thread for job in jobs]
        answers.wait_for(submitted)
    assert len(submitted) == 1200
    answers.check_once_each(submitted)
    right = [job for job in submitted if job.error is None]
    assert 0 < len(right) < len(submitted)
    for job in right:
        check_vectors(job)
    poisoned = [job for job in submitted if any(ids[0] == POISON for ids in job.ids)]
    assert all(isinstance(job.error, InferenceFailed) for job in poisoned)


def test_failed_batch_answers_every_waiter_and_the_lane_lives_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with held(encoder=Poisoned()) as (lanes, gate, answers):
        first = lone()
        lanes.put(first)
        assert gate.entered.wait(PATIENCE_S)
        doomed = [lone(POISON), lone(2), lone(3)]
        for job in doomed:
            lanes.put(job)
        gate.open()
        answers.wait_for(doomed)
        later = lone(4)
        lanes.put(later)
        answers.wait_for([later])
    answers.check_once_each([first, *doomed, later])
    check_vectors(first)
    check_vectors(later)
    assert [type(job.error) for job in doomed] == [InferenceFailed] * 3
    assert "ArithmeticError" in str(doomed[1].error)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_job_that_fails_in_several_batches_is_answered_once() -> None:
    answers = Answers()
    job = job_of(*[[POISON] * 200 for _ in range(20)])
    with running(Broken(), answers, 3) as lanes:
        lanes.put(job)
        answers.wait_for([job])
    answers.check_once_each([job])


def one_more(vectors: Vectors) -> Vectors:
    return np.concatenate([vectors, vectors[:1]])


def one_less(vectors: Vectors) -> Vectors:
    return vectors[1:]


@pytest.mark.parametrize("bend", [one_more, one_less])
def test_results_of_the_wrong_number_are_a_failure_and_no_answer(
    bend: Callable[[Vectors], Vectors],
) -> None:
    class Bent(Echo):
        def encode(self, texts: Sequence[Ids]) -> Vectors:
            vectors = super().encode(texts)
            return bend(vectors) if texts[0][0] == POISON else vectors

    answers, wrong, right = Answers(), lone(POISON), lone(7)
    with running(Bent(), answers, 1) as lanes:
        lanes.put(wrong)
        answers.wait_for([wrong])
        lanes.put(right)
        answers.wait_for([right])
    answers.check_once_each([wrong, right])
    assert isinstance(wrong.error, InferenceFailed)
    check_vectors(right)


def test_wide_encoder_runs_what_has_the_cpu_to_itself_and_nothing_else() -> None:
    answers, narrow, wide = Answers(), Gated(Echo()), Gated(Echo())
    lanes = OneModel(narrow, LIMITS, Metrics(), answers.deliver, 2, wide)
    try:
        first = lone(1)
        lanes.put(first)
        assert wide.entered.wait(PATIENCE_S)
        assert not narrow.entered.is_set()
        second = lone(2)
        lanes.put(second)
        assert narrow.entered.wait(PATIENCE_S)
        third = lone(3)
        lanes.put(third)
        narrow.open()
        answers.wait_for([second, third])
        assert (wide.texts, narrow.texts) == (0, 2)
        wide.open()
        answers.wait_for([first])
    finally:
        narrow.open()
        wide.open()
        lanes.close(PATIENCE_S)
    answers.check_once_each([first, second, third])
    assert (wide.texts, narrow.texts) == (1, 2)


def test_batch_that_leaves_others_waiting_is_not_run_wide() -> None:
    answers, narrow, wide = Answers(), Gated(Echo()), Gated(Echo())
    lanes = OneModel(narrow, LIMITS, Metrics(), answers.deliver, 1, wide)
    try:
        job = job_of(*[[1] * 200 for _ in range(3)])
        lanes.put(job)
        assert narrow.entered.wait(PATIENCE_S)
        narrow.open()
        assert wide.entered.wait(PATIENCE_S)
        wide.open()
        answers.wait_for([job])
    finally:
        lanes.close(PATIENCE_S)
    assert (narrow.texts, wide.texts) == (2, 1)
    check_vectors(job)


def test_job_of_several_batches_is_computed_by_all_idle_lanes_at_once() -> None:
    class Meeting(Echo):
        """Ends no batch before another one has begun."""

        both = threading.Barrier(2)

        def encode(self, texts: Sequence[Ids]) -> Vectors:
            self.both.wait(PATIENCE_S)
            return super().encode(texts)

    answers, job = Answers(), job_of([1] * 200, [2] * 200, [3] * 200, [4] * 200)
    with running(Meeting(), answers, 2) as lanes:
        eventually(lambda: lanes._idle == 2)
        lanes.put(job)
        answers.wait_for([job])
    check_vectors(job)


class Heavy(Echo):
    """Holds texts of 50 tokens and more at a gate until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.entered = threading.Event(), threading.Semaphore(0)

    def encode(self, texts: Sequence[Ids]) -> Vectors:
        if len(texts[0]) >= 50:
            self.entered.release()
            assert self.gate.wait(PATIENCE_S)
        return super().encode(texts)


def test_a_query_does_not_wait_for_bulk_work_under_way() -> None:
    encoder, answers = Heavy(), Answers()
    bulk = job_of(*[[1] * 60] * 40)
    with running(encoder, answers) as lanes:
        try:
            lanes.put(bulk)
            for _ in range(2):
                assert encoder.entered.acquire(timeout=PATIENCE_S)
            queries = [lone(n + 1) for n in range(20)]
            for query in queries:
                lanes.put(query)
            answers.wait_for(queries)
            assert bulk.remaining == 40
        finally:
            encoder.gate.set()
        answers.wait_for([bulk])
    answers.check_once_each([*queries, bulk])
    for job in (*queries, bulk):
        check_vectors(job)


def test_express_lane_takes_no_bulk_work() -> None:
    encoder, answers = Heavy(), Answers()
    with running(encoder, answers) as lanes:
        try:
            first, second = job_of(*[[1] * 250] * 2), job_of(*[[1] * 240] * 2)
            lanes.put(first)
            lanes.put(second)
            for _ in range(2):
                assert encoder.entered.acquire(timeout=PATIENCE_S)
            assert not encoder.entered.acquire(timeout=0.05), "a third batch of bulk work runs"
        finally:
            encoder.gate.set()
        answers.wait_for([first, second])
    answers.check_once_each([first, second])


def test_failure_of_the_wide_encoder_is_answered_too() -> None:
    answers, job, later = Answers(), lone(1), job_of([1] * 200, [2] * 200)
    lanes = OneModel(Echo(), LIMITS, Metrics(), answers.deliver, 1, Broken())
    lanes.put(job)
    answers.wait_for([job])
    lanes.put(later)
    answers.wait_for([later])
    lanes.close(PATIENCE_S)
    answers.check_once_each([job, later])
    assert isinstance(job.error, InferenceFailed)
    assert isinstance(later.error, InferenceFailed)


def test_abandoned_job_costs_no_computation() -> None:
    with held() as (lanes, gate, answers):
        first, gone, wanted = lone(), job_of(*[[2] * 50] * 40), lone(3)
        lanes.put(first)
        assert gate.entered.wait(PATIENCE_S)
        lanes.put(gone)
        lanes.put(wanted)
        lanes.leave(gone)
        gate.open()
        answers.wait_for([first, wanted])
    answers.check_once_each([first, wanted])
    assert gate.texts == 2
    check_vectors(wanted)


def test_refused_job_is_not_answered_and_leaves_nothing() -> None:
    small = BatchLimits(16, 16, interactive_queue_tokens=20, bulk_queue_tokens=20)
    with held(limits=small) as (lanes, gate, answers):
        accepted = [lone(length=10) for _ in range(3)]
        lanes.put(accepted[0])
        assert gate.entered.wait(PATIENCE_S)
        lanes.put(accepted[1])
        lanes.put(accepted[2])
        with pytest.raises(Overloaded):
            lanes.put(lone())
        with pytest.raises(RequestTooLarge):
            lanes.put(lone(length=21))
        gate.open()
        answers.wait_for(accepted)
    answers.check_once_each(accepted)


def test_abandoned_job_makes_room_in_a_full_queue() -> None:
    small = BatchLimits(16, 16, interactive_queue_tokens=20, bulk_queue_tokens=20)
    with held(limits=small) as (lanes, gate, answers):
        first, gone, wanted = (lone(length=20) for _ in range(3))
        lanes.put(first)
        assert gate.entered.wait(PATIENCE_S)
        lanes.put(gone)
        with pytest.raises(Overloaded):
            lanes.put(wanted)
        lanes.leave(gone)
        lanes.put(wanted)
        gate.open()
        answers.wait_for([first, wanted])
    answers.check_once_each([first, wanted])


def test_model_that_leaves_is_let_go_when_the_last_that_waits_for_it_is_abandoned() -> None:
    with held() as (lanes, gate, _):
        lanes.put(lone())
        assert gate.entered.wait(PATIENCE_S)
        encoder, gone = Echo(), lone()
        kept = weakref.ref(encoder)
        leaving = lanes.admit(encoder, LIMITS)
        lanes.submit(leaving, gone)
        lanes.dismiss(leaving)
        del encoder
        assert kept() is not None
        lanes.abandon(leaving, gone)
        del leaving
        assert kept() is None


def test_model_that_leaves_is_let_go_when_its_batch_ends_and_the_rest_is_abandoned() -> None:
    answers = Answers()
    with running(ECHO, answers, 1) as lanes:
        encoder, gone = Gated(Echo()), job_of(*[[2] * 200] * 4)
        kept = weakref.ref(encoder)
        leaving = lanes.admit(encoder, LIMITS)
        lanes.submit(leaving, gone)
        lanes.wake()
        assert encoder.entered.wait(PATIENCE_S)
        lanes.dismiss(leaving)
        lanes.abandon(leaving, gone)
        encoder.open()
        del leaving, encoder
        eventually(lambda: kept() is None)


def test_close_finishes_accepted_work_and_refuses_new() -> None:
    with held(2) as (lanes, gate, answers):
        jobs = [job_of(*[[i] * 30 for i in range(20)]) for _ in range(20)]
        for job in jobs:
            lanes.put(job)
        assert gate.entered.wait(PATIENCE_S)
        closing = threading.Thread(target=lanes.close, args=(PATIENCE_S,))
        closing.start()
        eventually(lambda: not lanes.accepting)
        with pytest.raises(ShuttingDown) as refusal:
            lanes.put(lone())
        assert refusal.value.retry_after_s > 0
        gate.open()
        closing.join(PATIENCE_S)
        assert not closing.is_alive()
        answers.check_once_each(jobs)
        for job in jobs:
            check_vectors(job)


def test_close_fails_what_is_left_after_the_limit() -> None:
    with held() as (lanes, gate, answers):
        begun, half, waiting, gone = lone(), job_of([1] * 200, [2] * 201), lone(3, 50), lone(4)
        lanes.put(begun)
        assert gate.entered.wait(PATIENCE_S)
        for job in (half, waiting, gone):
            lanes.put(job)
        lanes.leave(gone)
        lanes.close(0.0)
        answers.check_once_each([half, waiting])
        assert [type(job.error) for job in (half, waiting)] == [ShuttingDown] * 2
        gate.open()
        answers.wait_for([begun])
    answers.check_once_each([half, waiting, begun])
    check_vectors(begun)
    assert gate.texts == 1


def test_job_under_way_at_the_limit_is_answered_once_when_its_batch_ends_late() -> None:
    with held() as (lanes, gate, answers):
        job = job_of([1] * 200, [2] * 200)
        lanes.put(job)
        assert gate.entered.wait(PATIENCE_S)
        lanes.close(0.0)
        answers.check_once_each([job])
        assert isinstance(job.error, ShuttingDown)
    answers.check_once_each([job])


def test_closing_twice_is_harmless() -> None:
    answers = Answers()
    with running(Echo(), answers) as lanes:
        lanes.close(PATIENCE_S)
        lanes.close(PATIENCE_S)
    answers.check_once_each([])


def test_closed_lanes_leave_no_thread() -> None:
    with running(Echo(), Answers(), 3):
        assert len(lane_threads()) == 4, "three, and the express lane"
    assert lane_threads() == []


def test_idle_lanes_sleep() -> None:
    def cpu_seconds() -> list[float]:
        clocks = [time.pthread_getcpuclockid(thread.ident or 0) for thread in lane_threads()]
        return [time.clock_gettime(clock) for clock in clocks]

    answers = Answers()
    with running(Echo(), answers, 3) as lanes:
        jobs = [lone(length=1 + i % 9) for i in range(30)]
        for job in jobs:
            lanes.put(job)
        answers.wait_for(jobs)
        # A lane that wakes up by itself would use some time in each of the spans.
        spans = []
        for _ in range(5):
            before = cpu_seconds()
            time.sleep(0.1)
            spans.append(cpu_seconds() == before)
        assert len(before) == 4
        assert any(spans)


def test_counters_tell_what_happened() -> None:
    answers, metrics = Answers(), Metrics()
    lanes = OneModel(Poisoned(), LIMITS, metrics, answers.deliver, 2)
    jobs = [lone(POISON), lone(1), job_of([1, 2], [3, 4])]
    for job in jobs:
        lanes.put(job)
        answers.wait_for([job])
    lanes.close(PATIENCE_S)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    assert value("inkwell_failed_batches_total") == 1
    assert value("inkwell_batch_texts_sum") == 3
    assert value("inkwell_batch_tokens_sum") == 7
    assert value("inkwell_lanes") == 2
    assert value("inkwell_queue_tokens", kind="interactive") == 0
    assert value("inkwell_queue_tokens", kind="bulk") == 0
