"""The judgement of an overload: of made-up runs, and of a real one of a server that refuses."""

import asyncio

import numpy as np
import pytest

from benchmarks import openloop, workloads
from benchmarks.connection import post
from benchmarks.openloop import Run
from server.config import Config
from tests.stress.runs import overload
from tests.stress.runs.overload import KINDS, Found, Memory, judged, recovery_s
from tests.support.answering import BUSY, OK, serving

CALM = Memory(before_mb=200, peak_mb=220, after_mb=210)


def run(latency_s: list[float], status: list[int], lateness_s: float = 0.0) -> Run:
    late = np.full(len(status), lateness_s)
    return Run(np.array(latency_s), late, np.array(status), waited=0, cpu=0.1)


def found(overloaded: Run, after: Run) -> Found:
    starts = np.arange(len(after.status)) / 10
    return Found(overloaded, seconds=2, after=after, after_s=starts, usual_s=0.02)


USUAL = run([0.005] * 30, [200] * 30)


def test_everything_that_is_asked_may_be_so() -> None:
    line = judged(found(run([1.0, 0.002, 0.003], [200, 429, 429]), USUAL), CALM, bound_s=2)
    assert all(line["asked"].values())
    assert (line["accepted"], line["refused"], line["recovery_s"]) == (1, 2, 0.0)


@pytest.mark.parametrize(
    ("asked", "overloaded", "after", "memory"),
    [
        ("accepted", run([2.1, 0.002], [200, 429]), USUAL, CALM),
        ("accepted", run([0.002, 0.002], [429, 429]), USUAL, CALM),
        ("refused", run([1.0, 0.011], [200, 429]), USUAL, CALM),
        ("refused", run([1.0, 1.0], [200, 200]), USUAL, CALM),
        ("memory", run([1.0, 0.002], [200, 429]), USUAL, Memory(200, 500, 210)),
        ("recovery", run([1.0, 0.002], [200, 429]), run([0.03] * 30, [200] * 30), CALM),
        ("recovery", run([1.0, 0.002], [200, 429]), run([0.005] * 30, [429] * 30), CALM),
    ],
)
def test_each_thing_asked_may_fail_alone(
    asked: str, overloaded: Run, after: Run, memory: Memory
) -> None:
    line = judged(found(overloaded, after), memory, bound_s=2)
    assert [name for name, holds in line["asked"].items() if not holds] == [asked]


def test_refusals_count_from_when_they_were_sent_and_answers_from_when_they_should_have_been() -> (
    None
):
    line = judged(found(run([1.0, 0.505], [200, 429], 0.5), USUAL), CALM, bound_s=2)
    assert line["refused_p99_ms"] == pytest.approx(5)
    assert line["accepted_p99_ms"] == pytest.approx(1000)


def test_recovery_is_the_first_query_from_which_on_all_are_usual() -> None:
    latency, status = [0.005] * 30, [200] * 30
    latency[0] = 1.0
    status[3] = 429
    assert recovery_s(found(USUAL, run(latency, status))) == 0.4
    status[-1] = 429
    assert recovery_s(found(USUAL, run(latency, status))) is None


def test_an_overload_is_driven_beside_the_queries_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(overload, "LATE_MS", 60_000)
    refusal = BUSY.replace(b"\r\n\r\n", b"\r\nretry-after: 1\r\n\r\n")

    async def scenario() -> Found:
        async with serving() as server:
            # The queries are shorter than what overloads.
            server.answer = lambda number: OK if len(server.bodies[number]) < 20 else refusal
            starts = openloop.poisson(100, 0.5, 1)
            large = [post(server.url, b'{"texts": ["' + b"x" * 50 + b'"]}')] * len(starts)
            probes = [post(server.url, b'{"texts": ["x"]}')] * 3
            return await overload._drive(
                server.url, KINDS["single"], large, starts, probes, 0.5, bound_s=1
            )

    run_of_both = asyncio.run(scenario())
    assert set(run_of_both.overload.status) == {429}
    assert set(run_of_both.after.status) == {200}
    assert run_of_both.after_s.tolist() == [0.0, 0.1, 0.2]


def test_large_requests_stand_in_the_line_of_bulk_work() -> None:
    laws = workloads.load("laws", 256, None)
    assert sum(map(len, laws)) > Config().interactive_tokens
    assert KINDS["large"].texts == 256 and KINDS["single"].texts == 1
