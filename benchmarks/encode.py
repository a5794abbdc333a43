"""How fast is the encoder alone, one thread, by the shape of a batch?

    python -m benchmarks.encode [--model ARTIFACT] [--reference MODEL.onnx] [--turns 9]

Thousand tokens per second for single texts, equal lengths and packed mixed lengths. With --reference
(any ONNX file whose input is input_ids), both run turn by turn, each in a process of its own, and
the ratio of the medians is printed. One JSON line a shape.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from server.config import DEFAULT_MODEL

# Lengths of the texts of each batch.
SHAPES = {
    "1x18": [18],
    "16x16": [16] * 16,
    "4x64": [64] * 4,
    "1x128": [128],
    "1x512": [512],
    "8 mixed 11-30": [11, 13, 15, 17, 18, 20, 22, 30],
}
SECONDS_A_TURN = 0.4


def main() -> None:
    arguments = _arguments()
    if arguments.worker:
        return _work(arguments)
    workers = {"here": _start(arguments, None)}
    if arguments.reference:
        workers["reference"] = _start(arguments, arguments.reference)
    facts = machine.facts()
    for name, lengths in SHAPES.items():
        seconds: dict[str, list[float]] = {worker: [] for worker in workers}
        for _ in range(arguments.turns):
            for worker, process in workers.items():
                seconds[worker].append(_ask(process, name))
        line: dict[str, Any] = {"case": "encode", "shape": name, "threads": 1}
        for worker, times in seconds.items():
            line[f"{worker}_ktok_s"] = round(sum(lengths) / float(np.median(times)) / 1e3, 2)
        if arguments.reference:
            pairs = np.array(seconds["reference"]) / np.array(seconds["here"])
            line["ratio"] = round(float(np.median(pairs)), 3)
            line["ratio_quartiles"] = [round(float(q), 3) for q in np.quantile(pairs, (0.25, 0.75))]
        print(json.dumps({**line, "machine": facts}), flush=True)
    for process in workers.values():
        process.communicate("\n")
    return None


def _start(arguments: argparse.Namespace, reference: Path | None) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "benchmarks.encode", "--worker", "--model", arguments.model]
    if reference is not None:
        command += ["--reference", reference]
    return subprocess.Popen(
        list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _ask(process: "subprocess.Popen[str]", shape: str) -> float:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(shape + "\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def _work(arguments: argparse.Namespace) -> None:
    """Read shape names, answer each with the median seconds of a run, until an empty line."""
    random = np.random.default_rng(0)
    # Ids of ordinary characters in BERT vocabularies; what they say does not matter for speed.
    batches = {
        name: [random.integers(1000, 8000, length) for length in lengths]
        for name, lengths in SHAPES.items()
    }
    if arguments.reference:
        from server.session import open_session

        session = open_session(str(arguments.reference), 1)

        def run(batch: list[Any]) -> None:
            for rows in _rectangles(batch):
                session.run(None, {"input_ids": rows})
    else:
        from server.encoder import Model

        encoder = Model(arguments.model).encoder

        def run(batch: list[Any]) -> None:
            encoder.encode(batch)

    for batch in batches.values():
        run(batch)
    while name := sys.stdin.readline().strip():
        times = []
        deadline = time.perf_counter() + SECONDS_A_TURN
        while (started := time.perf_counter()) < deadline:
            run(batches[name])
            times.append(time.perf_counter() - started)
        print(float(np.median(times)), flush=True)


def _rectangles(batch: list[Any]) -> list[Any]:
    """The batch as arrays of equal lengths, which is all a plain graph can take."""
    lengths = sorted({len(row) for row in batch})
    return [np.stack([row for row in batch if len(row) == length]) for length in lengths]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--reference", type=Path, help="an ONNX file to compare with")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
