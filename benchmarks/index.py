"""How fast and how exact is search in the index alone, by size?

    python -m benchmarks.index [--vectors FILE.npy --queries FILE.npy] [--copies 16]

One thread, one query per call, ten neighbours; recall against comparing all in float32. Cases: few
vectors, all of the file, and every vector COPIES times with noise of 0.3 of its length; filters that
allow a part of the labels; searches beside a thread that writes and compacts. One JSON line per
case. Without files the vectors are generated in clusters; real ones (float32, unit rows) are better,
because their neighbours are harder to tell apart.
"""

import argparse
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
from server.store.local_index.exact import SEGMENT_ROWS
from server.store.local_index.index import SCAN_FROM, LocalIndex
from server.store.selection import Selection
from server.system.output import until_reader_leaves
from server.types import Labels, Vectors

K = 10
NOISE = 0.3
GENERATED, CLUSTERS, D = 60_000, 600, 512
FILTERS = (0.5, 0.05, 0.001)
# More neighbours than count, so that ties with the last one are known.
TRUTH_DEPTH = 2 * K
ROWS_A_WRITE = 256
TOGETHER = 16


class Case:
    """Vectors, and queries whose true neighbours are known."""

    def __init__(self, base: Vectors, copies: int, queries: Vectors) -> None:
        self.base, self.copies, self.queries = base, copies, queries
        self.number = len(base) * copies
        random = np.random.default_rng(4)
        # By the share of labels that a filter allows, where enough neighbours are left.
        self.subsets: dict[float, Labels] = {
            share: np.flatnonzero(random.random(self.number) < share)
            for share in (1.0, *FILTERS)
            if share * self.number > 2 * TRUTH_DEPTH
        }

    def pieces(self) -> Iterator[tuple[Labels, Vectors]]:
        """Yield labels and rows, one segment at a time, the same at every call."""
        random = np.random.default_rng(3)
        for copy in range(self.copies):
            for start in range(0, len(self.base), SEGMENT_ROWS):
                rows = self.base[start : start + SEGMENT_ROWS]
                if self.copies > 1:
                    noise = random.standard_normal(rows.shape, dtype=np.float32)
                    rows = rows + noise * np.float32(NOISE / rows.shape[1] ** 0.5)
                    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
                first = copy * len(self.base) + start
                yield np.arange(first, first + len(rows)), rows

    def truths(self) -> dict[float, list[set[int]]]:
        """Return for every subset and query the labels that are at least as near as the K-th."""
        n_queries = len(self.queries)
        scores = {share: np.empty((n_queries, 0), dtype=np.float32) for share in self.subsets}
        labels = {share: np.empty((n_queries, 0), dtype=np.int64) for share in self.subsets}
        for some, rows in self.pieces():
            for share, subset in self.subsets.items():
                inside = np.isin(some, subset)
                depth = min(TRUTH_DEPTH, int(inside.sum()))
                new, places = faiss.knn(
                    self.queries, rows[inside], depth, metric=faiss.METRIC_INNER_PRODUCT
                )
                scores[share] = np.concatenate([scores[share], new], axis=1)
                labels[share] = np.concatenate([labels[share], some[inside][places]], axis=1)
                best = np.argsort(-scores[share], axis=1)[:, :TRUTH_DEPTH]
                scores[share] = np.take_along_axis(scores[share], best, 1)
                labels[share] = np.take_along_axis(labels[share], best, 1)
        return {
            share: [
                set(near[score >= score[K - 1] - 1e-6].tolist())
                for near, score in zip(labels[share], scores[share], strict=True)
            ]
            for share in self.subsets
        }


