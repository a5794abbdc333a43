"""Requests sent at intended moments, however the server fares: the open loop that wrk does not have.

A closed loop sends less when the server is slow, and so never meets the queue that real users would
stand in. Here a request's latency counts from its intended start: a server that stalls is charged for
every request that should have been sent meanwhile, those that found all connections busy included.

The generator is judged too. `lateness_s` is how long after an intended start it came to the request at
all; connections have no part in that. Where the 99th percentile is above LATE_MS, the machine had no
room for the generator, its figures are not the server's, and the run fails.

Every answer must be a 200, unless the server is to be asked for more than it can do: then a 429 that
says when to come again counts too.
"""

import asyncio
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from benchmarks.connection import Connection, Failed, punctual_loop, undisturbed

Seconds = NDArray[np.float64]

# Open before the first request. Fewer would make requests wait here; each waits its turn, so that none
# is idle for the five seconds after which uvicorn closes it, unless there are few requests.
CONNECTIONS = 128
# A bound for a machine shared with others, not the usual figure; that is at connection.undisturbed.
LATE_MS = 10.0
# After the last intended start, for answers still under way.
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Run:
    """One value a request, in the order of the intended starts: float64 (N,), status int64 (N,)."""

    latency_s: Seconds  # From the intended start to the last byte of the answer.
    lateness_s: Seconds  # From the intended start to when the generator came to the request.
    status: NDArray[np.int64]  # 200 throughout, unless refusals count.
    waited: int  # Requests that found every connection busy.
    cpu: float  # The generator's share of one core.


@dataclass(frozen=True, slots=True)
class Overload:
    """Refusals count as answers; what takes the place of PATIENCE_S and LATE_MS."""

    patience_s: float
    late_ms: float


def poisson(rate: float, seconds: float, seed: int) -> Seconds:
    """Starts at random, `rate` a second on average: float64 (N,), ascending, from 0 to `seconds`."""
    random = np.random.default_rng(seed)
    gaps = random.exponential(1 / rate, int(rate * seconds * 1.5) + 100)
    starts = np.cumsum(gaps)
    return starts[starts < seconds]


def run(
    url: str, requests: Sequence[bytes], starts: Seconds, connections: int = CONNECTIONS
) -> Run:
    """Send request i at starts[i] seconds from now; anything that fails ends the benchmark."""
    with undisturbed(), asyncio.Runner(loop_factory=punctual_loop) as runner:
        try:
            return runner.run(drive(url, requests, starts, connections))
        except Failed as failure:
            sys.exit(f"{url}: {failure}")


async def drive(
    url: str,
    requests: Sequence[bytes],
    starts: Seconds,
    connections: int,
    overload: Overload | None = None,
) -> Run:
    """The same on a running loop; raises Failed."""
    patience_s, late_ms = (
        (overload.patience_s, overload.late_ms) if overload else (PATIENCE_S, LATE_MS)
    )
    client = _Client(url, requests, starts.tolist(), refusals=overload is not None)
    await client.open(connections)
    cpu, began = time.process_time(), time.perf_counter()
    client.begin()
    try:
        async with asyncio.timeout(float(starts[-1]) + patience_s):
            await client.done
    except TimeoutError:
        raise Failed(f"{client.left} requests got no answer in {patience_s:.0f} s") from None
    finally:
        client.close()
    cpu = (time.process_time() - cpu) / (time.perf_counter() - began)
    latency_s, lateness_s = np.array(client.latency_s), np.array(client.lateness_s)
    found = Run(latency_s, lateness_s, np.array(client.status), client.waited, cpu)
    found_ms = float(np.percentile(found.lateness_s, 99)) * 1e3
    if found_ms > late_ms:
        raise Failed(f"1 % of the requests were sent {found_ms:.1f} ms late, {late_ms} are allowed")
    return found


class _Client:
    """When to send what, over which connection."""

    def __init__(
        self, url: str, requests: Sequence[bytes], starts: list[float], *, refusals: bool
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._url, self._requests, self._starts = urlsplit(url), requests, starts
        self._refusals = refusals
        self._next, self._zero = 0, 0.0
        self._free: deque[Connection] = deque()
        self._all: set[Connection] = set()
        self._waiting: deque[int] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self.latency_s, self.lateness_s = [0.0] * len(starts), [0.0] * len(starts)
        self.status = [0] * len(starts)
        self.left, self.waited = len(starts), 0
        self.done: asyncio.Future[None] = self._loop.create_future()

    async def open(self, connections: int) -> None:
        host, port = self._url.hostname or "", self._url.port or 80
        for _ in range(connections):
            _, connection = await self._loop.create_connection(lambda: Connection(self), host, port)
            self._all.add(connection)
            self._available(connection)

    def close(self) -> None:
        connections, self._all = self._all, set()
        for connection in connections:
            connection.close()

    def begin(self) -> None:
        self._zero = self._loop.time()
        self._send_due()

    def _send_due(self) -> None:
        while self._next < len(self._starts):
            start = self._zero + self._starts[self._next]
            late = self._loop.time() - start
            if late < 0:
                self._loop.call_at(start, self._send_due)
                return
            number, self._next = self._next, self._next + 1
            self.lateness_s[number] = late
            if self._free:
                self._free.popleft().send(number, self._requests[number])
            else:
                self._waiting.append(number)
                self.waited += 1

    def answered(self, connection: "Connection", number: int, status: int) -> None:
        self.latency_s[number] = self._loop.time() - self._zero - self._starts[number]
        self.status[number] = status
        if status == 429 and self._refusals:
            if connection.retry_after is None:
                self._fail(f"request {number} was refused without a retry-after")
        elif status != 200:
            self._fail(f"request {number} was answered with {status}")
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)
        self._available(connection)

    def lost(self, connection: "Connection", number: int | None) -> None:
        if connection not in self._all:
            return
        self._all.remove(connection)
        if number is not None:
            self._fail(f"request {number} lost its connection")
            return
        self._free.remove(connection)
        again = self._loop.create_task(self.open(1))
        self._opening.add(again)
        again.add_done_callback(self._opening.discard)

    def _available(self, connection: "Connection") -> None:
        if self._waiting:
            number = self._waiting.popleft()
            connection.send(number, self._requests[number])
        else:
            self._free.append(connection)

    def _fail(self, what: str) -> None:
        if not self.done.done():
            self.done.set_exception(Failed(what))
