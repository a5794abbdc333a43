"""How near does the server come to its own encoder? One text a request, wrk on the same cores.

    python -m benchmarks.serve [--texts FOLDER] [--seconds 8] [--tutorial PYTHON]

For each workload and number of clients, in turn within one run: the raw lanes (the server's own
queue and threads, fed with token ids, no HTTP) and the server under wrk. For a lone client: the
encoder's own time per text beside the p50 of a request. With --tutorial (the interpreter of an
environment made from contenders/requirements-tutorial.txt), the FastAPI + sentence-transformers
server of the tutorials runs the same requests. Every text is unique. One JSON line a result.
"""

import argparse
import contextlib
import json
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, workloads
from server.batching import BatchLimits, Job
from server.config import DEFAULT_MODEL, Config
from server.cpu import cpu_budget
from server.encoder import Model
from server.lanes import Lanes
from server.metrics import Metrics
from server.types import Ids

CASES = (("queries", 1), ("queries", 16), ("queries", 64), ("laws", 16), ("mixed", 16))
TUTORIAL_CASES = (("queries", 16), ("laws", 16))
LOAD = Path(__file__).with_name("load.lua")
TUTORIAL = Path(__file__).with_name("contenders") / "tutorial.py"


class NotStarted(SystemExit):
    """A server that ended, or did not answer in time; ends the benchmark unless it is expected."""


def main() -> None:
    arguments = _arguments()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed: apt-get install wrk")
    model = Model(arguments.model, cpu_budget())
    facts = machine.facts()
    with (
        tempfile.TemporaryDirectory() as scratch,
        server(arguments.model, Path(scratch)) as (url, _),
    ):
        for name, clients in CASES:
            texts = workloads.load(name, 2000, arguments.texts)
            bodies = write_bodies(Path(scratch) / f"{name}.jsonl", texts)
            # Three characters more, as load.lua makes each request unique with.
            ids = list(model.tokenizer.encode(["天地人" + text for text in texts]).ids)
            turns = [
                _turn(model, ids, url, bodies, clients, arguments.seconds, turn)
                for turn in range(arguments.turns)
            ]
            line = {"case": "serve", "workload": name, "clients": clients, **_medians(turns)}
            _print(line, facts)
        if arguments.tutorial:
            _compare(arguments, url, Path(scratch), facts)


def _turn(
    model: Model,
    ids: Sequence[Ids],
    url: str,
    bodies: Path,
    clients: int,
    seconds: int,
    turn: int,
) -> dict[str, float]:
    """The raw lanes, then the server, one right after the other."""
    raw = raw_lanes(model, ids, clients, seconds)
    found = under_wrk(f"{url}/embed", bodies, clients, seconds, turn)
    result = {"raw_per_s": raw, "served_per_s": found["per_s"], "ratio": found["per_s"] / raw}
    result |= {key: found[key] for key in ("p50_ms", "p95_ms", "p99_ms", "wrk_cpu")}
    if clients == 1:
        result["encoder_ms"] = encoder_ms(model, ids)
        result["overhead_ms"] = found["p50_ms"] - result["encoder_ms"]
    return result


def _medians(turns: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: round(statistics.median(turn[key] for turn in turns), 3) for key in turns[0]}


def _compare(arguments: argparse.Namespace, url: str, scratch: Path, facts: dict[str, Any]) -> None:
    command = [arguments.tutorial, str(TUTORIAL), str(arguments.model.parent)]
    with process(command, scratch / "tutorial.log", "/docs") as (tutorial, _):
        for name, clients in TUTORIAL_CASES:
            bodies = scratch / f"{name}.jsonl"
            runs = [
                [
                    under_wrk(f"{base}/embed", bodies, clients, arguments.seconds, turn)["per_s"]
                    for base in (url, tutorial)
                ]
                for turn in range(arguments.turns)
            ]
            ours, theirs = (statistics.median(column) for column in zip(*runs, strict=True))
            line = {"case": "tutorial", "workload": name, "clients": clients}
            line |= {
                "served_per_s": ours,
                "tutorial_per_s": theirs,
                "ratio": round(ours / theirs, 2),
            }
            _print(line, facts)


def raw_lanes(model: Model, ids: Sequence[Ids], clients: int, seconds: float) -> float:
    """Texts per second of the lanes with `clients` texts always waiting or running."""
    config = Config()
    limits = BatchLimits(config.batch_tokens, config.interactive_tokens, 1 << 30, 1 << 30)
    done = threading.Event()
    state = {"next": 0, "finished": 0, "stop": False}

    def submit() -> None:
        text = ids[state["next"] % len(ids)]
        state["next"] += 1
        vectors = np.empty((1, model.manifest.dimension), np.float32)
        lanes.submit(tenant, Job([text], vectors, None, time.perf_counter()))
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
    """Median milliseconds of the encoder alone, one text at a time, one thread."""
    times = []
    for text in ids[:1000]:
        started = time.perf_counter()
        model.encoder.encode([text])
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3


def under_wrk(url: str, bodies: Path, clients: int, seconds: float, salt: int) -> dict[str, float]:
    """One closed-loop run; a failed request ends the benchmark. wrk_cpu: its share of one core."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [
        "wrk",
        "-t1",
        f"-c{clients}",
        f"-d{seconds}s",
        "--timeout",
        "60s",
        "-s",
        str(LOAD),
        url,
    ]
    printed = subprocess.run(
        [*command, "--", str(bodies), str(salt + 1)], capture_output=True, text=True, check=True
    ).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json.loads(printed.strip().splitlines()[-1])
    if found["failed"]:
        sys.exit(f"{found['failed']} requests failed at {url}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    per_s = found["requests"] / found["seconds"]
    return {**found, "per_s": round(per_s, 1), "wrk_cpu": round(cpu / found["seconds"], 3)}


@contextlib.contextmanager
def server(model: Path, scratch: Path, data: Path | None = None) -> Iterator[tuple[str, int]]:
    """The real server on a free port; its URL and process id. data: default in `scratch`."""
    command = [sys.executable, "-m", "server", "serve", "--model", str(model)]
    command += ["--data", str(data or scratch / "data")]
    with process(command, scratch / "server.log", "/ready") as found:
        yield found


@contextlib.contextmanager
def process(
    command: list[str],
    log: Path,
    probe: str,
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Iterator[tuple[str, int]]:
    """Run a server on a free port until the block ends; yields once `probe` answers."""
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
        running.wait(30)


def write_bodies(path: Path, texts: Sequence[str]) -> Path:
    lines = [json.dumps({"texts": [workloads.UNIQUE + text]}, ensure_ascii=False) for text in texts]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _print(line: dict[str, Any], facts: dict[str, Any]) -> None:
    print(json.dumps({**line, "machine": facts}, ensure_ascii=False), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument(
        "--texts", type=Path, help="folder with queries.json, laws.json, mixed.json"
    )
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--turns", type=int, default=5, help="alternations; medians count")
    parser.add_argument("--tutorial", help="python of an environment with the tutorial's packages")
    return parser.parse_args()


if __name__ == "__main__":
    main()
