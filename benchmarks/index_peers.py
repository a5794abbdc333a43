"""Where does the index stand beside other libraries: recall against time, memory and build?

    python -m benchmarks.index_peers --python PYTHON [--vectors FILE.npy --queries FILE.npy] [--size 1000000]

PYTHON: an interpreter that has the packages of contenders/requirements-indexes.txt. Each library gets the
same vectors (see `index_vectors`) and queries in a process of its own, one thread, one query per call, ten
neighbours, and several values of the number that trades time for recall; our index also with candidates
and lists beside the calibrated ones. Times are of the thread's CPU. One JSON line per point, and with --plot
a picture of them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from benchmarks import machine
from benchmarks.arguments import parser
from benchmarks.comparison.environments import CONTENDERS, Failed, run
from benchmarks.index import K, built
from benchmarks.index_vectors import GENERATED, Mixtures, read, recall, truth
from benchmarks.report.plots import COLOURS, MARKS, STYLE
from server.store.local_index.index import LocalIndex
from server.system.output import until_reader_leaves
from server.types import Vectors

LIBRARIES = ("hnswlib", "usearch", "faiss-hnsw", "faiss-ivf")
# Shares of the calibrated number of lists.
PARTS = (0.25, 0.5, 0.75, 1, 1.5, 2, 4)


def main() -> None:
    arguments = _arguments()
    faiss.omp_set_num_threads(1)
    base = read(arguments.vectors, GENERATED, seed=1)
    queries = read(arguments.queries, 1000, seed=2)[: 2 * arguments.number]
    asked, past = queries[: arguments.number], queries[arguments.number :]
    made = Mixtures.of(base)
    near = truth(made.pieces(arguments.size), asked, K)
    points = []
    for line in (
        *_ours(made, arguments.size, asked, past, near),
        *_peers(made, arguments, asked, near),
    ):
        line |= {"case": "index frontier", "rows": arguments.size, "threads": 1}
        points.append(line)
        machine.show(line, arguments)
    if arguments.plot:
        arguments.plot.write_bytes(_drawn(points))


def _ours(
    made: Mixtures, size: int, queries: Vectors, past: Vectors, near: list[set[int]]
) -> Iterator[dict[str, Any]]:
    index, build_s = built(made.pieces(size), queries.shape[1])
    began = time.thread_time()
    index = index.calibrated(past)
    build = round(build_s + time.thread_time() - began, 2)
    scan = index._scan
    for part in PARTS:
        tried = index
        if scan is not None:
            lists = min(scan.quantiser.lists, max(1, round(scan.probes * part)))
            tried = LocalIndex(index.dimension, replace(scan, probes=lists), index._tail)
        seconds, found = [], []
        for query in queries:
            began = time.thread_time()
            hits = tried.search(query[None], K)
            seconds.append(time.thread_time() - began)
            found.append(set(hits.labels[0].tolist()))
        yield {
            "contender": "inkwell",
            "effort": part,
            "cpu_p50_ms": round(float(np.median(seconds)) * 1000, 3),
            "recall_at_10": recall(found, near, K),
            "build_cpu_s": build,
            "bytes_a_vector": round(index.stats().bytes_per_vector),
        }


def _peers(
    made: Mixtures, arguments: argparse.Namespace, queries: Vectors, near: list[set[int]]
) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        rows, asked = Path(folder) / "rows.npy", Path(folder) / "queries.npy"
        np.save(asked, queries)
        shape = (arguments.size, queries.shape[1])
        held = np.lib.format.open_memmap(rows, "w+", np.float32, shape)
        for labels, some in made.pieces(arguments.size):
            held[labels] = some
        held.flush()
        script = str(CONTENDERS / "indexes.py")
        for library in arguments.libraries:
            command = [arguments.python, script, library, str(rows), str(asked)]
            try:
                output = run(command, {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
            except (Failed, subprocess.SubprocessError) as error:
                yield {"contender": library, "failed": str(error)}
                continue
            for text in output.splitlines():
                line = json.loads(text)
                found = [set(some) for some in line.pop("found")]
                yield {"contender": library, **line, "recall_at_10": recall(found, near, K)}


def _drawn(points: list[dict[str, Any]]) -> bytes:
    """Return a picture, SVG: recall by queries a second."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.add_subplot()
        names = list(dict.fromkeys(line["contender"] for line in points if "failed" not in line))
        for place, name in enumerate(names):
            mine = [line for line in points if line["contender"] == name and "failed" not in line]
            axes.plot(
                [line["recall_at_10"] for line in mine],
                [1000 / line["cpu_p50_ms"] for line in mine],
                color=COLOURS[place % len(COLOURS)],
                marker=MARKS[place % len(MARKS)],
                label=f"{name}, {mine[0]['bytes_a_vector']} B a vector",
            )
        axes.set_yscale("log")
        axes.set_xlim(0.9, 1.002)
        axes.set_xlabel("recall@10")
        axes.set_ylabel("searches per second of one core")
        axes.set_title(f"{points[0]['rows']:,} vectors: further up and to the right is better")
        axes.legend()
        with tempfile.TemporaryFile() as file:
            figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
            file.seek(0)
            return file.read()


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, model=False)
    options.add_argument("--python", required=True, help="an interpreter with the libraries")
    options.add_argument("--vectors", type=Path, help="float32 (N, D) to make the others of")
    options.add_argument("--queries", type=Path, help="float32 (Q, D); half of them calibrate ours")
    options.add_argument("--number", type=int, default=300, help="queries")
    options.add_argument("--size", type=int, default=1_000_000, help="vectors")
    options.add_argument("--libraries", nargs="*", default=LIBRARIES, choices=LIBRARIES)
    options.add_argument("--plot", type=Path, help="where to write the picture, SVG")
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
