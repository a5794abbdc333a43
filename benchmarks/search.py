"""What does a search over HTTP cost beside an embedding, and how much do writes slow it down?

    python -m server index laws.jsonl --collection laws --chunk-tokens 0 --data FOLDER
    python -m benchmarks.search --data FOLDER --collection laws [--queries FILE.json] [--turns 5]

The real server over a folder that is indexed already. In turn within one run, in a closed loop: POST
/embed of a query with its instruction and POST /search of the same query, for 1 and 16 clients, with
unique texts so that no cache answers. Then the latency of a lone client's searches, first without
writes, then while another client adds documents as fast as it can. One JSON line per result.
"""

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks import closedloop, machine, workloads
from benchmarks.arguments import parser
from benchmarks.connection import ask
from benchmarks.serve import server
from server.store.local_index.index import SPARE_ROWS
from server.system.output import until_reader_leaves

BATCH = 256


def main() -> None:
    arguments = _arguments()
    texts = workloads.load("queries", 2000, arguments.queries)
    with server(arguments.model, arguments.data) as (url, _, scratch):
        embed = workloads.write_bodies(
            scratch / "embed",
            ({**workloads.single(text), "input_type": "query"} for text in texts),
        )
        search = workloads.write_bodies(
            scratch / "search",
            ({"query": workloads.UNIQUE + text, "top_k": 10} for text in texts),
        )
        path = f"/collections/{arguments.collection}"
        stats = _settled(url, f"{path}/stats")
        facts = {key: stats[key] for key in ("parts", "bytes", "index")}
        machine.show({"case": "collection", **facts}, arguments)
        paths = {"embed": ("/embed", embed), "search": (f"{path}/search", search)}
        salts = count()
        for clients in (1, 16):
            machine.show(_beside(url, paths, clients, salts, arguments), arguments)
        line = _while_adding(url, f"{path}/search", search, salts, arguments)
        machine.show(line, arguments)


def _settled(url: str, path: str) -> Any:
    """Return the collection's stats once the index is compacted, which happens between writes."""
    for _ in range(120):
        stats = ask(url + path)
        if stats["index"]["tail_rows"] < SPARE_ROWS or stats["index"]["kind"] == "exact":
            break
        time.sleep(1)
    return stats


def _beside(
    url: str,
    paths: dict[str, tuple[str, Path]],
    clients: int,
    salts: Iterator[int],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in paths}
    for _ in range(arguments.turns):
        for name, (path, bodies) in paths.items():
            # Each salt is used once, because the server caches the vectors of queries.
            found = closedloop.run(url + path, bodies, clients, arguments.seconds, next(salts))
            runs[name].append(found)
    line: dict[str, Any] = {"case": "search", "clients": clients}
    for key, ratio in (("p50_ms", "p50_ratio"), ("per_s", "rate_ratio")):
        for name, several in runs.items():
            line[f"{name}_{key}"] = round(statistics.median(run[key] for run in several), 3)
        pairs = zip(runs["search"], runs["embed"], strict=True)
        line[ratio] = round(statistics.median(ours[key] / theirs[key] for ours, theirs in pairs), 3)
    return line


def _while_adding(
    url: str, path: str, bodies: Path, salts: Iterator[int], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Return percentiles of a lone client's searches, idle and beside a writer, in turn."""
    ask(f"{url}/collections", {"name": "written", "chunks": None})
    idle, busy, added = [], [], 0
    for turn in range(arguments.turns):
        idle.append(closedloop.run(url + path, bodies, 1, arguments.seconds, next(salts)))
        writer = _Writer(url, turn)
        writer.start()
        writer.under_way.wait()
        busy.append(closedloop.run(url + path, bodies, 1, arguments.seconds, next(salts)))
        writer.stop.set()
        writer.join()
        added += writer.added
    ask(f"{url}/collections/written", method="DELETE")

    def middle(runs: Sequence[dict[str, float]], key: str) -> float:
        return statistics.median(run[key] for run in runs)

    return {
        "case": "search while adding",
        "idle_p50_ms": middle(idle, "p50_ms"),
        "idle_p99_ms": middle(idle, "p99_ms"),
        "adding_p50_ms": middle(busy, "p50_ms"),
        "adding_p99_ms": middle(busy, "p99_ms"),
        "p99_ratio": round(middle(busy, "p99_ms") / middle(idle, "p99_ms"), 2),
        "documents_added": added,
    }


class _Writer(threading.Thread):
    """A thread that adds law-like documents, one batch per request, until it is stopped."""

    def __init__(self, url: str, seed: int) -> None:
        super().__init__()
        self.added = 0
        self.stop, self.under_way = threading.Event(), threading.Event()
        self._url = url
        self._texts = workloads.generate("laws", 64 * BATCH, seed=seed + 2)

    def run(self) -> None:
        place = 0
        while not self.stop.is_set():
            texts = [self._texts[(place + i) % len(self._texts)] for i in range(BATCH)]
            documents = [{"id": str(place + i), "text": text} for i, text in enumerate(texts)]
            self.under_way.set()
            ask(f"{self._url}/collections/written/documents", {"documents": documents})
            place += BATCH
            self.added += BATCH


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, seconds=4, turns=5)
    options.add_argument("--data", type=Path, required=True, help="data folder, indexed")
    options.add_argument("--collection", default="default")
    options.add_argument("--queries", type=Path, help="a JSON list of questions")
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
