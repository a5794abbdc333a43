"""How long does the server take from start to ready, and what does it use until then?

    python -m benchmarks.startup [--model ARTIFACT] [--documents 12000] [--turns 5]

In turn within one run: with an empty data folder, and with the collection that `python -m server
index` makes of DOCUMENTS generated texts; from 10,000 on its index is approximate and read from its
snapshot. Ready is the first successful /ready, asked for every 20 ms. The CPU time is that of all
threads until then, the memory what the process then holds. Medians over the starts without the
first, which finds files outside the page cache. One JSON line per case.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine, usage, workloads
from benchmarks.arguments import parser
from benchmarks.serve import index, server
from server.system.output import until_reader_leaves

Start = Mapping[str, float]


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        filled = _filled(arguments.model, arguments.documents, scratch)
        starts: dict[str, list[Start]] = {"empty": [], "filled": []}
        for turn in range(arguments.turns + 1):
            for data, folder in (("empty", scratch / f"empty{turn}"), ("filled", filled)):
                found = _start(arguments.model, folder)
                if turn:
                    starts[data].append(found)
    for data, several in starts.items():
        machine.show({"case": "start-up", "data": data, **line(several)}, arguments)


def _start(model: Path, data: Path) -> Start:
    began = time.perf_counter()
    with server(model, data) as (_, pid, _):
        ready_s = time.perf_counter() - began
        return {"ready_s": ready_s, "cpu_s": usage.cpu_s(pid), "rss_mb": usage.resident_mb(pid)}


def line(starts: Sequence[Start]) -> dict[str, Any]:
    """Return medians, and the slowest start beside them."""
    slowest = max(start["ready_s"] for start in starts)
    medians = machine.medians(starts, list(starts[0]), 2)
    return {**medians, "slowest_s": round(slowest, 2), "starts": len(starts)}


def _filled(model: Path, documents: int, scratch: Path) -> Path:
    """Return a data folder with this many short documents."""
    source, data = scratch / "documents.jsonl", scratch / "filled"
    texts = workloads.unique(workloads.generate("queries", documents), range(documents))
    rows = ({"id": str(number), "text": text} for number, text in enumerate(texts))
    workloads.write_bodies(source, rows)
    index(model, source, data)
    return data


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, turns=5)
    options.add_argument("--documents", type=int, default=12_000, help="in the collection")
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
