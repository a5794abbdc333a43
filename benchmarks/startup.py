"""How long does the server take from start to ready, and what has it used by then?

    python -m benchmarks.startup [--model ARTIFACT] [--data FOLDER] [--documents 12000] [--turns 5]

In turn within one run: with an empty data folder, and with a collection that is there already: the
default one of FOLDER, or one of so many generated texts, which is indexed first; from 10,000 on its
index is an approximate one, read from its snapshot. Ready is the first successful /ready, asked for
every 20 ms; the CPU time is that of all threads until then, the memory what the process then holds.
Medians over the starts, of which the first, which finds files outside the page cache, does not
count. One JSON line a case.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine, usage, workloads
from benchmarks.arguments import parser
from benchmarks.serve import server

Start = Mapping[str, float]


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        filled = arguments.data or _index(arguments.model, arguments.documents, scratch)
        starts: dict[str, list[Start]] = {"empty": [], "filled": []}
        for turn in range(arguments.turns + 1):
            for data, folder in (("empty", scratch / f"empty{turn}"), ("filled", filled)):
                found = _start(arguments.model, scratch, folder)
                if turn:
                    starts[data].append(found)
    for data, several in starts.items():
        machine.show({"case": "start-up", "data": data, **line(several)})


def _start(model: Path, scratch: Path, data: Path) -> Start:
    began = time.perf_counter()
    with server(model, scratch, data) as (_, pid):
        ready_s = time.perf_counter() - began
        return {"ready_s": ready_s, "cpu_s": usage.cpu_s(pid), "rss_mb": usage.resident_mb(pid)}


def line(starts: Sequence[Start]) -> dict[str, Any]:
    """Medians, and the slowest start beside them."""
    medians = {
        key: round(statistics.median(start[key] for start in starts), 2) for key in starts[0]
    }
    slowest = max(start["ready_s"] for start in starts)
    return {**medians, "slowest_s": round(slowest, 2), "starts": len(starts)}


def _index(model: Path, documents: int, scratch: Path) -> Path:
    """A data folder with so many short documents."""
    source, data = scratch / "documents.jsonl", scratch / "filled"
    texts = workloads.unique(workloads.generate("queries", documents), range(documents))
    rows = ({"id": str(number), "text": text} for number, text in enumerate(texts))
    workloads.write_bodies(source, rows)
    command = [sys.executable, "-m", "server", "index", str(source), "--model", str(model)]
    command += ["--data", str(data), "--log-level", "warning"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command} said: {done.stdout}{done.stderr}")
    return data


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, turns=5)
    options.add_argument("--data", type=Path, help="a data folder that is indexed already")
    options.add_argument("--documents", type=int, default=12_000, help="where --data is not given")
    return options.parse_args()


if __name__ == "__main__":
    main()
