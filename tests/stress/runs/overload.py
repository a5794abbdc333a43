"""Overloads a server: ten times more requests than it can answer.

    python -m tests.stress.runs.overload [--texts FOLDER] [--seconds 60] [--only single,large]

First the server's capacity: a closed loop of 16 clients. Then ten times that rate at random moments,
whatever the server does (Poisson, seeded), once with one law article per request and once with 256;
then single queries, ten per second. Checks:

- accepted: the 99th percentile, from the intended start, is at most twice the time that a full queue
  takes at the rate of the closed loop; the generator and the refusals need cores too;
- refused: each is a 429 with a retry-after, the 99th percentile at most REFUSED_MS after it was sent;
- memory: the peak is at most GROWN_MB above the memory before;
- recovery: within RECOVERED_S after the end, single queries take their usual time again: at most
  three times the 99th percentile of an idle server.

late_p99_ms: how late the generator sent its requests; it shares the cores with a busy server. cpu:
the cores it took. One JSON line for each kind of request; the exit status is 1 if a check fails.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import closedloop, machine, openloop, stages, usage, workloads
from benchmarks.arguments import names_among, parser
from benchmarks.connection import Failed, post, punctual_loop, undisturbed
from benchmarks.openloop import Overload, Run, Seconds
from benchmarks.serve import server
from server.inference.model import Model
from server.telemetry.metrics import PREFIX

TIMES, CLIENTS = 10, 16
TWICE = 2.0
REFUSED_MS = 10.0
RECOVERED_S = 2.0
# The bodies, texts and vectors of a full queue; MAX_LARGE_BODIES alone lets in as much.
GROWN_MB = 256.0
USUAL_TIMES = 3.0
# Single queries after the overload, and as many before it.
PROBES, PROBES_PER_S, PROBE_CONNECTIONS, OPENING_S = 80, 10.0, 32, 1.0
# Bound for the generator on a machine without a free core.
LATE_MS = 100.0
CAPACITY_S = 6


@dataclass(frozen=True, slots=True)
class Kind:
    """Requests of one size; pool: how many different ones are sent in turn."""

    texts: int
    pool: int
    line: str  # Which of the queue's two lines they wait in.
    connections: int  # More than may wait and run, so that no request waits for one.


KINDS = {
    "single": Kind(1, 2000, "interactive", 1024),
    "large": Kind(256, 40, "bulk", 256),
}


@dataclass(frozen=True, slots=True)
class Found:
    """Results of one kind of request: of the overload and of the queries after it."""

    overload: Run
    seconds: float
    after: Run
    after_s: Seconds  # Intended starts of those, from the end of the overload.
    usual_s: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of the server in MiB: before, at the peak and after."""

    before_mb: float
    peak_mb: float
    after_mb: float


def main() -> None:
    arguments = _arguments()
    lines = []
    for name in arguments.only:
        with server(arguments.model) as (url, pid, scratch):
            found = _overload(KINDS[name], arguments, url, pid, scratch)
        lines.append({"case": "overload", "requests": name, **found})
        machine.show(lines[-1], arguments)
    if not all(all(line["asked"].values()) for line in lines):
        sys.exit(1)


def _overload(
    kind: Kind, arguments: argparse.Namespace, server_url: str, pid: int, scratch: Path
) -> dict[str, Any]:
    url = f"{server_url}/embed"
    laws = workloads.load("laws", 2000, arguments.texts)
    groups = [list(islice(cycle(laws), at, at + kind.texts)) for at in range(kind.pool)]
    bodies = [{"texts": texts} for texts in groups]
    written = workloads.write_bodies(scratch / "bodies.jsonl", bodies)
    per_s = closedloop.run(url, written, CLIENTS, CAPACITY_S, 1)["per_s"]
    full = stages.samples(server_url)[f'{PREFIX}_queue_tokens_limit{{kind="{kind.line}"}}']
    bound_s = TWICE * float(full) / (per_s * mean_tokens(arguments.model, groups))

    usage.forget_peak(pid)
    before_mb = usage.resident_mb(pid)
    starts = openloop.poisson(TIMES * per_s, arguments.seconds, 1)
    pool = [post(url, json.dumps(body).encode()) for body in bodies]
    requests = [*islice(cycle(pool), len(starts))]
    queries = workloads.load("queries", PROBES, arguments.texts)
    probes = [post(url, json.dumps({"texts": [query]}).encode()) for query in queries]
    with undisturbed(), asyncio.Runner(loop_factory=punctual_loop) as runner:
        try:
            found = runner.run(
                _drive(url, kind, requests, starts, probes, arguments.seconds, bound_s)
            )
        except Failed as failure:
            sys.exit(f"{url}: {failure}")
    memory = Memory(before_mb, usage.peak_mb(pid), usage.resident_mb(pid))
    return {"capacity_per_s": per_s, "texts": kind.texts, **judged(found, memory, bound_s)}


