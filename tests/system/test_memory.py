"""Freed memory is given back once large requests have ended."""

import asyncio
import threading

import httpx
import pytest

from server.inference.model import Model
from server.system import memory
from server.system.memory import LARGE_BYTES, FreedMemory
from tests.support.clients import run


@pytest.fixture
def given_back(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads on which memory was given back."""
    threads: list[str] = []
    monkeypatch.setattr(memory, "QUIET_S", 0.02)
    monkeypatch.setattr(
        memory, "give_back", lambda: threads.append(threading.current_thread().name)
    )
    return threads


def test_several_large_requests_give_memory_back_once_and_on_a_thread(
    given_back: list[str],
) -> None:
    async def test() -> None:
        freed = FreedMemory()
        for size in (LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES):
            freed.after(size)
        await asyncio.sleep(0.06)

    asyncio.run(test())
    assert len(given_back) == 1 and given_back != [threading.main_thread().name]


def test_large_bodies_refused_ones_and_large_replies_give_memory_back(
    toy_model: Model, given_back: list[str]
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        long = "墨" * LARGE_BYTES
        requests = [({"texts": ["墨"]}, 0), ({"texts": [long]}, 1), ({"textss": [long]}, 1)]
        requests.append(({"texts": ["墨"] * 2_000}, 1))
        for body, times in requests:
            given_back.clear()
            await client.post("/embed", json=body)
            await asyncio.sleep(0.06)
            assert len(given_back) == times, str(body)[:40]

    run(test, toy_model)
