"""The threads around the queue: every job answered exactly once, whatever the encoder does."""

import logging
import random
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count

import numpy as np
import pytest

from server.errors import InferenceFailed, Overloaded, RequestTooLarge, ShuttingDown
from server.inference.batching import BatchLimits, Job
from server.inference.lanes import patience_s
from server.telemetry.metrics import Metrics
from server.types import Encoder, Ids, Vectors
from tests.support.fakes import PATIENCE_S, Broken, Echo, Gated, OneModel, eventually

LIMITS = BatchLimits(
    batch_tokens=256,
    interactive_tokens=200,
    interactive_queue_tokens=1 << 24,
    bulk_queue_tokens=1 << 24,
    bulk_patience_s=0.005,
)
POISON = 13
ECHO = Echo()


class Answers:
    """Counts what the lanes deliver, and can be waited for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count: Counter[Job] = Counter()

    def deliver(self, jobs: Sequence[Job]) -> None:
        with self._changed:
            self._count.update(jobs)
            self._changed.notify_all()

    def wait_for(self, jobs: Sequence[Job]) -> None:
        with self._changed:
            answered = self._changed.wait_for(
                lambda: all(job in self._count for job in jobs), PATIENCE_S
            )
        assert answered, f"{sum(job not in self._count for job in jobs)} of {len(jobs)} waited"

    def check_once_each(self, jobs: Sequence[Job]) -> None:
        assert self._count == Counter(jobs)


class Poisoned(Echo):
    """Fails the batches that have a text which begins with POISON."""

    def encode(self, texts: Sequence[Ids]) -> Vectors:
        if any(ids[0] == POISON for ids in texts):
            raise ArithmeticError("poison")
        return super().encode(texts)


def job_of(*texts: Sequence[int]) -> Job:
    ids = [np.array(text, dtype=np.int64) for text in texts]
    return Job(ids, None, 0.0)


def lone(first: int = 1, length: int = 3) -> Job:
    return job_of([first] * length)


@contextmanager
def running(
    encoder: Encoder, answers: Answers, number: int = 2, limits: BatchLimits = LIMITS
) -> Iterator[OneModel]:
    lanes = OneModel(encoder, limits, Metrics(), answers.deliver, number)
    try:
        yield lanes
    finally:
        lanes.close(PATIENCE_S)


@contextmanager
def held(
    number: int = 1, limits: BatchLimits = LIMITS, encoder: Encoder = ECHO
) -> Iterator[tuple[OneModel, Gated, Answers]]:
    """Lanes that stop at a shut gate with the first batch each takes."""
    answers, gate = Answers(), Gated(encoder)
    try:
        with running(gate, answers, number, limits) as lanes:
            try:
                yield lanes, gate, answers
            finally:
                gate.open()
    finally:
        gate.open()


def check_vectors(job: Job) -> None:
    assert [result.tolist() for result in job.results] == [
        [float(ids[0]), float(len(ids))] for ids in job.ids
    ]


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
        """A batch is not done before another one has begun."""

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
    """Texts of 50 tokens and more stand at a gate until it is opened."""

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


def lane_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("lane-")]


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


# --- lanes that hang ------------------------------------------------------------------------------


def look_for(lanes: OneModel, seconds: int, begin: float | None = None) -> float:
    """Have the lanes looked after once a second from now on; returns the last moment."""
    moment = time.perf_counter() if begin is None else begin
    for _ in range(seconds):
        moment += 1.0
        lanes.relieve(moment)
    return moment


def test_batch_that_hangs_is_answered_and_another_lane_takes_its_place() -> None:
    with held(number=1) as (lanes, gate, answers):
        stuck, waiting = job_of([1] * 5, [2] * 5), lone(3)
        lanes.put(stuck)
        assert gate.entered.wait(PATIENCE_S)
        moment = look_for(lanes, 25)
        answers.check_once_each([])
        assert lanes.sound
        gate.entered.clear()
        lanes.put(waiting)
        look_for(lanes, 10, moment)
        answers.wait_for([stuck])
        assert isinstance(stuck.error, InferenceFailed) and "did not end" in stuck.error.message
        assert gate.entered.wait(PATIENCE_S), "the lane in its place has begun"
        assert not lanes.sound
        assert len(lane_threads()) == 3, "the one that hangs, the one in its place, the express"
        gate.open()
        answers.wait_for([waiting])
        check_vectors(waiting)
        eventually(lambda: len(lane_threads()) == 2)
        assert lanes.sound, "it came back"
    answers.check_once_each([stuck, waiting])


def test_hung_lanes_are_counted_and_do_not_keep_the_lanes_from_closing() -> None:
    answers, gate, metrics = Answers(), Gated(ECHO), Metrics()
    lanes = OneModel(gate, LIMITS, metrics, answers.deliver, 2)
    jobs = [lone(1, 3), lone(2, 4)]
    for job in jobs:
        gate.entered.clear()
        lanes.put(job)
        assert gate.entered.wait(PATIENCE_S)
    look_for(lanes, 40)
    answers.wait_for(jobs)
    assert metrics.registry.get_sample_value("inkwell_hung_lanes_total") == 2
    lanes.close(PATIENCE_S)
    gate.open()
    answers.check_once_each(jobs)
    eventually(lambda: lane_threads() == [])


def test_batch_of_a_process_that_was_stopped_for_a_while_does_not_hang() -> None:
    with held(number=1) as (lanes, gate, answers):
        job = lone()
        lanes.put(job)
        assert gate.entered.wait(PATIENCE_S)
        moment = look_for(lanes, 3)
        lanes.relieve(moment + 3600.0)
        answers.check_once_each([])
        gate.open()
        answers.wait_for([job])
        check_vectors(job)


def test_batch_of_a_slow_model_may_take_as_long_as_its_tokens_explain() -> None:
    assert patience_s(256, 10_000.0, 30.0) == pytest.approx(30.256)
    assert patience_s(256, 64.0, 30.0) == pytest.approx(70.0)
    assert patience_s(8192, 0.0, 1.0) == pytest.approx(81_921.0)
