"""A batch that does not end: its jobs are answered, and another lane takes its place."""

import time

import pytest

from server.errors import InferenceFailed
from server.inference.lanes import patience_s
from server.telemetry.metrics import Metrics
from tests.support.fakes import PATIENCE_S, Gated, OneModel, eventually
from tests.support.lane_jobs import (
    ECHO,
    LIMITS,
    Answers,
    check_vectors,
    held,
    job_of,
    lane_threads,
    lone,
)

# --- lanes that hang ------------------------------------------------------------------------------


def look_for(lanes: OneModel, seconds: int, begin: float | None = None) -> float:
    """Call `relieve` once a second from now on; return the last moment."""
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
