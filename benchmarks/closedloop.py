"""A closed loop: each of a number of clients sends its next request when it has the last answer.

wrk sends where it is installed, else the generator of this file, in this process. That one costs more
of the machine, so its rates are a little lower. Either is judged by its share of one core: above BUSY
it would measure itself, and the run fails.
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

import numpy as np

from benchmarks import workloads
from benchmarks.connection import Connection, Failed, Generator, post, punctual_loop, undisturbed

LOAD = Path(__file__).with_name("load.lua")
# Share of one core. Both generators have one thread; at 1 it has no time left to wait for an answer.
BUSY = 0.8
# After the end, for answers that are still under way.
PATIENCE_S = 60.0
# Distance between the numbers at which runs with different salts start; load.lua has the same.
PLACES, SERIALS = 7919, 104_729


def generator() -> str:
    """Return the name of the generator that will send, as result lines show it."""
    return "wrk" if shutil.which("wrk") else "python"


def run(url: str, bodies: Path, clients: int, seconds: float, salt: int) -> dict[str, float]:
    """Run once and return the figures; a failed request or a busy generator ends the benchmark.

    bodies: a file that `workloads.write_bodies` wrote. salt: runs with different salts send different
    texts. per_s counts the answers within `seconds`; generator_cpu is the generator's share of a core.
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
    """Raise Failed where a request failed or the generator was the bottleneck."""
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
    """Run this file's generator on a running loop; raises Failed."""
    several = _Clients(url, requests, seconds)
    await several.open(clients)
    cpu, began = time.thread_time(), time.perf_counter()
    several.begin()
    await several.finish(seconds, PATIENCE_S)
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
    """The file's bodies in turn, as whole requests, with every text unique."""

    def __init__(self, url: str, bodies: Path, salt: int) -> None:
        # All marks are equally long, so the length of a body need not be counted again.
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


class _Clients(Generator):
    """Sends the next request over each connection, and keeps how long each took."""

    def __init__(self, url: str, requests: Requests, seconds: float) -> None:
        super().__init__(url)
        self._requests, self._seconds, self._end = requests, seconds, 0.0
        self._sent: dict[Connection, float] = {}
        self._numbers = count()
        self.latency_s: list[float] = []

    def begin(self) -> None:
        self._end = self.loop.time() + self._seconds
        self.left = len(self.connections)
        for connection in self.connections:
            self._send(connection)

    def _send(self, connection: Connection) -> None:
        request = next(self._requests)
        self._sent[connection] = self.loop.time()
        connection.send(next(self._numbers), request)

    def answered(self, connection: Connection, number: int, status: int) -> None:
        now = self.loop.time()
        if status != 200:
            self.fail(f"request {number} was answered with {status}")
        elif now < self._end:
            self.latency_s.append(now - self._sent[connection])
            self._send(connection)
        else:
            self.count_down()

    def lost(self, connection: Connection, number: int | None) -> None:
        if connection in self.connections and number is not None:
            self.fail(f"request {number} lost its connection")
