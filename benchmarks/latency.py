"""How long do requests take at a stated load, and where does the time go?

    python -m benchmarks.latency [--texts FOLDER] [--seconds 4] [--turns 2]

For each workload and turn: the peak in a closed loop (64 clients), then requests at 50, 70 and 90 %
of that peak in an open loop, at random moments (Poisson, seeded), with latency from the intended
start. Percentiles are over the requests of all turns. The mean is split with the server's own
metrics: lateness of the generator, tokenising, waiting in the queue, inference, and the rest, which is
the event loop, HTTP, sockets and, where `waited` is not 0, connections that were all busy. Every text
is unique. One JSON line per load.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import closedloop, machine, openloop, stages, workloads
from benchmarks.arguments import parser
from benchmarks.connection import post
from benchmarks.serve import server
from server.system.output import until_reader_leaves

WORKLOADS = ("queries", "laws", "mixed")
CLIENTS = 64
LOADS = (0.5, 0.7, 0.9)


@dataclass(frozen=True, slots=True)
class Turn:
    """The peak of one turn, and one run at a part of it."""

    peak: float
    rate: float
    run: openloop.Run
    spent: stages.Stages  # By the requests of this run.


def main() -> None:
    files = "queries.json, laws.json, mixed.json"
    arguments = parser(__doc__, texts=files, seconds=4, turns=2).parse_args()
    with server(arguments.model) as (url, _, scratch):
        for name in WORKLOADS:
            texts = workloads.load(name, 2000, arguments.texts)
            bodies = workloads.write_singles(scratch / name, texts)
            for load, turns in _measure(url, texts, bodies, arguments).items():
                line = {"case": "latency", "workload": name, "load": load, **_line(turns)}
                machine.show(line, arguments)


def _measure(
    url: str, texts: Sequence[str], bodies: Path, arguments: argparse.Namespace
) -> dict[float, list[Turn]]:
    """Return the turns of each load; all loads of a turn follow the peak they are a part of."""
    path, found, numbers = f"{url}/embed", {load: list[Turn]() for load in LOADS}, count()
    for turn in range(arguments.turns):
        peak = closedloop.run(path, bodies, CLIENTS, arguments.seconds, turn)["per_s"]
        for place, load in enumerate(LOADS):
            starts = openloop.poisson(load * peak, arguments.seconds, turn * len(LOADS) + place)
            some = workloads.unique(texts, (next(numbers) for _ in starts))
            requests = [post(path, json.dumps({"texts": [text]}).encode()) for text in some]
            before = stages.settled(url)
            run = openloop.run(path, requests, starts)
            spent = stages.between(before, stages.read(url))
            found[load].append(Turn(peak, len(starts) / arguments.seconds, run, spent))
    return found


def _line(turns: Sequence[Turn]) -> dict[str, Any]:
    latency_ms = np.concatenate([turn.run.latency_s for turn in turns]) * 1e3
    late_ms = np.concatenate([turn.run.lateness_s for turn in turns]) * 1e3
    means = {"total": float(latency_ms.mean()), "late": float(late_ms.mean())}
    means |= stages.means_ms(*(turn.spent for turn in turns))
    means["rest"] = 2 * means["total"] - sum(means.values())
    percentiles = {
        f"p{q}_ms": round(float(np.percentile(latency_ms, q)), 3) for q in (50, 95, 99, 99.9)
    }
    return {
        "peak_per_s": round(statistics.mean(turn.peak for turn in turns), 1),
        "peak_by": closedloop.generator(),
        "per_s": round(statistics.mean(turn.rate for turn in turns), 1),
        "requests": len(latency_ms),
        **percentiles,
        "mean_ms": {name: round(value, 3) for name, value in means.items()},
        "waited": sum(turn.run.waited for turn in turns),
        "late_p99_ms": round(float(np.percentile(late_ms, 99)), 3),
        "generator_cpu": round(statistics.mean(turn.run.cpu for turn in turns), 3),
    }


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
