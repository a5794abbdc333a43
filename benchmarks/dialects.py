"""What does a dialect cost beside the engine it calls?

    python -m benchmarks.dialects [--texts FOLDER] [--turns 5]

First in this process, with an encoder that takes no time: the microseconds that a route's handler
takes for a body beyond the engine's own for its texts, with 1, 32 and 512 texts. Then the real
server over HTTP on POST /v1/embeddings, with base64 and with numbers, beside the engine in this
process with as many requests under way, in turn within one run: 1 and 32 texts per request in a
closed loop, 512 from connections that send a fixed number of requests. One JSON line per result.
"""

import argparse
import asyncio
import http.client
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import numpy as np

from benchmarks import closedloop, machine, workloads
from benchmarks.arguments import parser
from benchmarks.serve import server
from server.api.operation import Call, Handler
from server.app import model_operations
from server.config import Config
from server.inference.capacity import wide_threads
from server.inference.model import Model
from server.inference.registry import ModelRegistry
from server.system.output import until_reader_leaves
from server.telemetry.metrics import Metrics
from server.types import Ids, Packing, Vectors

SIZES = (1, 32, 512)
# Requests under way at once, by texts per request.
CLIENTS = {1: 16, 32: 8, 512: 4}
# A fixed number of requests: a timed run would count one more or one fewer among a few dozen.
COUNTED = 512
COUNTED_REQUESTS = 6
# The body for some texts in each dialect.
BODIES: dict[str, Callable[[Sequence[str]], dict[str, Any]]] = {
    "native /embed": lambda texts: {"texts": texts},
    "native /embed base64": lambda texts: {"texts": texts, "encoding_format": "base64"},
    "TEI /embed": lambda texts: {"inputs": texts},
    "OpenAI /v1/embeddings": lambda texts: {"input": texts},
    "OpenAI /v1/embeddings base64": lambda texts: {"input": texts, "encoding_format": "base64"},
    "Ollama /api/embed": lambda texts: {"model": "", "input": texts},
    "Weaviate /vectors": lambda texts: {"text": texts[0]},
}
ONE_TEXT = {"Weaviate /vectors"}


class Instant:
    """An encoder that returns the same vector at once for every text."""

    def __init__(self, packing: Packing, dimension: int) -> None:
        self.packing = packing
        self._row = np.random.default_rng(0).standard_normal((1, dimension), dtype=np.float32)
        self._row /= np.linalg.norm(self._row)

    def encode(self, texts: Sequence[Ids]) -> Vectors:
        return np.repeat(self._row, len(texts), axis=0)


def main() -> None:
    arguments = parser(__doc__, texts="queries.json", seconds=4, turns=5).parse_args()
    texts = workloads.load("queries", 4096, arguments.texts)
    for measure in (_layers, _rates):
        for line in asyncio.run(measure(arguments, texts)):
            machine.show(line, arguments)


# --- in this process ------------------------------------------------------------------------------


async def _layers(arguments: argparse.Namespace, texts: Sequence[str]) -> list[dict[str, Any]]:
    config, metrics = Config(), Metrics()
    model = Model(arguments.model)
    model.encoder = cast(Any, Instant(model.manifest.packing, model.manifest.dimension))
    models = ModelRegistry([model], config, metrics, asyncio.get_running_loop())
    handlers = {each.path: each.handler for each in model_operations(config)}
    lines = []
    for name, body_of in BODIES.items():
        handler = handlers.get(name.split()[1])
        if handler is None:
            continue
        for size in SIZES[:1] if name in ONE_TEXT else SIZES:
            found = await _layer(models, handler, body_of, texts, size, arguments.turns)
            lines.append({"case": "dialect layer", "dialect": name, "texts": size, **found})
    await asyncio.to_thread(models.close)
    return lines


