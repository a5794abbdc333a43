"""The generator of open loops against a real server that can stall, refuse and hang up."""

import asyncio
import json

import numpy as np
import pytest

from benchmarks import openloop, workloads
from benchmarks.closedloop import LOAD
from benchmarks.connection import Failed, post
from benchmarks.openloop import Overload, Run, drive, poisson
from tests.support.answering import BUSY, LAST, OK, Server, serving

# Of a stall: far above what a busy machine adds to a request by itself.
STALL_S = 0.3


def requests(url: str, count: int) -> list[bytes]:
    texts = workloads.unique(["墨", "池"], range(count))
    return [post(url, json.dumps({"texts": [text]}).encode()) for text in texts]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine fails no test that is not about lateness."""
    monkeypatch.setattr(openloop, "LATE_MS", 60_000)


@pytest.mark.usefixtures("patient")
def test_every_request_is_sent_once_over_few_connections() -> None:
    async def scenario() -> tuple[Run, Server]:
        async with serving() as server:
            starts = poisson(1000, 0.3, seed=1)
            found = await drive(server.url, requests(server.url, len(starts)), starts, 8)
            return found, server

    found, server = asyncio.run(scenario())
    count = len(poisson(1000, 0.3, seed=1))
    assert len(found.latency_s) == len(found.lateness_s) == len(server.bodies) == count
    assert len(set(server.bodies)) == count
    assert server.connections == 8
    assert (found.latency_s > 0).all() and (found.lateness_s >= 0).all()


@pytest.mark.usefixtures("patient")
def test_requests_due_while_the_server_stalls_are_charged_from_their_starts() -> None:
    async def scenario() -> Run:
        async with serving() as server:
            starts = np.array([0.0, 0.05, 0.1, 0.15])
            made = requests(server.url, len(starts))
            server.stall(STALL_S)
            return await drive(server.url, made, starts, 1)

    found = asyncio.run(scenario())
    assert found.waited == 3
    # The stall began before the first start by as long as opening a connection takes.
    assert found.latency_s == pytest.approx([0.3, 0.25, 0.2, 0.15], abs=0.1)
    assert (np.diff(found.latency_s) < 0).all()
    assert (found.lateness_s < found.latency_s).all()


@pytest.mark.usefixtures("patient")
def test_a_stall_on_one_connection_does_not_hold_back_the_others() -> None:
    async def scenario() -> Run:
        async with serving() as server:
            starts = np.array([0.0, 0.01, 0.02, 0.03])
            made = requests(server.url, len(starts))

            def answer(number: int) -> bytes:
                if number == 0:
                    server.open.clear()
                if number == 3:
                    server.open.set()
                return OK

            server.answer = answer
            return await drive(server.url, made, starts, 4)

    found = asyncio.run(scenario())
    assert found.waited == 0
    assert found.latency_s[0] >= 0.03


@pytest.mark.usefixtures("patient")
def test_an_idle_connection_that_the_server_closes_is_opened_again() -> None:
    async def scenario() -> tuple[Run, Server]:
        async with serving() as server:
            server.answer = lambda number: LAST if number == 0 else OK
            starts = np.array([0.0, 0.2, 0.21])
            found = await drive(server.url, requests(server.url, len(starts)), starts, 1)
            return found, server

    found, server = asyncio.run(scenario())
    assert len(server.bodies) == 3 and server.connections == 2
    assert found.latency_s.all()


def test_a_generator_that_is_late_fails_the_run() -> None:
    async def scenario() -> None:
        async with serving() as server:
            starts = np.linspace(-0.2, -0.1, 20)
            await drive(server.url, requests(server.url, len(starts)), starts, 20)

    with pytest.raises(Failed, match=r"sent \d+\.\d ms late, 10\.0 are allowed"):
        asyncio.run(scenario())


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("reply", "message"),
    [(BUSY, "request 2 was answered with 429"), (b"", "request 2 lost its connection")],
)
def test_a_failed_request_fails_the_run(reply: bytes, message: str) -> None:
    async def scenario() -> None:
        async with serving() as server:
            server.answer = lambda number: reply if number == 2 else OK
            await drive(server.url, requests(server.url, 4), np.linspace(0, 0.03, 4), 1)

    with pytest.raises(Failed, match=message):
        asyncio.run(scenario())


@pytest.mark.usefixtures("patient")
def test_refusals_that_say_when_to_come_again_count_where_they_are_expected() -> None:
    said = BUSY.replace(b"\r\n\r\n", b"\r\nRetry-After: 3\r\n\r\n")

    async def scenario(refusal: bytes) -> Run:
        async with serving() as server:
            server.answer = lambda number: refusal if number % 2 else OK
            starts = np.linspace(0, 0.03, 4)
            overload = Overload(patience_s=60, late_ms=60_000)
            return await drive(server.url, requests(server.url, 4), starts, 1, overload)

    assert asyncio.run(scenario(said)).status.tolist() == [200, 429, 200, 429]
    with pytest.raises(Failed, match="request 1 was refused without a retry-after"):
        asyncio.run(scenario(BUSY))
    with pytest.raises(Failed, match="request 1 was answered with 500"):
        asyncio.run(scenario(said.replace(b"429", b"500")))


@pytest.mark.usefixtures("patient")
def test_a_request_without_an_answer_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openloop, "PATIENCE_S", 0.05)

    async def scenario() -> None:
        async with serving() as server:
            server.open.clear()
            await drive(server.url, requests(server.url, 2), np.array([0.0, 0.01]), 2)

    with pytest.raises(Failed, match="2 requests got no answer"):
        asyncio.run(scenario())


def test_starts_are_seeded_ascending_and_as_many_as_asked_on_average() -> None:
    starts = poisson(500, 20, seed=3)
    assert (np.diff(starts) > 0).all() and 0 < starts[0] and starts[-1] < 20
    assert len(starts) == pytest.approx(10_000, rel=0.05)
    assert np.diff(starts).std() == pytest.approx(1 / 500, rel=0.1)
    assert (poisson(500, 20, seed=3) == starts).all()
    assert poisson(500, 20, seed=4)[0] != starts[0]


def test_unique_texts_meet_neither_each_other_nor_those_of_wrk() -> None:
    texts = list(workloads.unique(["墨池"], range(5000)))
    assert len(set(texts)) == 5000
    assert all(text[0] == workloads.FIRST and text.endswith("墨池") for text in texts)
    assert workloads.FIRST not in LOAD.read_text(encoding="utf-8")
