"""How long do requests take at a stated load, and what is the time spent on?

    python -m benchmarks.latency [--texts FOLDER] [--seconds 4] [--turns 2]

For each workload and turn: the peak in a closed loop (wrk, 64 clients), then requests at 50, 70 and 90 %
of that peak in an open loop, at random moments (Poisson, seeded) and with latency from the intended
start. Percentiles are over the requests of all turns. The mean is told apart by the server's own
metrics: what the generator was late, tokenising, waiting in the queue, inference, and the rest, which is
the event loop, HTTP, sockets and, where `waited` is not 0, connections that were all busy. Every text is
unique. One JSON line a load.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, openloop, workloads
from benchmarks.serve import server, under_wrk, write_bodies
from server.config import DEFAULT_MODEL
from server.metrics import PREFIX

WORKLOADS = ("queries", "laws", "mixed")
CLIENTS = 64
LOADS = (0.5, 0.7, 0.9)
STAGES = ("tokenize", "queue", "infer")


# By stage: the seconds of all requests together, and how many they were.
Stages = dict[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Turn:
    peak: float
    rate: float
    run: openloop.Run
    stage_s: Stages  # Of this run alone.


def main() -> None:
    arguments = _arguments()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed: apt-get install wrk")
    facts = machine.facts()
    with (
        tempfile.TemporaryDirectory() as scratch,
        server(arguments.model, Path(scratch)) as (url, _),
    ):
        for name in WORKLOADS:
            texts = workloads.load(name, 2000, arguments.texts)
            bodies = write_bodies(Path(scratch) / f"{name}.jsonl", texts)
            for load, turns in _measure(url, texts, bodies, arguments).items():
                line = {"case": "latency", "workload": name, "load": load, **_line(turns)}
                print(json.dumps({**line, "machine": facts}), flush=True)


def _measure(
    url: str, texts: Sequence[str], bodies: Path, arguments: argparse.Namespace
) -> dict[float, list[Turn]]:
    """The turns of each load; all loads of a turn follow the peak they are a part of."""
    path, found, numbers = f"{url}/embed", {load: list[Turn]() for load in LOADS}, count()
    for turn in range(arguments.turns):
        peak = under_wrk(path, bodies, CLIENTS, arguments.seconds, turn)["per_s"]
        for place, load in enumerate(LOADS):
            starts = openloop.poisson(load * peak, arguments.seconds, turn * len(LOADS) + place)
            some = workloads.unique(texts, (next(numbers) for _ in starts))
            requests = [
                openloop.post(path, json.dumps({"texts": [text]}).encode()) for text in some
            ]
            before = _settled(url)
            run = openloop.run(path, requests, starts)
            after = _stage_s(url)
            spent = {
                stage: (after[stage][0] - before[stage][0], after[stage][1] - before[stage][1])
                for stage in STAGES
            }
            found[load].append(Turn(peak, len(starts) / arguments.seconds, run, spent))
    return found


def _settled(url: str) -> Stages:
    """What was spent until now; waits for requests that wrk has left behind."""
    before: Stages = {}
    while (now := _stage_s(url)) != before:
        before = now
        time.sleep(0.2)
    return now


def _stage_s(url: str) -> Stages:
    """What requests have spent in each stage since the server's start."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as reply:
        lines = reply.read().decode().splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    names = {stage: f"{PREFIX}_{stage}_seconds" for stage in STAGES}
    return {
        stage: (float(samples[f"{name}_sum"]), float(samples[f"{name}_count"]))
        for stage, name in names.items()
    }


def _line(turns: Sequence[Turn]) -> dict[str, Any]:
    latency_ms = np.concatenate([turn.run.latency_s for turn in turns]) * 1e3
    late_ms = np.concatenate([turn.run.lateness_s for turn in turns]) * 1e3
    means = {"total": float(latency_ms.mean()), "late": float(late_ms.mean())}
    for stage in STAGES:
        spent, requests = np.sum([turn.stage_s[stage] for turn in turns], axis=0)
        means[stage] = float(spent / requests) * 1e3
    means["rest"] = 2 * means["total"] - sum(means.values())
    percentiles = {
        f"p{q}_ms": round(float(np.percentile(latency_ms, q)), 3) for q in (50, 95, 99, 99.9)
    }
    return {
        "peak_per_s": round(statistics.mean(turn.peak for turn in turns), 1),
        "per_s": round(statistics.mean(turn.rate for turn in turns), 1),
        "requests": len(latency_ms),
        **percentiles,
        "mean_ms": {name: round(value, 3) for name, value in means.items()},
        "waited": sum(turn.run.waited for turn in turns),
        "late_p99_ms": round(float(np.percentile(late_ms, 99)), 3),
        "generator_cpu": round(statistics.mean(turn.run.cpu for turn in turns), 3),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument(
        "--texts", type=Path, help="folder with queries.json, laws.json, mixed.json"
    )
    parser.add_argument("--seconds", type=int, default=4, help="of each load and of the peak")
    parser.add_argument("--turns", type=int, default=2, help="each with a peak of its own")
    return parser.parse_args()


if __name__ == "__main__":
    main()