async def _drive(
    url: str,
    kind: Kind,
    requests: Sequence[bytes],
    starts: Seconds,
    probes: Sequence[bytes],
    seconds: float,
    bound_s: float,
) -> Found:
    """Send queries to an idle server, then the overload, and as it ends the queries again."""
    after_s = np.arange(len(probes)) / PROBES_PER_S
    overload = Overload(patience_s=bound_s + openloop.PATIENCE_S, late_ms=LATE_MS)
    idle = await openloop.drive(url, probes, after_s, PROBE_CONNECTIONS, overload)
    usual_s = USUAL_TIMES * float(np.percentile(idle.latency_s, 99))

    async def behind() -> Run:
        # Connections open no earlier, because a server closes idle ones.
        await asyncio.sleep(seconds - OPENING_S)
        return await openloop.drive(url, probes, OPENING_S + after_s, PROBE_CONNECTIONS, overload)

    found, after = await asyncio.gather(
        openloop.drive(url, requests, starts, kind.connections, overload), behind()
    )
    return Found(found, seconds, after, after_s, usual_s)


def mean_tokens(model: Path, groups: Sequence[Sequence[str]]) -> float:
    """Return the mean number of tokens in a request."""
    tokenizer = Model(model).tokenizer
    return float(np.mean([sum(map(len, tokenizer.encode(texts).ids)) for texts in groups]))


def judged(found: Found, memory: Memory, bound_s: float) -> dict[str, Any]:
    """Return the figures, and for each check whether it holds."""
    run = found.overload
    accepted_ms = run.latency_s[run.status == 200] * 1e3
    refused_ms = (run.latency_s - run.lateness_s)[run.status == 429] * 1e3
    accepted_p99_ms, refused_p99_ms = _percentile(accepted_ms, 99), _percentile(refused_ms, 99)
    recovery = recovery_s(found)
    asked = {
        "accepted": accepted_p99_ms is not None and accepted_p99_ms <= bound_s * 1e3,
        "refused": refused_p99_ms is not None and refused_p99_ms <= REFUSED_MS,
        "memory": memory.peak_mb - memory.before_mb <= GROWN_MB,
        "recovery": recovery is not None and recovery <= RECOVERED_S,
    }
    return {
        "seconds": found.seconds,
        "offered_per_s": round(len(run.status) / found.seconds, 1),
        "accepted": len(accepted_ms),
        "accepted_p50_ms": _percentile(accepted_ms, 50),
        "accepted_p99_ms": accepted_p99_ms,
        "accepted_bound_ms": round(bound_s * 1e3),
        "refused": len(refused_ms),
        "refused_p50_ms": _percentile(refused_ms, 50),
        "refused_p99_ms": refused_p99_ms,
        "recovery_s": recovery,
        "usual_ms": round(found.usual_s * 1e3, 1),
        "before_mb": round(memory.before_mb),
        "peak_mb": round(memory.peak_mb),
        "after_mb": round(memory.after_mb),
        "late_p99_ms": _percentile(run.lateness_s * 1e3, 99),
        "waited": run.waited,
        "cpu": round(run.cpu, 2),
        "asked": asked,
    }


def recovery_s(found: Found) -> float | None:
    """Return the time from the end of the overload until all queries take their usual time.

    None if even the last one does not.
    """
    unusual = np.flatnonzero((found.after.status != 200) | (found.after.latency_s > found.usual_s))
    first = int(unusual[-1]) + 1 if len(unusual) else 0
    return round(float(found.after_s[first]), 2) if first < len(found.after_s) else None


def _percentile(values: Seconds, q: float) -> float | None:
    return round(float(np.percentile(values, q)), 3) if len(values) else None


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, texts="queries.json and laws.json", seconds=60)
    options.add_argument(
        "--only",
        type=names_among(KINDS),
        default=list(KINDS),
        help="kinds of requests, with commas",
    )
    return options.parse_args()


if __name__ == "__main__":
    main()