def main() -> None:
    arguments = _arguments()
    faiss.omp_set_num_threads(1)
    base = np.load(arguments.vectors) if arguments.vectors else _generated(GENERATED, seed=1)
    queries = np.load(arguments.queries) if arguments.queries else _generated(1000, seed=2)
    source = arguments.vectors.name if arguments.vectors else "generated"
    for rows, copies in ((SCAN_FROM // 2, 1), (len(base), 1), (len(base), arguments.copies)):
        case = Case(base[:rows], copies, queries[: arguments.number])
        for line in _lines(case):
            line |= {"rows": case.number, "threads": 1, "source": source}
            machine.show(line, arguments)


def _lines(case: Case) -> Iterator[dict[str, Any]]:
    truths = case.truths()
    index = LocalIndex(case.base.shape[1])
    for labels, rows in case.pieces():
        index = index.plus(labels, rows)
    comparing_all, _ = _timed([index], case.queries[:20])
    began = time.perf_counter()
    if index.compaction_due:
        index = index.compacted()
    build_s = time.perf_counter() - began
    alone, found = _timed([index], case.queries)
    yield {
        "case": "index search",
        **alone,
        "recall_at_10": _recall(found, truths[1.0]),
        "comparing_all_p50_ms": comparing_all["p50_ms"],
        f"ms_a_query_of_{TOGETHER}": _together_ms(index, case.queries),
        "build_s": round(build_s, 2),
        **_disk_s(index),
        "index": asdict(index.stats()),
    }
    for share in [*case.subsets][1:]:
        times, found = _timed([index], case.queries, Selection.of_labels(case.subsets[share]))
        recall = _recall(found, truths[share])
        yield {"case": "index filter", "share": share, **times, "recall_at_10": recall}
    yield {
        "case": "index while writing",
        **_beside_writes(index, case),
        "alone_p99_ms": alone["p99_ms"],
    }


def _timed(
    newest: list[LocalIndex], queries: Vectors, within: Selection | None = None
) -> tuple[dict[str, float], list[set[int]]]:
    """Return latencies and found labels; newest: one index, which a thread may replace."""
    seconds, found = [], []
    for row in range(-10, len(queries)):  # The first ten warm up.
        began = time.perf_counter()
        hits = newest[0].search(queries[row, None], K, within)
        if row >= 0:
            seconds.append(time.perf_counter() - began)
            found.append(set(hits.labels[0].tolist()))
    return _quantiles(seconds), found


def _quantiles(seconds: list[float]) -> dict[str, float]:
    p50, p99 = np.quantile(seconds, (0.5, 0.99)) * 1000
    return {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3)}


def _recall(found: list[set[int]], truth: list[set[int]]) -> float:
    hits = [min(K, len(some & true)) for some, true in zip(found, truth, strict=True)]
    return round(float(np.mean(hits)) / K, 4)


def _together_ms(index: LocalIndex, queries: Vectors) -> float:
    """Return milliseconds per query when several are asked at once."""
    seconds = []
    for start in range(0, len(queries) - TOGETHER + 1, TOGETHER):
        began = time.perf_counter()
        index.search(queries[start : start + TOGETHER], K)
        seconds.append(time.perf_counter() - began)
    return round(float(np.median(seconds)) * 1000 / TOGETHER, 3)


def _disk_s(index: LocalIndex) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path, identity = Path(folder) / "index.faiss", uuid.uuid4()
        began = time.perf_counter()
        index.save(path, identity)
        saved = time.perf_counter()
        LocalIndex.load(path, index.dimension, identity)
        return {
            "save_s": round(saved - began, 2),
            "load_s": round(time.perf_counter() - saved, 2),
        }


def _beside_writes(index: LocalIndex, case: Case) -> dict[str, float]:
    """Time searches while another thread adds, removes and compacts as fast as it can."""
    newest, done = [index], threading.Event()
    writes = 0

    def write() -> None:
        nonlocal writes
        rows = case.base[:ROWS_A_WRITE]
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


def _generated(number: int, seed: int) -> Vectors:
    """Return unit rows float32 (number, D) in clusters; a few axes hold most of the variance."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((CLUSTERS, D), dtype=np.float32)
    spread = (np.arange(1, D + 1, dtype=np.float32) ** -0.5)[random.permutation(D)]
    random = np.random.default_rng(seed)
    rows = random.standard_normal((number, D), dtype=np.float32)
    rows = (rows * 1.5 + centres[random.integers(CLUSTERS, size=number)]) * spread
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, model=False)
    options.add_argument("--vectors", type=Path, help="float32 (N, D), unit rows")
    options.add_argument("--queries", type=Path, help="float32 (Q, D), unit rows")
    options.add_argument("--number", type=int, default=500, help="queries per case")
    options.add_argument("--copies", type=int, default=16, help="of every vector in the large case")
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
