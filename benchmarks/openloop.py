"""An open loop: requests sent at intended moments, whatever the server does. wrk cannot do that.

A closed loop sends less when the server is slow, and so never meets the queue that real users would
stand in. Here a request's latency counts from its intended start: a server that stalls is charged for
every request that should have been sent meanwhile, also for those that found all connections busy.

The generator is judged too. `lateness_s` is how long after an intended start it reached the request;
connections have no part in that. Where the 99th percentile is above LATE_MS, the machine had no room
for the generator, its figures are not the server's, and the run fails.

Every answer must be a 200. In an overload, a 429 with a retry-after counts too.
"""

import asyncio
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.connection import Connection, Failed, Generator, punctual_loop, undisturbed

Seconds = NDArray[np.float64]

# Open before the first request. With fewer, requests would wait here. They take turns, so that none is
# idle for the five seconds after which uvicorn closes it, unless there are few requests.
CONNECTIONS = 128
# A bound for a machine that other work shares; the usual lateness stands at connection.undisturbed.
LATE_MS = 10.0
# After the last intended start, for answers still under way.
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Run:
    """One value per request, in the order of the intended starts: float64 (N,), status int64 (N,)."""

    latency_s: Seconds  # From the intended start to the last byte of the answer.
    lateness_s: Seconds  # From the intended start to the moment the generator reached the request.
    status: NDArray[np.int64]  # 200 throughout, unless refusals count.
    waited: int  # Requests that found every connection busy.
    cpu: float  # The generator's share of one core.


@dataclass(frozen=True, slots=True)
class Overload:
    """Bounds in place of PATIENCE_S and LATE_MS for a run in which refusals count as answers."""

    patience_s: float
    late_ms: float


def poisson(rate: float, seconds: float, seed: int) -> Seconds:
    """Return random starts, `rate` per second on average: float64 (N,), ascending, 0 to `seconds`."""
    random = np.random.default_rng(seed)
    gaps = random.exponential(1 / rate, int(rate * seconds * 1.5) + 100)
    starts = np.cumsum(gaps)
    return starts[starts < seconds]


def run(
    url: str, requests: Sequence[bytes], starts: Seconds, connections: int = CONNECTIONS
) -> Run:
    """Send request i at starts[i] seconds from now; a failure ends the benchmark."""
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
    """Do the same as `run` on a running loop; raises Failed."""
    patience_s, late_ms = (
        (overload.patience_s, overload.late_ms) if overload else (PATIENCE_S, LATE_MS)
    )
    client = _Client(url, requests, starts.tolist(), refusals=overload is not None)
    await client.open(connections)
    cpu, began = time.process_time(), time.perf_counter()
    client.begin()
    await client.finish(float(starts[-1]), patience_s)
    cpu = (time.process_time() - cpu) / (time.perf_counter() - began)
    latency_s, lateness_s = np.array(client.latency_s), np.array(client.lateness_s)
    found = Run(latency_s, lateness_s, np.array(client.status), client.waited, cpu)
    found_ms = float(np.percentile(found.lateness_s, 99)) * 1e3
    if found_ms > late_ms:
        raise Failed(f"1 % of the requests were sent {found_ms:.1f} ms late, {late_ms} are allowed")
    return found


class _Client(Generator):
    """Decides when to send which request over which connection."""

    def __init__(
        self, url: str, requests: Sequence[bytes], starts: list[float], *, refusals: bool
    ) -> None:
        super().__init__(url)
        self._requests, self._starts = requests, starts
        self._refusals = refusals
        self._next, self._zero = 0, 0.0
        self._free: deque[Connection] = deque()
        self._waiting: deque[int] = deque()
        self._opening: set[asyncio.Task[list[Connection]]] = set()
        self.latency_s, self.lateness_s = [0.0] * len(starts), [0.0] * len(starts)
        self.status = [0] * len(starts)
        self.left, self.waited = len(starts), 0

    async def open(self, number: int) -> list[Connection]:
        opened = await super().open(number)
        for connection in opened:
            self._available(connection)
        return opened

    def begin(self) -> None:
        self._zero = self.loop.time()
        self._send_due()

    def _send_due(self) -> None:
        while self._next < len(self._starts):
            start = self._zero + self._starts[self._next]
            late = self.loop.time() - start
            if late < 0:
                self.loop.call_at(start, self._send_due)
                return
            number, self._next = self._next, self._next + 1
            self.lateness_s[number] = late
            if self._free:
                self._free.popleft().send(number, self._requests[number])
            else:
                self._waiting.append(number)
                self.waited += 1

    def answered(self, connection: Connection, number: int, status: int) -> None:
        self.latency_s[number] = self.loop.time() - self._zero - self._starts[number]
        self.status[number] = status
        if status == 429 and self._refusals:
            if connection.retry_after is None:
                self.fail(f"request {number} was refused without a retry-after")
        elif status != 200:
            self.fail(f"request {number} was answered with {status}")
        self.count_down()
        self._available(connection)

    def lost(self, connection: Connection, number: int | None) -> None:
        if connection not in self.connections:
            return
        self.connections.remove(connection)
        if number is not None:
            self.fail(f"request {number} lost its connection")
            return
        self._free.remove(connection)
        again = self.loop.create_task(self.open(1))
        self._opening.add(again)
        again.add_done_callback(self._opening.discard)

    def _available(self, connection: Connection) -> None:
        if self._waiting:
            number = self._waiting.popleft()
            connection.send(number, self._requests[number])
        else:
            self._free.append(connection)
