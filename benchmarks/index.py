"""How fast and how exact is search in the index alone, by size, and what does it cost?

    python -m benchmarks.index [--vectors FILE.npy --queries FILE.npy] [--sizes 5000,60000,1000000]

One thread, one query per call, ten neighbours; recall against comparing all in float32. Times are of the
thread's CPU, so that other programs disturb them little. `calibrated` is after the index has been given
other queries of the same kind. Cases of each size: search; filters that allow a part of the labels; one add
and one delete; searches beside a thread that writes and compacts; memory and start of a process that reads
the snapshot, also after `kill -9`. One JSON line per case. See `index_vectors` for what vectors those are;
with a file they are made of real ones (float32), else of generated clusters. Ten million:

    python -m benchmarks.index --vectors FILE.npy --queries FILE.npy --sizes 10000000 --number 200 --plain

needs 24 GB of memory, 12 GB in the folder for temporary files and half an hour.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks import machine
from benchmarks.arguments import parser
from benchmarks.index_vectors import GENERATED, Mixtures, read, recall, truth
from server.store.local_index.index import SCAN_FROM, LocalIndex
from server.store.selection import Selection
from server.system.output import until_reader_leaves
from server.types import Labels, Vectors

K = 10
FILTERS = (0.5, 0.05, 0.001)
ROWS_A_WRITE = 256
TOGETHER = 16
# Queries for which all vectors are compared.
COMPARED = 50
# Vectors that wait until they are arranged, as when a collection is read at start.
LOOSE_ROWS = 131_072
IDENTITY = uuid.UUID(int=1)
WRITES = 200


class Case:
    """Vectors, and queries whose true neighbours are known."""

    def __init__(self, made: Mixtures, number: int, queries: Vectors, past: Vectors) -> None:
        self.made, self.number, self.queries, self.past = made, number, queries, past
        self.truth = truth(self.pieces(), queries, K)

    @property
    def dimension(self) -> int:
        return int(self.queries.shape[1])

    def pieces(self) -> Iterator[tuple[Labels, Vectors]]:
        return self.made.pieces(self.number)

    def subset(self, share: float) -> Labels:
        """Return the labels that a filter allows, int64 ascending."""
        random = np.random.default_rng(4)
        return np.flatnonzero(random.random(self.number) < share)


def main() -> None:
    arguments = _arguments()
    faiss.omp_set_num_threads(1)
    if arguments.load:
        return _loaded(arguments.load, arguments.dimension)
    base = read(arguments.vectors, GENERATED, seed=1)
    queries = read(arguments.queries, 1000, seed=2)
    source = arguments.vectors.name if arguments.vectors else "generated"
    made = Mixtures.of(base)
    for size in arguments.sizes or (SCAN_FROM // 2, len(base), 1_000_000):
        number = min(arguments.number, len(queries) // 2)
        case = Case(made, size, queries[:number], queries[number:])
        for line in _lines(case, plain=arguments.plain):
            line |= {"rows": case.number, "threads": 1, "source": source}
            machine.show(line, arguments)


def _lines(case: Case, *, plain: bool) -> Iterator[dict[str, Any]]:
    index, build_s = built(case.pieces(), case.dimension)
    times, found = _timed([index], case.queries)
    yield {
        "case": "index search",
        **times,
        **({} if plain else {"comparing_all_p50_ms": _comparing_all_ms(case)}),
        "recall_at_10": recall(found, case.truth, K),
        "build_cpu_s": round(build_s, 2),
        f"ms_a_query_of_{TOGETHER}": _together_ms(index, case.queries),
        "index": asdict(index.stats()),
    }
    calibrating_s = time.thread_time()
    index = index.calibrated(case.past)
    calibrating_s = time.thread_time() - calibrating_s
    times, found = _timed([index], case.queries)
    yield {
        "case": "index search calibrated",
        **times,
        "recall_at_10": recall(found, case.truth, K),
        "calibrating_cpu_s": round(calibrating_s, 2),
        "index": asdict(index.stats()),
    }
    if not plain:
        for share in FILTERS:
            subset = case.subset(share)
            if len(subset) > 4 * K:
                table = np.zeros(case.number, dtype=np.bool_)
                table[subset] = True
                # As columns make it.
                within = Selection.of_table(0, table)
                filtered, found = _timed([index], case.queries, within)
                near = truth(case.pieces(), case.queries, K, subset)
                kept = recall(found, near, K)
                yield {"case": "index filter", "share": share, **filtered, "recall_at_10": kept}
    yield {"case": "index writes", **_writes(index, case)}
    yield {"case": "index start", **_starts(index)}
    if not plain:
        beside = _beside_writes(index, case)
        yield {"case": "index while writing", **beside, "alone_p99_ms": times["p99_ms"]}


def built(pieces: Iterator[tuple[Labels, Vectors]], dimension: int) -> tuple[LocalIndex, float]:
    """Return the index, and the CPU seconds to arrange it; making the vectors does not count."""
    index, cpu_s = LocalIndex(dimension), 0.0
    for labels, rows in pieces:
        began = time.thread_time()
        index = index.plus(labels, rows)
        if index.stats().tail_rows >= LOOSE_ROWS and index.compaction_due:
            index = index.compacted()
        cpu_s += time.thread_time() - began
    began = time.thread_time()
    while index.compaction_pays:
        index = index.compacted()
    cpu_s += time.thread_time() - began
    return index, cpu_s


def _timed(
    newest: list[LocalIndex], queries: Vectors, within: Selection | None = None
) -> tuple[dict[str, float], list[set[int]]]:
    """Return latencies and found labels; newest: one index, which a thread may replace."""
    cpu_s, wall_s, found = [], [], []
    for row in range(-10, len(queries)):  # The first ten warm up.
        began, wall = time.thread_time(), time.perf_counter()
        hits = newest[0].search(queries[row, None], K, within)
        if row >= 0:
            cpu_s.append(time.thread_time() - began)
            wall_s.append(time.perf_counter() - wall)
            found.append(set(hits.labels[0].tolist()))
    return {
        "cpu_p50_ms": _ms(cpu_s, 0.5),
        "p50_ms": _ms(wall_s, 0.5),
        "p99_ms": _ms(wall_s, 0.99),
    }, found


def _comparing_all_ms(case: Case) -> float:
    """Return the latency of an index that compares every vector."""
    index = LocalIndex(case.dimension)
    for labels, rows in case.pieces():
        index = index.plus(labels, rows)
    times, _ = _timed([index], case.queries[:COMPARED])
    return times["p50_ms"]


def _ms(seconds: list[float], quantile: float) -> float:
    return round(float(np.quantile(seconds, quantile)) * 1000, 3)


def _together_ms(index: LocalIndex, queries: Vectors) -> float:
    """Return milliseconds per query when several are asked at once."""
    seconds = []
    for start in range(0, len(queries) - TOGETHER + 1, TOGETHER):
        began = time.thread_time()
        index.search(queries[start : start + TOGETHER], K)
        seconds.append(time.thread_time() - began)
    return round(_ms(seconds, 0.5) / TOGETHER, 3)


def _writes(index: LocalIndex, case: Case) -> dict[str, float]:
    """Return what adding one vector and deleting one cost."""
    added, deleted = [], []
    row = np.ascontiguousarray(case.queries[:1])
    for number in range(WRITES):
        new, old = np.array([case.number + number]), np.array([number * case.number // WRITES])
        began = time.thread_time()
        index.plus(new, row)
        between = time.thread_time()
        index.minus(old)
        added.append(between - began)
        deleted.append(time.thread_time() - between)
    names = {"add_cpu_us": added, "delete_cpu_us": deleted}
    return {name: round(_ms(seconds, 0.5) * 1000) for name, seconds in names.items()}


def _starts(index: LocalIndex) -> dict[str, Any]:
    """Return the time to write the snapshot, and time and memory of processes that read it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.faiss"
        began = time.perf_counter()
        index.save(path, IDENTITY)
        saved = time.perf_counter() - began
        first, second = _start(path, index.dimension), _start(path, index.dimension)
        size = path.stat().st_size
    return {
        "save_s": round(saved, 2),
        "file_bytes_a_vector": round(size / max(1, len(index))),
        "load_s": first["load_s"],
        "load_after_kill_s": second["load_s"],
        "resident_gb": first["resident_gb"],
        "resident_without_index_gb": first["before_gb"],
        "p50_ms_after_load": first["p50_ms"],
    }