async def _layer(
    models: ModelRegistry,
    handler: Handler,
    body_of: Callable[[Sequence[str]], dict[str, Any]],
    texts: Sequence[str],
    size: int,
    turns: int,
) -> dict[str, float]:
    engine = models.default
    with_handler, alone = [], []
    for place in range(turns * max(4, 400 // size)):
        some = [texts[(place * size + offset) % len(texts)] for offset in range(size)]
        body = json.dumps(body_of(some), ensure_ascii=False).encode()
        call = Call({"path": "/", "path_params": {}}, body, models)
        started = time.perf_counter()
        reply = await handler(call)
        between = time.perf_counter()
        await engine.embed(some)
        ended = time.perf_counter()
        assert reply.status == 200, reply.body
        with_handler.append(between - started)
        alone.append(ended - between)
    differences = [one - other for one, other in zip(with_handler, alone, strict=True)]
    return {
        "layer_us": round(statistics.median(differences) * 1e6, 1),
        "engine_us": round(statistics.median(alone) * 1e6, 1),
    }


# --- over HTTP ------------------------------------------------------------------------------------


async def _rates(arguments: argparse.Namespace, texts: Sequence[str]) -> list[dict[str, Any]]:
    config = Config()
    model = Model(arguments.model, wide_threads(config))
    models = ModelRegistry([model], config, Metrics(), asyncio.get_running_loop())
    lines, salts = [], count(1)
    with server(arguments.model) as (url, _, scratch):
        for size in SIZES:
            found = await _rate(arguments, models, url, scratch, texts, size, salts)
            lines.append({"case": "dialect rate", "texts": size, **found})
    await asyncio.to_thread(models.close)
    return lines


async def _rate(
    arguments: argparse.Namespace,
    models: ModelRegistry,
    url: str,
    scratch: Path,
    texts: Sequence[str],
    size: int,
    salts: Iterator[int],
) -> dict[str, Any]:
    path, clients = f"{url}/v1/embeddings", CLIENTS[size]
    bodies = {
        format: workloads.write_bodies(scratch / f"{format}{size}", _bodies(texts, size, format))
        for format in ("base64", "float")
    }
    runs: dict[str, list[float]] = {"engine": [], "base64": [], "float": []}
    for _ in range(arguments.turns):
        runs["engine"].append(await _engine_rate(models, texts, size, clients, next(salts)))
        for format, file in bodies.items():
            salt = next(salts)
            if size == COUNTED:
                rate = await asyncio.to_thread(_counted, path, file, clients, salt)
            else:
                found = await asyncio.to_thread(
                    closedloop.run, path, file, clients, arguments.seconds, salt
                )
                rate = found["per_s"]
            runs[format].append(rate)
    line: dict[str, Any] = {"clients": clients}
    for name, rates in runs.items():
        line[f"{name}_requests_per_s"] = round(statistics.median(rates), 2)
    for format in bodies:
        pairs = zip(runs[format], runs["engine"], strict=True)
        line[f"{format}_ratio"] = round(statistics.median(ours / own for ours, own in pairs), 3)
    return line


async def _engine_rate(
    models: ModelRegistry, texts: Sequence[str], size: int, clients: int, salt: int
) -> float:
    """Return requests per second of the engine itself, `clients` at once, every text unique."""
    requests = clients * (COUNTED_REQUESTS if size == COUNTED else max(20, 3000 // size // clients))
    numbers = iter(range(requests))

    async def client() -> None:
        for number in numbers:
            begin = number * size
            some = [texts[(begin + offset) % len(texts)] for offset in range(size)]
            # As many more characters as load.lua adds.
            await models.default.embed([f"{salt % 10}{number % 100:02d}{text}" for text in some])

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return requests / (time.perf_counter() - started)


def _counted(url: str, bodies: Path, clients: int, salt: int) -> float:
    """Return requests per second over `clients` connections; a failed request ends the benchmark."""
    lines = bodies.read_text(encoding="utf-8").splitlines()
    address = urlsplit(url)
    requests = [
        lines[number % len(lines)]
        .replace(workloads.UNIQUE, f"{salt % 10}{number % 100:02d}")
        .encode()
        for number in range(clients * COUNTED_REQUESTS)
    ]
    failed: list[int] = []

    def client(first: int) -> None:
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=120)
        for body in requests[first::clients]:
            connection.request("POST", address.path, body, {"content-type": "application/json"})
            reply = connection.getresponse()
            reply.read()
            if reply.status != 200:
                failed.append(reply.status)
        connection.close()

    threads = [threading.Thread(target=client, args=[first]) for first in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - started
    if failed:
        raise SystemExit(f"{len(failed)} requests failed at {url}: {set(failed)}")
    return len(requests) / elapsed


def _bodies(texts: Sequence[str], size: int, format: str) -> Iterator[dict[str, Any]]:
    for begin in range(0, max(size, 256), size):
        some = [workloads.UNIQUE + texts[(begin + offset) % len(texts)] for offset in range(size)]
        yield {"model": "", "input": some, "encoding_format": format}


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
