"""The threads on which collections are read, for the event loop; `read_queue` decides whose turn it is."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from server.clock import now
from server.collections.read_queue import Read, ReadQueue, Turn
from server.errors import Overloaded
from server.store.sqlite.read_limit import REMOVAL, ReadLimit, limited
from server.system.cpu import cpu_budget
from server.telemetry.metrics import Metrics

T = TypeVar("T")
Item = TypeVar("Item")
# One is left to light reads.
MIN_THREADS = 2


class ReadThreads:
    """Runs reads of all collections of a registry.

    query_s: seconds that one request may take on its threads. max_bytes: of texts that one call may keep.
    """

    def __init__(self, query_s: float, max_bytes: int, metrics: Metrics) -> None:
        threads = max(MIN_THREADS, cpu_budget())
        self._queue = ReadQueue(threads)
        self._pool = _started(threads)
        self._query_s = query_s
        self.max_bytes = max_bytes
        self._metrics = metrics
        # What runs, with its limit.
        self._running: dict[asyncio.Task[None], ReadLimit] = {}
        self._starting: asyncio.Handle | None = None

    def check_room(self, cost_s: float) -> None:
        """Raise Overloaded if a request would not be admitted now."""
        with self._counted():
            self._queue.check(cost_s)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except Overloaded:
            self._metrics.refused.inc()
            raise

    @contextmanager
    def admitted(self, cost_s: float) -> Iterator[None]:
        """Count a request of several turns among what is under way; raises Overloaded."""
        with self._counted():
            self._queue.admit(cost_s)
        try:
            yield
        finally:
            self._queue.leave(cost_s)

    def is_light(self, cost_s: float) -> bool:
        return self._queue.is_light(cost_s)

    async def run(self, cost_s: float, call: Callable[[], T]) -> T:
        """Call something that reads; raises Overloaded, or RequestTooLarge where it takes too much."""
        with self.admitted(cost_s):
            return await self.turn(cost_s, call)

    async def turn(self, cost_s: float, call: Callable[[], T]) -> T:
        """Take one turn of a request that has been admitted."""
        return cast(T, await self._wait(Read(cost_s, lambda _: [call()], None, None)))

    async def join(
        self,
        cost_s: float,
        run: Callable[[Sequence[Item]], Sequence[T]],
        item: Item,
        at_once: Callable[[], T | None] | None = None,
    ) -> T:
        """Take a turn together with others of an equal `run`, which gets the items of all.

        at_once: asked first, on the event loop, where no other read waits or runs; returns None to use `run`.
        """
        return cast(T, await self._wait(Read(cost_s, run, item, None, True, at_once)))

    async def close(self) -> None:
        """End what runs, and wait for it; no other call may come."""
        while self._running:
            for limit in self._running.values():
                limit.end()
            await asyncio.wait(list(self._running))
        self._pool.shutdown(wait=False)

    async def _wait(self, read: Read) -> Any:
        loop = asyncio.get_running_loop()
        read.waiter = loop.create_future()
        self._queue.add(read, now())
        if self._starting is None:
            # When those have been added that have come with this one.
            self._starting = loop.call_soon(self._start)
        try:
            return await read.waiter
        finally:
            read.wanted = False

    def _start(self) -> None:
        self._starting = None
        while turn := self._queue.take():
            if self._answered(turn):
                continue
            limit = self._limit()
            task = asyncio.get_running_loop().create_task(self._take(turn, limit))
            self._running[task] = limit
            task.add_done_callback(lambda task: self._running.pop(task))

    def _answered(self, turn: Turn) -> bool:
        """Answer a read that is alone and needs no thread; return whether it was.

        Beside a read that runs, the loop would wait for the interpreter lock again and again.
        """
        read, started = turn[0], now()
        if len(turn) > 1 or read.at_once is None or self._running:
            return False
        try:
            answer = read.at_once()
        except Exception as error:
            read.waiter.set_exception(error)
        else:
            if answer is None:
                return False
            read.waiter.set_result(answer)
        self._queue.ended(turn, now() - started)
        return True

    def removal_limit(self, late: str = REMOVAL) -> ReadLimit:
        """Return a limit, beginning now, for a removal by filter or a change of metadata."""
        return ReadLimit(self._query_s, self.max_bytes, late)

    def _limit(self) -> ReadLimit:
        return ReadLimit(self._query_s, self.max_bytes)

    async def _take(self, turn: Turn, limit: ReadLimit) -> None:
        started = now()
        run, items = turn[0].run, [read.item for read in turn]
        for read in turn:
            # A client that leaves ends a call that is for it alone.
            if len(turn) == 1:
                read.waiter.add_done_callback(
                    lambda waiter: limit.end() if waiter.cancelled() else None
                )
        loop = asyncio.get_running_loop()
        answers: Sequence[Any]
        try:
            answers = await loop.run_in_executor(
                self._pool, _answers, run, items, limit, self._limit
            )
        except (RuntimeError, MemoryError) as error:
            # The system had no memory for the call: those who wait must not wait for ever.
            answers = [error] * len(turn)
        finally:
            self._queue.ended(turn, now() - started)
            self._start()
        for read, answer in zip(turn, answers, strict=True):
            if read.waiter.done():
                continue
            if isinstance(answer, Exception):
                read.waiter.set_exception(answer)
            else:
                read.waiter.set_result(answer)


def _started(threads: int) -> ThreadPoolExecutor:
    """Return a pool whose threads all run: later there may be no memory to start one."""
    pool = ThreadPoolExecutor(threads, "read")
    all_run: Future[None] = Future()
    for _ in range(threads):
        # Each waits for it, so the next one needs a thread of its own.
        pool.submit(all_run.result)
    all_run.set_result(None)
    return pool


def _answers(
    run: Callable[[Sequence[Any]], Sequence[Any]],
    items: Sequence[Any],
    limit: ReadLimit,
    another: Callable[[], ReadLimit],
) -> Sequence[Any]:
    """Return answers or errors; an item that fails must not fail those beside it."""
    try:
        with limited(limit):
            return run(items)
    except Exception as error:
        if len(items) == 1:
            return [error]
    return [answer for item in items for answer in _answers(run, [item], another(), another)]
