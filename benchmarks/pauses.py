"""How long do searches and writes pause while a collection is compacted and its snapshot is written?

    python -m benchmarks.pauses [--vectors FILE.npy] [--count 200000] [--seconds 10]

A thread searches by a vector and another writes documents one by one, as fast as they can. Beside them, as
the server does it, the index is compacted, adopted between two writes, and saved. One JSON line: the median
and the longest search and write of each phase, in milliseconds; "alone" is the same before, with nothing
beside them. FILE: real vectors to make the others of, else they are generated.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import machine
from benchmarks.arguments import parser
from benchmarks.index_vectors import GENERATED, Mixtures, read
from server.store.collection import DATABASE_FILE, Collection
from server.store.documents import Documents
from server.store.local_index.index import TAIL_ROWS, LocalIndex
from server.store.records import Document, Info
from server.store.search import Query, search
from server.store.vector_index import VectorIndex
from server.system.output import until_reader_leaves
from server.types import Vectors

AT_ONCE = 2000
TEXT = "第{number}条 用人单位自用工之日起即与劳动者建立劳动关系，应当订立书面劳动合同。"

Call = tuple[float, float]  # when it began and ended


class Collected:
    """A collection under searches and writes, and how long each of them took."""

    def __init__(self, collection: Collection, base: Vectors) -> None:
        self.collection = collection
        self._base = base
        self._random = np.random.default_rng(3)
        self._number = 0
        # As in the server: one write at a time, and the index is adopted like a write.
        self._writing = threading.Lock()
        self._over = threading.Event()
        self.searches: list[Call] = []
        self.writes: list[Call] = []

    def add(self, count: int, rows: Vectors) -> None:
        documents = [
            Document(f"d{number}", TEXT.format(number=number))
            for number in range(self._number, self._number + count)
        ]
        self._number += count
        with self._writing:
            self.collection.add(documents, rows)

    def _search(self) -> None:
        row = self._base[self._random.integers(len(self._base))]
        search(self.collection, [Query("dense", 10, row)])

    def _write(self) -> None:
        self.add(1, self._base[self._number % len(self._base), None])
        # Clients do not write without a break.
        time.sleep(0.002)

    def beside(self, work: Callable[[], None]) -> tuple[float, float]:
        """Run work while searches and writes go on; return when it began and ended."""
        self._over.clear()
        threads = [
            threading.Thread(target=self._repeat, args=(self._search, self.searches)),
            threading.Thread(target=self._repeat, args=(self._write, self.writes)),
        ]
        for thread in threads:
            thread.start()
        began = time.perf_counter()
        try:
            work()
            ended = time.perf_counter()
        finally:
            self._over.set()
            for thread in threads:
                thread.join()
        return began, ended

    def _repeat(self, call: Callable[[], None], calls: list[Call]) -> None:
        while not self._over.is_set():
            began = time.perf_counter()
            call()
            calls.append((began, time.perf_counter()))

    def adopt(self, index: VectorIndex) -> None:
        with self._writing:
            self.collection.adopt(index)


def main() -> None:
    arguments = _arguments()
    base = read(arguments.vectors, GENERATED, seed=1)
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        Documents(home / DATABASE_FILE, Info("pauses", "random", base.shape[1])).close()
        with closing(Collection(home, LocalIndex)) as collection:
            line = _measured(Collected(collection, base), base, arguments)
    machine.show({"case": "pauses", "documents": arguments.count, **line}, arguments)


def _measured(
    collected: Collected, base: Vectors, arguments: argparse.Namespace
) -> dict[str, object]:
    collection, made = collected.collection, Mixtures.of(base)
    for _, rows in made.pieces(arguments.count - TAIL_ROWS):
        collected.add(len(rows), rows)
        if collection.index.stats().tail_rows >= 8 * TAIL_ROWS:
            collected.adopt(collection.index.compacted())
    collected.adopt(collection.index.compacted())
    collection.save()
    _fill_tail(collected, base)
    phases = {"alone": collected.beside(lambda: time.sleep(arguments.seconds))}
    compacted: list[VectorIndex] = []
    phases["compact"] = collected.beside(
        lambda: compacted.append(collection.compacted(collection.index))
    )
    phases["adopt"] = collected.beside(lambda: collected.adopt(collection.caught_up(compacted[0])))
    phases["save"] = collected.beside(collection.save)
    return {
        name: {
            "seconds": round(ended - began, 2),
            "search": _times(collected.searches, began, ended),
            "write": _times(collected.writes, began, ended),
        }
        for name, (began, ended) in phases.items()
    }


def _fill_tail(collected: Collected, base: Vectors) -> None:
    """Write what makes a compaction due."""
    for start in range(0, TAIL_ROWS, AT_ONCE):
        rows = base[np.arange(start, start + AT_ONCE) % len(base)]
        collected.add(len(rows), rows)


def _times(calls: list[Call], began: float, ended: float) -> dict[str, float]:
    """Return what calls took that ran, at least in part, in this time."""
    taken = [1000 * (after - before) for before, after in calls if after > began and before < ended]
    return {
        "number": len(taken),
        "median_ms": round(median(taken), 2),
        "longest_ms": round(max(taken), 1),
    }


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, model=False)
    options.add_argument("--vectors", type=Path, help="float32 (N, D) to make the others of")
    options.add_argument("--count", type=int, default=200_000, help="documents")
    options.add_argument("--seconds", type=float, default=10, help="of searches and writes alone")
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
