"""How far is the capacity model from a running server?

    python -m benchmarks.capacity.validation [--workload queries] [--rates 0.2,0.5,0.8] [--seconds 10]

First this machine is measured: the encoder on one lane and the whole server in a closed loop. Then the
server is asked at random moments (Poisson, seeded, one text each), at parts of what it can do, and at each
rate the model says what it would expect. The peak and the time of a lone request are measured, and so not
judged; percentiles at the rates are. Turns alternate the rates; the machine is measured again in each turn,
because its speed changes. One JSON line per rate: measured, modelled, and the error in percent.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import closedloop, machine, openloop, stages, workloads
from benchmarks.arguments import names_among, parser
from benchmarks.capacity.measured import marked
from benchmarks.capacity.plan import wide
from benchmarks.capacity.queueing import (
    Overloaded,
    Seconds,
    balance,
    percentile_ms,
    times,
)
from benchmarks.capacity.service import ServiceTime, fitted, saturated, servers
from benchmarks.connection import post
from benchmarks.encode import SHAPES
from benchmarks.serve import server
from server.inference.model import Model
from server.system.cpu import cpu_budget
from server.system.output import until_reader_leaves
from server.types import Encoder

WORKLOADS = ("queries", "laws", "mixed")
# Clients of the closed loop: their texts always wait.
CLIENTS = 64
# Clients for each lane that meet each other, and leave the event loop time between them.
A_LANE = 2
RUNS = 7


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine in one turn. peak_per_s: of the closed loop.

    cores: lanes. service: of a lane alone. wide: how many times as fast a lone text is on all cores. http_s: of a lone
    request outside queue and model. hand_over_s: that this is longer beside a few others.
    """

    cores: int
    service: ServiceTime
    wide: float
    peak_per_s: float
    http_s: float
    hand_over_s: float


def main() -> None:
    arguments = _arguments()
    model = Model(arguments.model, cpu_budget())
    with server(arguments.model) as (url, _, scratch):
        for name in arguments.workload:
            texts = workloads.load(name, 2000, arguments.texts)
            bodies = workloads.write_singles(scratch / name, texts)
            for line in _measure(url, name, texts, bodies, model, arguments):
                machine.show(line, arguments)


def _measure(
    url: str,
    name: str,
    texts: Sequence[str],
    bodies: Path,
    model: Model,
    arguments: argparse.Namespace,
) -> list[dict[str, Any]]:
    path, numbers = f"{url}/embed", count()
    runs: dict[float, list[Seconds]] = {part: [] for part in arguments.rates}
    expected: dict[float, list[Seconds]] = {part: [] for part in arguments.rates}
    rates: dict[float, list[float]] = {part: [] for part in arguments.rates}
    for turn in range(arguments.turns):
        found = _machine(url, bodies, model, arguments.seconds, turn)
        for place, part in enumerate(arguments.rates):
            rate = part * found.peak_per_s
            starts = openloop.poisson(rate, arguments.seconds, turn * 100 + place)
            some = workloads.unique(texts, (next(numbers) for _ in starts))
            requests = [post(path, json.dumps({"texts": [text]}).encode()) for text in some]
            run = openloop.run(path, requests, starts)
            runs[part].append(run.latency_s)
            rates[part].append(len(starts) / arguments.seconds)
            try:
                expected[part].append(modelled(name, rates[part][-1], found))
            except Overloaded as reason:
                sys.exit(f"{name} at {part:.0%} of the peak: {reason}")
    return [
        {
            "case": "capacity",
            "workload": name,
            "load": part,
            "per_s": round(statistics.mean(rates[part]), 1),
        }
        | compared(np.concatenate(runs[part]), np.concatenate(expected[part]))
        for part in arguments.rates
    ]


def modelled(name: str, rate: float, found: Machine) -> Seconds:
    """Return the times that the model expects at a rate; raises Overloaded.

    A lane is as much slower than one alone as the peak is below that of undisturbed lanes: HTTP, the
    event loop and the sender take part of the cores.
    """
    lengths, cores = marked(name), found.cores
    ideal = saturated(found.service, lengths)
    crowding = max(1.0, cores * ideal.texts / ideal.batch_s / found.peak_per_s)
    service = found.service.slowed(crowding)
    lone = crowding * wide(found.wide, cores)
    lanes = servers(service, lengths, cores, lone, found.hand_over_s)
    return times(balance(rate, lanes), service.of_each(lengths)) + found.http_s


def compared(run: Seconds, expected: Seconds) -> dict[str, float]:
    """Return percentiles of both, ms, and the error of the expected ones in percent of the measured."""
    line: dict[str, float] = {"requests": len(run)}
    for q in (50, 99):
        here, there = percentile_ms(run, q), percentile_ms(expected, q)
        line |= {
            f"p{q}_ms": round(here, 2),
            f"modelled_p{q}_ms": round(there, 2),
            f"error_p{q}_percent": round((there / here - 1) * 100, 1),
        }
    return line


def _machine(url: str, bodies: Path, model: Model, seconds: float, turn: int) -> Machine:
    short, cores = max(1, seconds // 4), cpu_budget()
    _, lone_s = _closed(url, bodies, 1, short, 3 * turn)
    _, met_s = _closed(url, bodies, A_LANE * cores, short, 3 * turn + 1)
    peak_per_s, _ = _closed(url, bodies, CLIENTS, max(2, seconds // 2), 3 * turn + 2)
    narrow = _service(model.encoder)
    speed = 1.0
    if model.wide is not None:
        both = _service(model.wide)
        speed = max(1.0, statistics.median(narrow.of([n]) / both.of([n]) for n in (18, 64, 128)))
    return Machine(cores, narrow, speed, peak_per_s, lone_s, max(0.0, met_s - lone_s))


def _closed(url: str, bodies: Path, clients: int, seconds: float, salt: int) -> tuple[float, float]:
    """Return requests a second, and the seconds of one outside queue and model, of a closed loop."""
    before = stages.settled(url)
    found = closedloop.run(f"{url}/embed", bodies, clients, seconds, salt)
    spent_ms = stages.means_ms(stages.between(before, stages.read(url)))
    other_ms = found["mean_ms"] - spent_ms["queue"] - spent_ms["infer"]
    return found["per_s"], max(0.0, other_ms / 1e3)


def _service(encoder: Encoder) -> ServiceTime:
    """Return the times of an encoder: the fastest of several runs of each shape, then the fit."""
    random = np.random.default_rng(2)
    found = {}
    for lengths in SHAPES.values():
        batch = [random.integers(1000, 7000, n) for n in lengths]
        seconds = []
        for _ in range(RUNS):
            began = time.perf_counter()
            encoder.encode(batch)
            seconds.append(time.perf_counter() - began)
        found[tuple(lengths)] = statistics.median(seconds)
    return fitted(found)


def _parts(text: str) -> list[float]:
    """Return parts of the peak, with commas between: each above 0 and below 1."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers with commas between") from None
    if wrong := [part for part in found if not 0 < part < 1]:
        raise argparse.ArgumentTypeError(f"{wrong[0]:g} is not a part of the peak: 0 to 1")
    return found


def _arguments() -> argparse.Namespace:
    files = "queries.json, laws.json, mixed.json"
    options = parser(__doc__, texts=files, seconds=10, turns=3)
    options.add_argument("--workload", type=names_among(WORKLOADS), default=["queries"])
    options.add_argument(
        "--rates",
        type=_parts,
        default=[0.2, 0.5, 0.8],
        help="parts of the peak (0.2,0.5,0.8)",
    )
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
