"""Does the server answer every request once and stay healthy while clients misbehave for minutes?

    python -m tests.stress.runs.soak [--texts FOLDER] [--seconds 300]

These run at the same time, each in a loop: honest clients, whose vectors are compared with those that
each text got alone; clients that send a whole request and vanish, politely or not; that send half a
body and vanish; that read a large reply slowly; and that send the longest texts. Checks:

- honest requests, over a route of their own: each is answered with 200 and its own vectors, and the
  server counts as many answers as the clients got;
- the others: the server counts every whole answer, and counts no whole request twice: answered and
  abandoned ones together are not more than were sent;
- afterwards nothing waits, and the server has no more files open than before;
- memory: over the second half it grows by at most GROWTH_MB per minute (the slope of a fitted line).

One JSON line; the exit status is 1 if a check fails.
"""

import asyncio
import base64
import json
import os
import random
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks import machine, stages, usage, workloads
from benchmarks.arguments import parser
from benchmarks.connection import ask, post
from benchmarks.serve import server
from server.telemetry.metrics import PREFIX
from server.types import Vectors

HONEST_ROUTE, OTHER_ROUTE = "/v1/embeddings", "/embed"
# How far a vector may move in company with other texts; the artifact promises it.
TOLERANCE = 1e-5
GROWTH_MB = 1.0
TEXTS = 200
# Clients of each kind; all of them pause, so that the honest ones are not refused.
CLIENTS = {"honest": 4, "vanishing": 2, "halting": 2, "slow": 2, "longest": 1}
LONGEST_CHARACTERS = 200_000
# For `slow`: about 5 MB of reply, read in steps over ten seconds.
SLOW_TEXTS, STEP_BYTES, STEP_S = 512, 65_536, 0.1


@dataclass
class Counts:
    """The clients' own counts of their requests, by kind of client."""

    whole: Counter[str] = field(default_factory=Counter)  # Sent to the last byte.
    answered: Counter[str] = field(default_factory=Counter)  # Read to the last byte, with 200.
    refused: Counter[str] = field(default_factory=Counter)  # Any other status.
    wrong: Counter[str] = field(default_factory=Counter)  # Other vectors, or no answer at all.


class Stream:
    """One connection that carries one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answer(self, step: int = 0) -> tuple[int, bytes]:
        """Return status and body; `step`: bytes to read at a time, with pauses between, 0 for all."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(re.findall(rb"(?i)content-length: (\d+)", head)[0])
        parts = []
        while step and length > step:
            parts.append(await self.reader.readexactly(step))
            length -= step
            await asyncio.sleep(STEP_S)
        parts.append(await self.reader.readexactly(length))
        return int(head.split(None, 2)[1]), b"".join(parts)


