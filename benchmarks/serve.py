"""How near does the server come to its own encoder, with one text per request from the same cores?

    python -m benchmarks.serve [--texts FOLDER] [--seconds 4] [--turns 5]

For each workload and number of clients, in turn within one run: the raw lanes (the server's own
queue and threads, fed with token ids, no HTTP) and the server in a closed loop. stage_ms comes from
the server's metrics: the mean time of a request for tokenising, waiting in the queue and inference,
and other, the rest of mean_ms. For a lone client the encoder's own time per text stands beside the
p50 of a request. generator: wrk or, where that is missing, Python; generator_cpu: its share of one
core. Every text is unique. One JSON line per result.
"""

import contextlib
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import closedloop, machine, stages, workloads
from benchmarks.arguments import parser
from server.config import Config
from server.inference.batching import BatchLimits, Job
from server.inference.lanes import Lanes
from server.inference.model import Model
from server.system.cpu import cpu_budget
from server.system.output import until_reader_leaves
from server.telemetry.metrics import Metrics
from server.types import Ids

CASES = (("queries", 1), ("queries", 16), ("queries", 64), ("laws", 16), ("mixed", 16))


class NotStarted(SystemExit):
    """Raised for a server that ended or did not answer in time; ends the benchmark if not caught."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One measurement of the raw lanes, and one of the server right after it."""

    raw_per_s: float
    found: dict[str, float]  # Figures of the closed loop.
    spent: stages.Stages
    encoder_ms: float | None  # Only for a lone client.


def main() -> None:
    files = "queries.json, laws.json, mixed.json"
    arguments = parser(__doc__, texts=files, seconds=4, turns=5).parse_args()
    model = Model(arguments.model, cpu_budget())
    with server(arguments.model) as (url, _, scratch):
        for name, clients in CASES:
            texts = workloads.load(name, 2000, arguments.texts)
            bodies = workloads.write_singles(scratch / name, texts)
            # Three more characters, as many as make each request unique.
            ids = list(model.tokenizer.encode(["天地人" + text for text in texts]).ids)
            turns = [
                _turn(model, ids, url, bodies, clients, arguments.seconds, turn)
                for turn in range(arguments.turns)
            ]
            found = {"case": "serve", "workload": name, "clients": clients, **line(turns)}
            machine.show(found, arguments)


def _turn(
    model: Model,
    ids: Sequence[Ids],
    url: str,
    bodies: Path,
    clients: int,
    seconds: int,
    turn: int,
) -> Turn:
    raw = raw_lanes(model, ids, clients, seconds)
    before = stages.settled(url)
    found = closedloop.run(f"{url}/embed", bodies, clients, seconds, turn)
    spent = stages.between(before, stages.read(url))
    return Turn(raw, found, spent, encoder_ms(model, ids) if clients == 1 else None)


def line(turns: Sequence[Turn]) -> dict[str, Any]:
    """Return medians over the turns; the means of stages are over all their requests."""
    rows = []
    for turn in turns:
        served = turn.found["per_s"]
        row = {"raw_per_s": turn.raw_per_s, "served_per_s": served}
        row["ratio"] = served / turn.raw_per_s
        for key in ("p50_ms", "p95_ms", "p99_ms", "mean_ms", "generator_cpu"):
            row[key] = turn.found[key]
        if turn.encoder_ms is not None:
            row["encoder_ms"] = turn.encoder_ms
            row["overhead_ms"] = turn.found["p50_ms"] - turn.encoder_ms
        rows.append(row)
    found = machine.medians(rows, list(rows[0]), 3)
    means = stages.means_ms(*(turn.spent for turn in turns))
    means["other"] = found["mean_ms"] - sum(means.values())
    stage_ms = {stage: round(value, 3) for stage, value in means.items()}
    return {**found, "stage_ms": stage_ms, "generator": closedloop.generator()}


def raw_lanes(model: Model, ids: Sequence[Ids], clients: int, seconds: float) -> float:
    """Return texts per second of the lanes with `clients` texts always waiting or running."""
    config = Config()
    limits = BatchLimits(config.batch_tokens, config.interactive_tokens, 1 << 30, 1 << 30)
    done = threading.Event()
    state = {"next": 0, "finished": 0, "stop": False}

    def submit() -> None:
        text = ids[state["next"] % len(ids)]
        state["next"] += 1
        lanes.submit(tenant, Job([text], None, time.perf_counter()))
        lanes.wake()

    def deliver(jobs: Sequence[Job]) -> None:
        with lock:
            state["finished"] += len(jobs)
            if state["stop"]:
                done.set()
                return
            for _ in jobs:
                submit()

    lock = threading.Lock()
    lanes = Lanes(Metrics(), deliver, cpu_budget())
    tenant = lanes.admit(model.encoder, limits, model.wide)
    started = time.perf_counter()
    with lock:
        for _ in range(clients):
            submit()
    time.sleep(seconds)
    with lock:
        finished, elapsed = state["finished"], time.perf_counter() - started
        state["stop"] = True
    done.wait(10)
    lanes.close(10)
    return finished / elapsed


def encoder_ms(model: Model, ids: Sequence[Ids]) -> float:
    """Return the median milliseconds of the encoder alone: one text at a time, one thread."""
    times = []
    for text in ids[:1000]:
        started = time.perf_counter()
        model.encoder.encode([text])
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3


@contextlib.contextmanager
def server(model: Path, data: Path | None = None) -> Iterator[tuple[str, int, Path]]:
    """Run the real server on a free port; yields URL, process id and a scratch folder.

    data: its data folder, by default one in the scratch folder.
    """
    command = [sys.executable, "-m", "server", "serve", "--model", str(model)]
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        command += ["--data", str(data or scratch / "data")]
        with process(command, scratch / "server.log", "/ready") as (url, pid):
            yield url, pid, scratch


def index(model: Path, source: Path, data: Path, *flags: str) -> str:
    """Index the documents of `source` into `data`; return what the command printed."""
    command = [sys.executable, "-m", "server", "index", str(source), "--model", str(model)]
    command += ["--data", str(data), "--log-level", "warning", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command} failed: {done.stdout}{done.stderr}")
    return done.stdout


@contextlib.contextmanager
def process(
    command: list[str],
    log: Path,
    probe: str,
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Iterator[tuple[str, int]]:
    """Run a server on a free port until the block ends; yields URL and process id.

    It yields once the path `probe` answers. Raises NotStarted.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        running = subprocess.Popen(
            [*command, "--port", str(port)], stdout=output, stderr=output, cwd=cwd, env=environ
        )
    try:
        for _ in range(3000):
            with contextlib.suppress(OSError), urllib.request.urlopen(url + probe, timeout=5):
                break
            if running.poll() is not None:
                raise NotStarted(f"{command} ended: {log.read_text()[-2000:]}")
            time.sleep(0.02)
        else:
            raise NotStarted(f"{command} does not answer: {log.read_text()[-2000:]}")
        yield url, running.pid
    finally:
        running.terminate()
        try:
            running.wait(30)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
