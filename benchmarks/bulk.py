"""Does a corpus that is embedded in bulk run as fast as the lanes alone?

    python -m benchmarks.bulk [--model ARTIFACT] [--texts FOLDER] [--count 4000] [--turns 3] [--threads 2]

Turn by turn, each in a process of its own: `offline.embed` on one thread a core, and `bulk embed` on as many
lanes, which reads lines of JSON, starts Dask, divides the corpus, keeps a journal and writes Parquet. Both
have the same distinct texts, and as many cores. texts_per_s counts from the opened model on for the lanes,
and from the start of the job to its manifest for bulk. start_wall_s is how long that took with a corpus of one
text, and ratio is without it, as in a corpus that takes hours; cpu_ratio is the same by CPU time, which a
busy neighbour changes less. peak_mb: of the process. Every vector of bulk
is compared with the other's. Needs the packages of `make install-bulk`.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks import machine, workloads
from benchmarks.arguments import parser
from server.inference.model import Model
from server.inference.offline import embed
from server.system.cpu import cpu_budget
from server.system.output import until_reader_leaves
from server.types import Vectors

# Texts that a thread of the raw lanes takes at a time: as many as bulk puts into a part of such a corpus.
SHARE = 512
KEYS = ("texts_per_s", "wall_s", "cpu_s", "peak_mb")


def main() -> None:
    arguments = _arguments()
    if arguments.run:
        print(json.dumps(globals()[f"_{arguments.run}"](arguments)))
        return
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        texts = workloads.load("laws", arguments.count, arguments.texts)
        texts = list(workloads.unique(texts, range(arguments.count)))
        _write(scratch / "corpus.jsonl", texts)
        _write(scratch / "one.jsonl", texts[:1])
        rows: dict[str, list[dict[str, float]]] = {"lanes": [], "bulk": [], "start": []}
        for turn in range(arguments.turns):
            for case in rows:
                rows[case].append(_turn(arguments, scratch, case, turn))
        shared = {"texts": len(texts), "threads": arguments.threads}
        for case in ("lanes", "bulk"):
            found = machine.medians(rows[case], KEYS, 2)
            extra = {} if case == "lanes" else _compared(rows) | {"farthest": _farthest(scratch)}
            machine.show({"case": f"bulk {case}", **shared, **found, **extra}, arguments)


def _turn(arguments: argparse.Namespace, scratch: Path, case: str, turn: int) -> dict[str, float]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.bulk",
        "--run",
        "lanes" if case == "lanes" else "job",
    ]
    command += ["--model", str(arguments.model), "--threads", str(arguments.threads)]
    command += ["--corpus", str(scratch / ("one.jsonl" if case == "start" else "corpus.jsonl"))]
    # A new folder each time: nothing of the turn before is reused.
    command += ["--out", str(scratch / f"{case}-{turn}")]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _lanes(arguments: argparse.Namespace) -> dict[str, float]:
    texts = [json.loads(line)["text"] for line in arguments.corpus.open(encoding="utf-8")]
    model = Model(arguments.model)
    shares = [texts[begin : begin + SHARE] for begin in range(0, len(texts), SHARE)]
    begin, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(arguments.threads) as pool:
        vectors = np.concatenate(list(pool.map(lambda share: embed(model, share), shares)))
    found = _measured(len(texts), begin, cpu)
    np.save(arguments.out, vectors)
    return found


def _job(arguments: argparse.Namespace) -> dict[str, float]:
    from server.bulk.job import Job, run

    begin, cpu = time.perf_counter(), time.process_time()
    inputs, model = [str(arguments.corpus)], arguments.model.absolute()
    job = Job(inputs, arguments.out.absolute(), model, threads=arguments.threads)
    done = run(job, lambda progress: None)
    return _measured(done.output.rows, begin, cpu)


def _measured(number: int, begin: float, cpu: float) -> dict[str, float]:
    wall_s = time.perf_counter() - begin
    return {
        "texts_per_s": number / wall_s,
        "wall_s": wall_s,
        "cpu_s": time.process_time() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _compared(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, float]:
    """Return the rate of bulk by that of the lanes, by time and by CPU time, each without the start."""
    found: dict[str, float] = {}
    for name, key in (("ratio", "wall_s"), ("cpu_ratio", "cpu_s")):
        start = statistics.median(row[key] for row in rows["start"])
        pairs = zip(rows["lanes"], rows["bulk"], strict=True)
        ratios = [lanes[key] / (bulk[key] - start) for lanes, bulk in pairs]
        found |= {f"start_{key}": round(start, 2), name: round(statistics.median(ratios), 3)}
    return found


def _write(path: Path, texts: list[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for place, text in enumerate(texts):
            file.write(json.dumps({"id": str(place), "text": text}, ensure_ascii=False) + "\n")


def _farthest(scratch: Path) -> float:
    """Return the largest difference of a number in any vector, of the first turn."""
    import pyarrow.parquet as pq

    lanes: Vectors = np.load(scratch / "lanes-0.npy")
    table = pq.read_table(scratch / "bulk-0", columns=["id", "vector"])
    places = np.array(table["id"].to_pylist(), int)
    if not np.array_equal(np.sort(places), np.arange(len(lanes))):
        sys.exit("bulk has other rows than the corpus")
    vectors = np.array(table["vector"].to_pylist(), np.float32)
    return float(f"{np.abs(vectors - lanes[places]).max():.2g}")


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, texts="laws.json", turns=3)
    options.add_argument("--count", type=int, default=4000, help="texts of the corpus")
    options.add_argument(
        "--threads", type=int, default=cpu_budget(), help="lanes of both (default: one a core)"
    )
    # The script starts itself with these.
    options.add_argument("--run", choices=("lanes", "job"), help=argparse.SUPPRESS)
    for name in ("--corpus", "--out"):
        options.add_argument(name, type=Path, help=argparse.SUPPRESS)
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