@asynccontextmanager
async def stream(url: str) -> AsyncIterator[Stream]:
    """Open a connection, and abort it when the block ends."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield Stream(reader, writer)
    finally:
        writer.transport.abort()


class Soak:
    """The clients; `run` keeps them busy until their time is over.

    vectors: float32 (B, D), what each of the texts got alone.
    """

    def __init__(
        self, url: str, texts: Sequence[str], laws: Sequence[str], vectors: Vectors
    ) -> None:
        self.counts = Counts()
        self._url, self._texts, self._laws, self._vectors = url, texts, laws, vectors
        self._random = random.Random(1)
        self._end = 0.0

    async def run(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "honest": self._honest,
            "vanishing": self._vanishing,
            "halting": self._halting,
            "slow": self._slow,
            "longest": self._longest,
        }
        async with asyncio.TaskGroup() as group:
            for kind, number in CLIENTS.items():
                for _ in range(number):
                    group.create_task(self._repeat(kind, kinds[kind]))

    async def _repeat(self, kind: str, ask: Callable[[], Awaitable[None]]) -> None:
        while time.monotonic() < self._end:
            try:
                await ask()
            except (OSError, asyncio.IncompleteReadError) as error:
                sys.stderr.write(f"{kind}: {type(error).__name__} {error}\n")
                self.counts.wrong[kind] += 1
            await asyncio.sleep(self._random.uniform(0, 0.2))

    def _request(self, kind: str, route: str, body: dict[str, Any]) -> bytes:
        self.counts.whole[kind] += 1
        return post(self._url + route, json.dumps(body).encode())

    def _count(self, kind: str, status: int, right: bool) -> None:
        if status != 200:
            self.counts.refused[kind] += 1
            return
        self.counts.answered[kind] += 1
        self.counts.wrong[kind] += not right

    async def _honest(self) -> None:
        """Send twenty requests over one connection."""
        async with stream(self._url) as one:
            for _ in range(20):
                chosen = self._random.sample(range(len(self._texts)), self._random.randint(1, 8))
                body: dict[str, Any] = {"input": [self._texts[at] for at in chosen]}
                body["encoding_format"] = "base64"
                one.writer.write(self._request("honest", HONEST_ROUTE, body))
                status, answer = await one.answer()
                right = status == 200 and self._same(chosen, answer)
                self._count("honest", status, right)
                await asyncio.sleep(self._random.uniform(0, 0.1))

    def _same(self, chosen: Sequence[int], answer: bytes) -> bool:
        rows = [base64.b64decode(row["embedding"]) for row in json.loads(answer)["data"]]
        found = np.stack([np.frombuffer(row, "<f4") for row in rows])
        return bool(np.abs(found - self._vectors[list(chosen)]).max() <= TOLERANCE)

    async def _vanishing(self) -> None:
        async with stream(self._url) as one:
            texts = self._random.sample(list(self._laws), self._random.choice((1, 64)))
            one.writer.write(self._request("vanishing", OTHER_ROUTE, {"texts": texts}))
            await one.writer.drain()
            await asyncio.sleep(self._random.uniform(0, 0.5))
            if self._random.random() < 0.5:
                one.writer.close()
                await one.writer.wait_closed()

    async def _halting(self) -> None:
        async with stream(self._url) as one:
            texts = self._random.sample(list(self._laws), 64)
            request = post(self._url + OTHER_ROUTE, json.dumps({"texts": texts}).encode())
            one.writer.write(request[: self._random.randrange(10, len(request) - 1)])
            await one.writer.drain()
            await asyncio.sleep(self._random.uniform(0, 2))

    async def _slow(self) -> None:
        async with stream(self._url) as one:
            texts = [self._texts[at % len(self._texts)] for at in range(SLOW_TEXTS)]
            one.writer.write(self._request("slow", OTHER_ROUTE, {"texts": texts}))
            status, answer = await one.answer(STEP_BYTES)
            right = status == 200 and len(json.loads(answer)["vectors"]) == SLOW_TEXTS
            self._count("slow", status, right)

    async def _longest(self) -> None:
        async with stream(self._url) as one:
            pieces = self._random.choices(self._laws, k=100)
            texts = [("".join(pieces) * 40)[:LONGEST_CHARACTERS], *map("".join, [pieces[:20]] * 8)]
            one.writer.write(self._request("longest", OTHER_ROUTE, {"texts": texts}))
            status, answer = await one.answer()
            right = status == 200 and len(json.loads(answer)["vectors"]) == len(texts)
            self._count("longest", status, right)


@dataclass(frozen=True, slots=True)
class Served:
    """The server's counts since its start, and what it holds now.

    answers: with 200, by route; others: with another status.
    """

    answers: Mapping[str, int]
    others: Mapping[str, int]
    abandoned: int
    waiting: int
    files: int

    @classmethod
    def read(cls, url: str, pid: int) -> "Served":
        found = {name: float(value) for name, value in stages.samples(url).items()}
        answers, others = Counter[str](), Counter[str]()
        requests = re.compile(rf'{PREFIX}_requests_total{{route="(.*)",status="(\d+)"}}')
        for name, count in found.items():
            # This very reading asks for /metrics.
            if (counted := requests.fullmatch(name)) and counted[1] != "/metrics":
                (answers if counted[2] == "200" else others)[counted[1]] += int(count)
        queue = f"{PREFIX}_queue_tokens{{"
        waiting = sum(int(tokens) for name, tokens in found.items() if name.startswith(queue))
        files = len(os.listdir(f"/proc/{pid}/fd"))
        return cls(answers, others, int(found[f"{PREFIX}_abandoned_total"]), waiting, files)


def main() -> None:
    arguments = parser(__doc__, texts="queries.json and laws.json", seconds=300).parse_args()
    texts = workloads.load("queries", TEXTS, arguments.texts)
    laws = workloads.load("laws", 2000, arguments.texts)
    with server(arguments.model) as (url, pid, _):
        vectors = np.concatenate([_alone(url, text) for text in texts])
        before = Served.read(url, pid)
        soak = Soak(url, texts, laws, vectors)
        memory = asyncio.run(_watched(soak, arguments.seconds, pid))
        after = _settled(url, pid)
    line = judged(soak.counts, before, after, memory)
    machine.show({"case": "soak", "seconds": arguments.seconds, **line}, arguments)
    if not all(line["asked"].values()):
        sys.exit(1)


def _alone(url: str, text: str) -> Vectors:
    return np.array(ask(url + OTHER_ROUTE, {"texts": [text]})["vectors"], dtype=np.float32)


async def _watched(soak: Soak, seconds: float, pid: int) -> list[float]:
    """Return resident memory in MiB, every second while the clients run."""
    samples: list[float] = []

    async def watch() -> None:
        while True:
            samples.append(usage.resident_mb(pid))
            await asyncio.sleep(1)

    watching = asyncio.create_task(watch())
    await soak.run(seconds)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    return samples


def _settled(url: str, pid: int) -> Served:
    """Return the server's counts once two readings are equal and nothing waits."""
    before = Served.read(url, pid)
    for _ in range(60):
        time.sleep(1)
        now = Served.read(url, pid)
        if now == before and not now.waiting:
            return now
        before = now
    sys.exit("the server is still busy one minute after its last client left")


