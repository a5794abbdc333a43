"""Reads on threads: limits of time and bytes, errors, clients that leave, and their turns."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from server.collections.read_threads import ReadThreads
from server.errors import Overloaded, RequestTooLarge
from server.store.sqlite.database import Database
from server.store.sqlite.read_limit import spend
from server.telemetry.metrics import Metrics
from tests.support.fakes import PATIENCE_S

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
LIGHT, HEAVY = 0.001, 1.0


def run(test: Callable[[ReadThreads], Awaitable[None]], query_s: float = PATIENCE_S) -> None:
    async def inside() -> None:
        reads = ReadThreads(query_s, 1_000, Metrics())
        try:
            await test(reads)
        finally:
            await reads.close()

    asyncio.run(asyncio.wait_for(inside(), PATIENCE_S))


def database(folder: Path) -> Database:
    return Database(folder / "file", 1, lambda _: None, lambda *_: None)


def test_a_read_that_takes_too_long_is_ended_and_says_what_to_do(tmp_path: Path) -> None:
    opened = database(tmp_path)

    async def test(reads: ReadThreads) -> None:
        for _ in range(2):
            with pytest.raises(RequestTooLarge, match=r"longer than 0\.05 s.*filter"):
                await reads.run(HEAVY, lambda: opened.rows(ENDLESS))
        assert await reads.run(HEAVY, lambda: opened.rows("SELECT 1")) == [(1,)]

    run(test, query_s=0.05)
    opened.close()


class Endless:
    """A read that does not end by itself."""

    def __init__(self, folder: Path) -> None:
        self.database = database(folder)
        self.begun = threading.Event()

    def __call__(self) -> object:
        self.begun.set()
        return self.database.rows(ENDLESS)


def test_a_client_that_leaves_ends_its_read(tmp_path: Path) -> None:
    endless = Endless(tmp_path)

    async def test(reads: ReadThreads) -> None:
        task = asyncio.ensure_future(reads.run(HEAVY, endless))
        await asyncio.to_thread(endless.begun.wait, PATIENCE_S)
        task.cancel()
        # It would hold the only thread for heavy reads.
        assert await reads.run(HEAVY, lambda: endless.database.rows("SELECT 1")) == [(1,)]

    run(test)
    endless.database.close()


def test_closing_ends_what_runs(tmp_path: Path) -> None:
    endless = Endless(tmp_path)

    async def test(reads: ReadThreads) -> None:
        task = asyncio.ensure_future(reads.run(HEAVY, endless))
        await asyncio.to_thread(endless.begun.wait, PATIENCE_S)
        await reads.close()
        with pytest.raises(RequestTooLarge):
            await task

    run(test)
    endless.database.close()


def test_one_that_fails_does_not_fail_those_beside_it() -> None:
    gate = threading.Event()
    sizes = []

    def together(items: Sequence[int]) -> list[int]:
        assert gate.wait(PATIENCE_S)
        sizes.append(len(items))
        for item in items:
            # Its own share of bytes, not what the others have left.
            spend(400)
            if item == 2:
                raise ValueError("two")
        return [10 * item for item in items]

    async def test(reads: ReadThreads) -> None:
        tasks = [asyncio.ensure_future(reads.join(LIGHT, together, n)) for n in (0, 1, 2)]
        await asyncio.sleep(0)
        gate.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert found[:2] == [0, 10] and str(found[2]) == "two"
        assert sizes == [3, 1, 1, 1] or sizes == [1, 2, 1, 1], sizes

    run(test)


def test_a_read_that_is_alone_is_answered_at_once_and_those_that_come_together_on_a_thread() -> (
    None
):
    asked: list[tuple[str, int]] = []

    def together(items: Sequence[int]) -> list[str]:
        asked.append((threading.current_thread().name[:4], len(items)))
        return [f"thread {item}" for item in items]

    def at_once() -> str:
        return "at once"

    def fails() -> str:
        raise ValueError("at once")

    async def test(reads: ReadThreads) -> None:
        assert await reads.join(LIGHT, together, 1, at_once) == "at once"
        assert not asked
        assert await reads.join(LIGHT, together, 2, lambda: None) == "thread 2"
        with pytest.raises(ValueError, match="at once"):
            await reads.join(LIGHT, together, 3, fails)
        found = await asyncio.gather(*(reads.join(LIGHT, together, n, at_once) for n in range(3)))
        assert found == ["thread 0", "thread 1", "thread 2"]
        assert asked == [("read", 1), ("read", 3)]

    run(test)


def test_a_lone_read_goes_to_a_thread_while_another_one_runs() -> None:
    gate = threading.Event()

    async def test(reads: ReadThreads) -> None:
        running = asyncio.ensure_future(reads.run(HEAVY, gate.wait))
        await asyncio.sleep(0.05)
        assert await reads.join(LIGHT, lambda items: ["thread"], 1, lambda: "at once") == "thread"
        gate.set()
        assert await running
        assert await reads.join(LIGHT, lambda items: ["thread"], 1, lambda: "at once") == "at once"

    run(test)


def test_bytes_that_a_read_keeps_have_a_limit() -> None:
    async def test(reads: ReadThreads) -> None:
        await reads.run(LIGHT, lambda: spend(1_000))
        with pytest.raises(RequestTooLarge, match=r"more than 1000 bytes.*top_k"):
            await reads.run(LIGHT, lambda: list(map(spend, [400] * 3)))

    run(test)


def test_light_reads_go_on_beside_heavy_ones_and_too_many_are_refused() -> None:
    gate = threading.Event()

    async def test(reads: ReadThreads) -> None:
        heavy = [
            asyncio.ensure_future(reads.run(HEAVY, lambda: gate.wait(PATIENCE_S)))
            for _ in range(64)
        ]
        started = time.monotonic()
        for _ in range(20):
            assert await reads.run(LIGHT, lambda: 1) == 1
        assert time.monotonic() - started < PATIENCE_S / 2
        refused = [task for task in heavy if task.done()]
        assert 32 < len(refused) < 64
        assert all(isinstance(task.exception(), Overloaded) for task in refused)
        gate.set()
        await asyncio.gather(*heavy, return_exceptions=True)
        assert await reads.run(HEAVY, lambda: 1) == 1, "there is room again"

    run(test)


def test_a_call_that_no_thread_can_take_fails_and_does_not_wait_for_ever() -> None:
    async def test(reads: ReadThreads) -> None:
        # As where the system has no memory for a thread.
        reads._pool.shutdown()
        for _ in range(2):
            with pytest.raises(RuntimeError):
                await reads.run(LIGHT, lambda: 1)

    run(test)


def test_threads_run_from_the_beginning() -> None:
    async def test(reads: ReadThreads) -> None:
        assert len(reads._pool._threads) == reads._pool._max_workers >= 2

    run(test)