def _start(path: Path, dimension: int) -> dict[str, float]:
    """Read a snapshot in another process, which then ends as by `kill -9`."""
    command = [sys.executable, "-m", "benchmarks.index", "--load", str(path)]
    with subprocess.Popen(
        [*command, "--dimension", str(dimension)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        words = process.stdout.readline().split()
        process.send_signal(signal.SIGKILL)
    names = ("before_gb", "load_s", "resident_gb", "p50_ms")
    return dict(zip(names, map(float, words), strict=True))


def _loaded(path: Path, dimension: int) -> None:
    """Read a snapshot, search, print what it took, and wait for the end."""
    before, began = _resident_gb(), time.perf_counter()
    index = LocalIndex.load(path, dimension, IDENTITY)
    load_s = time.perf_counter() - began
    random = np.random.default_rng(5)
    queries = random.standard_normal((500, dimension), dtype=np.float32)
    times, _ = _timed([index], queries)
    print(before, round(load_s, 2), _resident_gb(), times["p50_ms"], flush=True)
    signal.pause()


def _resident_gb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e9, 3)


def _beside_writes(index: LocalIndex, case: Case) -> dict[str, float]:
    """Time searches while another thread adds, removes and compacts as fast as it can."""
    newest, done = [index], threading.Event()
    writes = 0

    def write() -> None:
        nonlocal writes
        rows = case.made.base[:ROWS_A_WRITE]
        while not done.is_set():
            writes += 1
            labels = np.arange(len(rows)) + case.number + writes * len(rows)
            changed = newest[0].plus(labels, rows).minus(labels[::4] - 8 * len(rows))
            newest[0] = changed.compacted() if changed.compaction_due else changed

    writer = threading.Thread(target=write)
    began = time.perf_counter()
    writer.start()
    try:
        times, _ = _timed(newest, case.queries)
    finally:
        done.set()
        writer.join()
    return {**times, "rows_a_s": round(writes * ROWS_A_WRITE / (time.perf_counter() - began))}


def _arguments() -> argparse.Namespace:
    def sizes(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    options = parser(__doc__, model=False)
    options.add_argument("--vectors", type=Path, help="float32 (N, D) to make the others of")
    options.add_argument("--queries", type=Path, help="float32 (Q, D); half of them calibrate")
    options.add_argument("--number", type=int, default=500, help="queries per case")
    options.add_argument("--sizes", type=sizes, help="vectors of each case")
    options.add_argument(
        "--plain", action="store_true", help="no filters, no writes beside searches"
    )
    options.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--dimension", type=int, help=argparse.SUPPRESS)
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