def judged(
    counts: Counts, before: Served, after: Served, memory: Sequence[float]
) -> dict[str, Any]:
    """Return the figures, and for each check whether it holds."""

    def between(name: str, route: str) -> int:
        earlier, later = getattr(before, name), getattr(after, name)
        return int(later.get(route, 0) - earlier.get(route, 0))

    abandoned = after.abandoned - before.abandoned
    served, own = between("answers", OTHER_ROUTE), between("answers", HONEST_ROUTE)
    others = [kind for kind in CLIENTS if kind != "honest"]
    whole = sum(counts.whole[kind] for kind in others)
    received = sum(counts.answered[kind] for kind in others)
    slope = growth_mb(memory)
    asked = {
        "honest": 0 < counts.whole["honest"] == counts.answered["honest"] == own
        and not between("others", HONEST_ROUTE),
        "vectors": not sum(counts.wrong.values()),
        "once": received <= served and served + abandoned <= whole,
        "nothing_left": after.waiting == 0 and after.files <= before.files,
        "memory": slope <= GROWTH_MB,
    }
    return {
        "sent": dict(counts.whole),
        "answered": dict(counts.answered),
        "refused": dict(counts.refused),
        "wrong": sum(counts.wrong.values()),
        "served_honest": own,
        "served_others": served,
        "abandoned": abandoned,
        "files": [before.files, after.files],
        "first_mb": round(memory[0]),
        "highest_mb": round(max(memory)),
        "last_mb": round(memory[-1]),
        "growth_mb_per_min": round(slope, 2),
        "asked": asked,
    }


def growth_mb(memory: Sequence[float]) -> float:
    """Return the growth per minute over the second half; 0 for one sample. memory: one per second."""
    half = np.array(memory[len(memory) // 2 :])
    if len(half) < 2:
        return 0.0
    return float(np.polyfit(np.arange(len(half)) / 60, half, 1)[0])


if __name__ == "__main__":
    main()
