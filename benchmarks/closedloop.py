"""So many clients, each of which sends its next request when it has the answer to the last.

wrk where it is installed. Otherwise the generator of this file, over the connections that `openloop`
sends with, in this process: it costs more of the machine, so its rates are a little lower. Either is
judged by its share of one core: above BUSY it would be measuring itself, and the run fails.
"""

import asyncio
import json
import resource
import shutil
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from benchmarks import workloads
from benchmarks.connection import Connection, Failed, post, punctual_loop, undisturbed

LOAD = Path(__file__).with_name("load.lua")
# Of one core. Both generators have one thread, which at 1 has no moment left to wait for an answer.
BUSY = 0.8
# After the end, for answers still under way.
PATIENCE_S = 60.0
# Between the places where runs of different salts begin to count; load.lua has the same.
PLACES, SERIALS = 7919, 104_729


def generator() -> str:
    """What will send: the name that result lines carry."""
    return "wrk" if shutil.which("wrk") else "python"


def run(url: str, bodies: Path, clients: int, seconds: float, salt: int) -> dict[str, float]:
    """One run; a failed request, or a generator without rest, ends the benchmark.

    bodies: as `workloads.write_bodies` writes them. salt: runs of different salts send different texts.
    per_s counts the answers within `seconds`; generator_cpu is the generator's share of one core.
    """
    send = under_wrk if generator() == "wrk" else under_python
    try:
        found = send(url, bodies, clients, seconds, salt)
        judge(found)
    except Failed as failure:
        sys.exit(f"{url}: {failure}")
    per_s = found["requests"] / found["seconds"]
    return {**found, "per_s": round(per_s, 1), "generator_cpu": round(found["generator_cpu"], 3)}


def judge(found: dict[str, float]) -> None:
    """Raises Failed where the figures are not those of a server that answers."""
    if found["failed"] or not found["requests"]:
        raise Failed(f"{found['failed']} requests failed, {found['requests']} were answered")
    if found["generator_cpu"] > BUSY:
        raise Failed(
            f"the generator ({generator()}) took {found['generator_cpu']:.2f} of a core,"
            f" {BUSY} is allowed: it was the bottleneck, not the server"
        )


def under_wrk(url: str, bodies: Path, clients: int, seconds: float, salt: int) -> dict[str, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "60s", "-s", str(LOAD)]
    printed = subprocess.run(
        [*command, url, "--", str(bodies), str(salt + 1)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found: dict[str, float] = json.loads(printed.strip().splitlines()[-1])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**found, "generator_cpu": cpu / found["seconds"]}


def under_python(
    url: str, bodies: Path, clients: int, seconds: float, salt: int
) -> dict[str, float]:
    with undisturbed(), asyncio.Runner(loop_factory=punctual_loop) as runner:
        return runner.run(drive(url, Requests(url, bodies, salt + 1), clients, seconds))


async def drive(url: str, requests: "Requests", clients: int, seconds: float) -> dict[str, float]:
    """The same on a running loop; raises Failed."""
    several = _Clients(requests, seconds)
    await several.open(url, clients)
    cpu, began = time.thread_time(), time.perf_counter()
    several.begin()
    try:
        async with asyncio.timeout(seconds + PATIENCE_S):
            await several.done
    except TimeoutError:
        raise Failed(f"{several.under_way} requests got no answer in {PATIENCE_S:.0f} s") from None
    finally:
        several.close()
    cpu = (time.thread_time() - cpu) / (time.perf_counter() - began)
    latency_ms = np.array(several.latency_s or [0.0]) * 1e3
    p50, p95, p99 = (float(np.percentile(latency_ms, q)) for q in (50, 95, 99))
    return {
        "requests": len(several.latency_s),
        "seconds": seconds,
        "mean_ms": round(float(latency_ms.mean()), 3),
        "p50_ms": round(p50, 3),
        "p95_ms": round(p95, 3),
        "p99_ms": round(p99, 3),
        "failed": 0,
        "generator_cpu": cpu,
    }


class Requests:
    """The file's bodies in turn, as whole requests, every text of them unique."""

    def __init__(self, url: str, bodies: Path, salt: int) -> None:
        # All marks are equally long, so a request is made of its pieces without counting again.
        hole, mark = workloads.UNIQUE.encode(), workloads.mark(0).encode()
        lines = bodies.read_bytes().splitlines()
        self._pieces = [
            post(url, line.replace(hole, mark)).split(mark) if hole in line else [post(url, line)]
            for line in lines
        ]
        self._places = count(salt * PLACES)
        self._serials = count(salt * SERIALS)

    def __next__(self) -> bytes:
        first, *others = self._pieces[next(self._places) % len(self._pieces)]
        marks = (workloads.mark(next(self._serials)).encode() + piece for piece in others)
        return b"".join((first, *marks))


class _Clients:
    """Which request follows on which connection, and how long each took."""

    def __init__(self, requests: Requests, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._requests, self._seconds, self._end = requests, seconds, 0.0
        self._sent: dict[Connection, float] = {}
        self._numbers = count()
        self.latency_s: list[float] = []
        self.under_way = 0
        self.done: asyncio.Future[None] = self._loop.create_future()

    async def open(self, url: str, clients: int) -> None:
        address = urlsplit(url)
        for _ in range(clients):
            _, connection = await self._loop.create_connection(
                lambda: Connection(self), address.hostname or "", address.port or 80
            )
            self._sent[connection] = 0.0

    def close(self) -> None:
        connections, self._sent = self._sent, {}
        for connection in connections:
            connection.close()

    def begin(self) -> None:
        self._end = self._loop.time() + self._seconds
        self.under_way = len(self._sent)
        for connection in self._sent:
            self._send(connection)

    def _send(self, connection: Connection) -> None:
        request = next(self._requests)
        self._sent[connection] = self._loop.time()
        connection.send(next(self._numbers), request)

    def answered(self, connection: Connection, number: int, status: int) -> None:
        now = self._loop.time()
        if status != 200:
            self._fail(f"request {number} was answered with {status}")
        elif now < self._end:
            self.latency_s.append(now - self._sent[connection])
            self._send(connection)
        else:
            self.under_way -= 1
            if not self.under_way and not self.done.done():
                self.done.set_result(None)

    def lost(self, connection: Connection, number: int | None) -> None:
        if connection in self._sent and number is not None:
            self._fail(f"request {number} lost its connection")

    def _fail(self, what: str) -> None:
        if not self.done.done():
            self.done.set_exception(Failed(what))
