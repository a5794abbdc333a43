"""How much do single queries and a bulk client slow each other down?

    python -m benchmarks.priority [--texts FOLDER] [--seconds 8] [--turns 3]

Queries of one text, 50 per second at random moments (Poisson, seeded, latency from the intended
start), and a bulk client that sends 512 law articles per request, one request after the other. In
turn within one run: the queries alone, the bulk client alone, both. `met` says whether the queries'
p99 is at most 3 times the idle one and bulk keeps at least 0.8 of its rate. Every text is unique. One
JSON line.
"""

import argparse
import http.client
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import count, islice
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks import machine, openloop, workloads
from benchmarks.arguments import parser
from benchmarks.connection import post
from benchmarks.serve import server
from server.system.output import until_reader_leaves

BULK_TEXTS = 512
QUERIES_PER_S = 50
# Enough for 0.6 s of queries that all wait.
CONNECTIONS = 32
FORK = multiprocessing.get_context("fork")
P99_RATIO, BULK_RATIO = 3.0, 0.8


def main() -> None:
    files = "queries.json and laws.json"
    arguments = parser(__doc__, texts=files, seconds=8, turns=3).parse_args()
    queries = workloads.load("queries", 2000, arguments.texts)
    laws = workloads.load("laws", 2000, arguments.texts)
    with server(arguments.model) as (url, _, _):
        line = _measure(f"{url}/embed", queries, laws, arguments)
    machine.show(line, arguments)


def _measure(
    url: str, queries: Sequence[str], laws: Sequence[str], arguments: argparse.Namespace
) -> dict[str, Any]:
    questions, articles = workloads.unique(queries, count()), workloads.unique(laws, count())
    idle, beside = list[openloop.Run](), list[openloop.Run]()
    alone_s, shared_s = list[float](), list[float]()
    # The first turn, a short one, warms up.
    for turn in range(arguments.turns + 1):
        seconds = arguments.seconds if turn else 1
        # The same moments with the bulk client as without it.
        starts = openloop.poisson(QUERIES_PER_S, seconds, turn)
        without = _ask(url, questions, starts)
        with Bulk(url, articles) as alone:
            time.sleep(seconds)
        with Bulk(url, articles) as shared:
            together = _ask(url, questions, starts)
        if turn:
            idle.append(without)
            beside.append(together)
            alone_s += alone.took_s
            shared_s += shared.took_s
    if not (alone_s and shared_s):
        raise SystemExit(f"no bulk request took less than {arguments.seconds} s; set --seconds")
    return _line(idle, beside, alone_s, shared_s)


def _ask(url: str, texts: Iterator[str], starts: openloop.Seconds) -> openloop.Run:
    requests = [
        post(url, json.dumps({"texts": [text]}).encode()) for text in islice(texts, len(starts))
    ]
    return openloop.run(url, requests, starts, CONNECTIONS)


class Bulk:
    """A client that sends large requests in turn while the block runs; a failure ends the benchmark.

    It is a process of its own: a thread would hold the interpreter when a query must be sent.
    """

    def __init__(self, url: str, texts: Iterator[str]) -> None:
        self.took_s: list[float] = []
        self._ended = FORK.Event()
        self._texts = texts
        self._found, found = FORK.Pipe(duplex=False)
        self._process = FORK.Process(target=_send, args=(url, texts, self._ended, found))
        self._process.start()
        found.close()

    def __enter__(self) -> "Bulk":
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        try:
            took_s = self._found.recv()
        except EOFError:
            raise SystemExit("a bulk request failed") from None
        self._process.join()
        # The last request ended when no query ran beside it.
        self.took_s = took_s[:-1]
        # That process has sent these texts; skip them here, so that none is sent twice.
        for _taken in islice(self._texts, BULK_TEXTS * len(took_s)):
            pass


def _send(url: str, texts: Iterator[str], ended: Event, found: "Connection[Any, Any]") -> None:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=120)
    took_s = []
    while not ended.is_set():
        body = json.dumps({"texts": list(islice(texts, BULK_TEXTS))})
        started = time.perf_counter()
        connection.request("POST", address.path, body, {"content-type": "application/json"})
        reply = connection.getresponse()
        reply.read()
        if reply.status != 200:
            raise SystemExit(f"a bulk request was answered with {reply.status}")
        took_s.append(time.perf_counter() - started)
    found.send(took_s)


def _line(
    idle: Sequence[openloop.Run],
    beside: Sequence[openloop.Run],
    alone_s: Sequence[float],
    shared_s: Sequence[float],
) -> dict[str, Any]:
    line: dict[str, Any] = {"case": "priority", "queries_per_s": QUERIES_PER_S}
    for name, runs in (("idle", idle), ("beside", beside)):
        latency_ms = np.concatenate([run.latency_s for run in runs]) * 1e3
        for q in (50, 99):
            line[f"{name}_p{q}_ms"] = round(float(np.percentile(latency_ms, q)), 3)
    for name, took_s in (("alone", alone_s), ("shared", shared_s)):
        line[f"bulk_{name}_per_s"] = round(BULK_TEXTS * len(took_s) / sum(took_s), 1)
    line["p50_ratio"] = round(line["beside_p50_ms"] / line["idle_p50_ms"], 2)
    line["p99_ratio"] = round(line["beside_p99_ms"] / line["idle_p99_ms"], 2)
    line["bulk_ratio"] = round(line["bulk_shared_per_s"] / line["bulk_alone_per_s"], 3)
    line["met"] = line["p99_ratio"] <= P99_RATIO and line["bulk_ratio"] >= BULK_RATIO
    line["requests"] = sum(len(run.latency_s) for run in idle)
    line["bulk_requests"] = len(shared_s)
    late_s = np.concatenate([run.lateness_s for run in (*idle, *beside)])
    line["late_p99_ms"] = round(float(np.percentile(late_s, 99)) * 1e3, 3)
    return line


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
