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
import os
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
from collections.abc import Iterator, Sequence
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


def main() -> None:
    arguments = _arguments()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed: apt-get install wrk")
    model = Model(arguments.model)
    facts = machine.facts()
    with tempfile.TemporaryDirectory() as scratch, _server(arguments.model, Path(scratch)) as url:
        for name, clients in CASES:
            texts = workloads.load(name, 2000, arguments.texts)
            bodies = _write_bodies(Path(scratch) / f"{name}.jsonl", texts)
            ids = list(model.tokenizer.encode(["天地人" + text for text in texts]).ids)
            line: dict[str, Any] = {"case": "serve", "workload": name, "clients": clients}
            raws, served = [], []
            for turn in range(arguments.turns):
                raws.append(raw_lanes(model, ids, clients, arguments.seconds))
                served.append(under_wrk(f"{url}/embed", bodies, clients, arguments.seconds, turn))
            raw = statistics.median(raws)
            rate = statistics.median(run["per_s"] for run in served)
            line |= {
                "raw_per_s": round(raw, 1),
                "served_per_s": round(rate, 1),
                "ratio": round(rate / raw, 3),
            }
            line |= {
                key: statistics.median(run[key] for run in served)
                for key in ("p50_ms", "p95_ms", "p99_ms", "failed", "wrk_cpu")
            }
            if clients == 1:
                line["encoder_ms"] = round(encoder_ms(model, ids), 3)
                line["overhead_ms"] = round(line["p50_ms"] - line["encoder_ms"], 3)
            _print(line, facts)
        if arguments.tutorial:
            _compare(arguments, url, Path(scratch), facts)


def _compare(arguments: argparse.Namespace, url: str, scratch: Path, facts: dict[str, Any]) -> None:
    command = [arguments.tutorial, str(TUTORIAL), str(arguments.model.parent)]
    with _process(command, scratch / "tutorial.log", "/docs") as tutorial:
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
        lanes.submit(Job([text], vectors, None, time.perf_counter()))

    def deliver(jobs: Sequence[Job]) -> None:
        with lock:
            state["finished"] += len(jobs)
            if state["stop"]:
                done.set()
                return
            for _ in jobs:
                submit()

    lock = threading.Lock()
    lanes = Lanes(model.encoder, limits, Metrics(), deliver, cpu_budget())
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
        model.encoder.encode(text[None])
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
def _server(model: Path, scratch: Path) -> Iterator[str]:
    command = [
        sys.executable,
        "-m",
        "server",
        "serve",
        "--model",
        str(model),
        "--data",
        str(scratch / "data"),
    ]
    with _process(command, scratch / "server.log", "/ready") as url:
        yield url


@contextlib.contextmanager
def _process(command: list[str], log: Path, probe: str) -> Iterator[str]:
    """Run a server on a free port until the block ends; yields its URL once `probe` answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port)], stdout=output, stderr=output, env=os.environ
        )
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), urllib.request.urlopen(url + probe, timeout=5):
                break
            if process.poll() is not None:
                sys.exit(f"{command} ended: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _write_bodies(path: Path, texts: Sequence[str]) -> Path:
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
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument(
        "--turns", type=int, default=3, help="alternations of raw and served; medians count"
    )
    parser.add_argument("--tutorial", help="python of an environment with the tutorial's packages")
    return parser.parse_args()


if __name__ == "__main__":
    main()
