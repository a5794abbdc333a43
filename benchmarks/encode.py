"""How fast is the encoder alone, by batch shape and threads, and how near to the CPU's peak?

    python -m benchmarks.encode [--model ARTIFACT] [--kernels] [--reference MODEL.onnx] [--turns 9]

Thousand tokens per second for single texts, equal lengths and packed mixed lengths, with one thread as
lanes run it and with all cores as the wide session runs it. The number of operations follows from the
model's shape: gops are those with weights, gops_share is their part of the peak, and peak_share the
time that weights and attention take at the CPU's measured int8 and float32 peaks, as a part of the
measured time. With --kernels the same artifact runs with the kernels and with ONNX Runtime, and with --reference (any
ONNX file whose input is input_ids) that file too: turn by turn, each in a process of its own, beside the median of
the turns' ratios. One JSON line per shape and number of threads; `computed_by` says what computed it here.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, peak
from benchmarks.arguments import parser
from benchmarks.work import Work, network
from server.inference.kernels.choice import RUNTIME
from server.inference.manifest import read_manifest
from server.inference.model import Model
from server.inference.runtime import open_session
from server.system.cpu import cpu_budget
from server.system.output import until_reader_leaves
from server.types import Ids

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
    manifest = read_manifest(arguments.model)
    shape, int8 = network(arguments.model, manifest), manifest.precision == "int8"
    several = sorted({1, cpu_budget()})
    peaks: Mapping[int, peak.Peak] = {}
    missing = {} if shape else {"no_peak": "the model's shape is not known"}
    try:
        peaks = peak.measure(several)
    except peak.NoPeak as reason:
        missing = {"no_peak": str(reason)}
    for threads in several:
        workers = {"here": _start(arguments, threads)}
        if arguments.kernels:
            workers["onnxruntime"] = _start(arguments, threads, "--no-kernels")
        if arguments.reference:
            workers["reference"] = _start(arguments, threads, "--reference", arguments.reference)
        computed_by = {name: _read(process) for name, process in workers.items()}["here"]
        for name, lengths in SHAPES.items():
            seconds = _measure(workers, name, arguments.turns)
            line: dict[str, Any] = {"case": "encode", "shape": name, "threads": threads}
            line["computed_by"] = computed_by
            line |= _speeds(seconds, sum(lengths))
            if shape and threads in peaks:
                here_s = float(np.median(seconds["here"]))
                line |= shares(shape.work(lengths), here_s, peaks[threads], int8=int8)
            machine.show({**line, **missing}, arguments)
        for process in workers.values():
            process.communicate("\n")
    return None


def _measure(
    workers: Mapping[str, "subprocess.Popen[str]"], shape: str, turns: int
) -> dict[str, list[float]]:
    """Return each worker's seconds per batch, one value per turn."""
    seconds: dict[str, list[float]] = {worker: [] for worker in workers}
    for _ in range(turns):
        for worker, process in workers.items():
            seconds[worker].append(_ask(process, shape))
    return seconds


def _speeds(seconds: Mapping[str, Sequence[float]], tokens: int) -> dict[str, Any]:
    line: dict[str, Any] = {
        f"{worker}_ktok_s": round(tokens / float(np.median(times)) / 1e3, 2)
        for worker, times in seconds.items()
    }
    for other, prefix in (("reference", ""), ("onnxruntime", "onnxruntime_")):
        if other in seconds:
            pairs = np.array(seconds[other]) / np.array(seconds["here"])
            line[f"{prefix}ratio"] = round(float(np.median(pairs)), 3)
            quartiles = np.quantile(pairs, (0.25, 0.75))
            line[f"{prefix}ratio_quartiles"] = [round(float(q), 3) for q in quartiles]
    return line


def shares(work: Work, seconds: float, most: peak.Peak, *, int8: bool) -> dict[str, Any]:
    """Return what was computed in `seconds`, and its share of what the CPU could compute."""
    gops = work.weights / seconds / 1e9
    weights_peak, used = (
        (most.int8_gops, most.int8_set) if int8 else (most.fp32_gflops, most.fp32_set)
    )
    return {
        "gops": round(gops, 1),
        "gops_share": round(gops / weights_peak, 3),
        "peak_share": round(work.bound_s(most, int8=int8) / seconds, 3),
        "peak": {
            "int8_gops": most.int8_gops,
            "fp32_gflops": most.fp32_gflops,
            "instructions": used,
        },
    }


def _start(
    arguments: argparse.Namespace, threads: int, *more: str | Path
) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "benchmarks.encode", "--worker", threads]
    command += ["--model", arguments.model, *more]
    return subprocess.Popen(
        list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _ask(process: "subprocess.Popen[str]", shape: str) -> float:
    assert process.stdin is not None
    process.stdin.write(shape + "\n")
    process.stdin.flush()
    return float(_read(process))


def _read(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    if not (line := process.stdout.readline()):
        raise SystemExit("a worker has ended; the lines above say why")
    return line.strip()


def _work(arguments: argparse.Namespace) -> None:
    """Say what computes; then answer each shape's name with the median seconds of a run, until an empty line."""
    random = np.random.default_rng(0)
    # Ids of ordinary characters in BERT vocabularies; their meaning does not matter for speed.
    batches = {
        name: [random.integers(1000, 8000, length) for length in lengths]
        for name, lengths in SHAPES.items()
    }
    computed_by, run = _reference(arguments) if arguments.reference else _encoder(arguments)
    for batch in batches.values():
        run(batch)
    print(computed_by, flush=True)
    while name := sys.stdin.readline().strip():
        times = []
        deadline = time.perf_counter() + SECONDS_A_TURN
        while (started := time.perf_counter()) < deadline:
            run(batches[name])
            times.append(time.perf_counter() - started)
        print(float(np.median(times)), flush=True)


def _encoder(arguments: argparse.Namespace) -> tuple[str, Callable[[Sequence[Ids]], object]]:
    model = Model(arguments.model, arguments.worker, kernels=not arguments.no_kernels)
    return model.computed_by, (model.wide or model.encoder).encode


def _reference(arguments: argparse.Namespace) -> tuple[str, Callable[[Sequence[Ids]], object]]:
    session = open_session(str(arguments.reference), arguments.worker)

    def run(batch: Sequence[Ids]) -> None:
        for rows in _rectangles(batch):
            session.run(None, {"input_ids": rows})

    return RUNTIME, run


def _rectangles(batch: Sequence[Ids]) -> list[Ids]:
    """Return the batch as arrays of equal lengths, because a plain graph takes no others."""
    lengths = sorted({len(row) for row in batch})
    return [np.stack([row for row in batch if len(row) == length]) for length in lengths]


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, turns=9)
    options.add_argument("--reference", type=Path, help="an ONNX file to compare with")
    options.add_argument(
        "--kernels", action="store_true", help="compare the kernels with ONNX Runtime"
    )
    options.add_argument("--no-kernels", action="store_true", help=argparse.SUPPRESS)
    options.add_argument("--worker", type=int, metavar="THREADS", help=argparse.SUPPRESS)
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
