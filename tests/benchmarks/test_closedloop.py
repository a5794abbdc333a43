"""The closed loop's own generator against a real server, and the judge of both generators."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from benchmarks import closedloop, workloads
from benchmarks.closedloop import Requests, drive, judge, under_python, under_wrk
from benchmarks.connection import Failed
from tests.support.answering import BUSY, OK, Server, serving

TEXTS = ["墨", "池"]


@pytest.fixture
def bodies(tmp_path: Path) -> Path:
    return workloads.write_bodies(tmp_path / "bodies", map(workloads.single, TEXTS))


def driven(
    bodies: Path, replies: dict[int, bytes], clients: int
) -> tuple[dict[str, float], Server]:
    """A run of 0.2 s; replies: other than 200, by the request's number."""

    async def scenario() -> tuple[dict[str, float], Server]:
        async with serving() as server:
            server.answer = lambda number: replies.get(number, OK)
            return await drive(server.url, Requests(server.url, bodies, 1), clients, 0.2), server

    return asyncio.run(scenario())


def test_every_client_has_one_request_under_way_and_no_text_is_sent_twice(bodies: Path) -> None:
    found, server = driven(bodies, {}, clients=3)
    texts = [json.loads(body)["texts"][0] for body in server.bodies]
    assert server.connections == 3
    assert len(set(texts)) == len(texts) >= found["requests"] > 0
    # Those under way at the end are waited for and not counted.
    assert len(texts) - found["requests"] <= 3
    assert {text[-1] for text in texts} == set(TEXTS)
    assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"]


def test_another_salt_sends_other_texts(bodies: Path) -> None:
    one, other = (Requests("http://h/embed", bodies, salt) for salt in (1, 2))
    assert {next(one) for _ in range(500)}.isdisjoint({next(other) for _ in range(500)})


def test_every_text_of_a_body_gets_a_mark_of_its_own_and_the_length_is_right(
    tmp_path: Path,
) -> None:
    body = {"input": [workloads.UNIQUE + text for text in TEXTS]}
    path = workloads.write_bodies(tmp_path / "bodies", [body, {"input": "as it is"}])
    requests = Requests("http://h:1/embed", path, 0)
    for _ in range(2):
        head, _, content = next(requests).partition(b"\r\n\r\n")
        assert f"content-length: {len(content)}" in head.decode()
    requests = Requests("http://h:1/embed", path, 0)
    first, second = json.loads(next(requests).partition(b"\r\n\r\n")[2])["input"]
    assert (first[3:], second[3:]) == ("墨", "池") and first[:3] != second[:3]
    assert json.loads(next(requests).partition(b"\r\n\r\n")[2])["input"] == "as it is"


@pytest.mark.parametrize(
    ("reply", "message"),
    [(BUSY, "request 2 was answered with 429"), (b"", "request 2 lost its connection")],
)
def test_a_failed_request_fails_the_run(bodies: Path, reply: bytes, message: str) -> None:
    with pytest.raises(Failed, match=message):
        driven(bodies, {2: reply}, clients=1)


def test_a_request_without_an_answer_fails_the_run(
    bodies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closedloop, "PATIENCE_S", 0.05)

    async def scenario() -> None:
        async with serving() as server:
            server.open.clear()
            await drive(server.url, Requests(server.url, bodies, 1), 2, 0.01)

    with pytest.raises(Failed, match="2 requests got no answer"):
        asyncio.run(scenario())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"failed": 3}, "3 requests failed"),
        ({"requests": 0}, "0 were answered"),
        ({"generator_cpu": 0.93}, r"took 0\.93 of a core, 0\.8 is allowed"),
    ],
)
def test_figures_that_are_not_the_servers_are_refused(
    change: dict[str, float], message: str
) -> None:
    sound: dict[str, float] = {"failed": 0, "requests": 100, "generator_cpu": 0.1}
    judge(sound)
    with pytest.raises(Failed, match=message):
        judge({**sound, **change})


def test_both_generators_report_the_same_figures(bodies: Path) -> None:
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")

    async def scenario() -> list[dict[str, float]]:
        async with serving() as server:
            return [
                await asyncio.to_thread(send, server.url, bodies, 2, 1, 0)
                for send in (under_wrk, under_python)
            ]

    wrk, python = asyncio.run(scenario())
    assert wrk.keys() == python.keys()
    assert wrk["requests"] > 0 and python["requests"] > 0


def test_a_server_that_refuses_ends_the_benchmark(bodies: Path) -> None:
    async def scenario() -> None:
        async with serving() as server:
            server.answer = lambda number: BUSY
            await asyncio.to_thread(closedloop.run, server.url, bodies, 2, 1, 0)

    with pytest.raises(SystemExit, match="failed|answered with 429"):
        asyncio.run(scenario())
