"""Does what holds for the small model hold for larger ones? Encoders with random weights.

    python -m benchmarks.comparison.shapes [--sizes 12x768,24x1024] [--texts FOLDER] [--only NAME,...]

For each size: a checkpoint with random weights, exported as usual (seconds and peak memory are
printed), then this project's encoder beside sentence-transformers on PyTorch in float32, on ONNX
Runtime in dynamic int8 and on OpenVINO in static int8, each in an environment of its own. Whole
workloads from texts to vectors, on all cores. A contender runs at the setting that was fastest on
every fourth text: a batch size, and one process on all cores or one on each. This project runs with
the server's own settings, and with other token budgets per batch beside them. Then the latency of a
lone text. All take turns, another first each turn; the ratio is that of the medians, above 1 where
this project is faster. Quality is the cosine to PyTorch's vectors; random weights do no task. One JSON
line per result.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks import machine, reference, workloads
from benchmarks.arguments import names_among, parser
from benchmarks.comparison import checkpoint
from benchmarks.comparison.compare import WORKLOADS
from benchmarks.comparison.environments import (
    CONTENDERS,
    ENVIRONMENTS,
    Environment,
    Failed,
    int8_model,
    reason,
)
from benchmarks.comparison.task_quality import cosines
from benchmarks.comparison.turns import OURS, rotated
from benchmarks.machine import Line
from benchmarks.steps import run_module
from server.config import Config
from server.inference.manifest import MANIFEST_FILE, MODEL_FILE, read_manifest
from server.system.cpu import cpu_budget
from server.system.output import until_reader_leaves
from server.types import Vectors

ROOT = Path(__file__).parents[2]
FOLDER = Path("build/shapes")
LIBRARY = CONTENDERS / "library.py"
FLOAT = "torch"
# Each contender's environment; the tutorial's has PyTorch in it.
PACKAGES = {FLOAT: "tutorial", "onnx": "onnx", "openvino": "openvino"}
# What a batch counts, and the numbers, for the setting in result lines.
KINDS = {
    OURS: ("tokens", "static int8"),
    FLOAT: ("texts", "float32"),
    "onnx": ("texts", "dynamic int8"),
    "openvino": ("texts", "static int8"),
}
BATCH_SIZES = (1, 8, 32)
BATCH_TOKENS = (128, 512)
LATENCY_TOKENS = (18, 128, 512)
# Characters of a workload: about the same seconds of work at either size.
CHARACTERS = {"12x768": 12_000, "24x1024": 4_000}
QUALITY_EVERY = 4
TRIAL_EVERY = 4

# Seconds by the clock, and CPU seconds on all cores.
Took = tuple[float, float]


class Process:
    """library.py with a loaded model, which answers one question at a time."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._log = log

    def ask(self, texts: Sequence[str], batch_size: int, times: int = 1, save: str = "") -> None:
        """Send texts to be computed `times` times; raises Failed if the process has ended."""
        asked = {"texts": texts, "batch_size": batch_size, "times": times, "save": save}
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed(reason(self._log.read_text(encoding="utf-8"))) from None

    def answer(self) -> list[Took]:
        """Return what every time took; raises Failed if the process has ended."""
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return [(float(seconds), float(work)) for seconds, work in json.loads(line)]
        raise Failed(reason(self._log.read_text(encoding="utf-8")))

    def close(self) -> None:
        self._process.terminate()
        self._process.communicate()


@dataclass(frozen=True, slots=True)
class Way:
    """A setting of a contender: its processes, their threads and the size of a batch."""

    processes: Sequence[Process]
    threads: int
    batch_size: int

    def took(self, texts: Sequence[str]) -> Took:
        """Return what a workload took until its last process was done.

        Each process gets as many texts of every length as the others.
        """
        longest_first = sorted(texts, key=len, reverse=True)
        for index, process in enumerate(self.processes):
            process.ask(longest_first[index :: len(self.processes)], self.batch_size)
        answers = [process.answer()[0] for process in self.processes]
        return max(seconds for seconds, _ in answers), sum(work for _, work in answers)

    def setting(self, unit: str, numbers: str) -> str:
        """Return the setting for result lines."""
        processes = f"{len(self.processes)} processes of {self.threads} threads"
        return f"{processes}, batches to {self.batch_size} {unit}, {numbers}"


@dataclass(frozen=True, slots=True)
class Contender:
    """One library; ways: the settings to try, the first a single process on all cores.

    That process computes lone texts too.
    """

    name: str
    ways: Sequence[Way]
    versions: str = ""

    def best(self, texts: Sequence[str]) -> Way:
        """Return the fastest way on some of the texts, computed twice because some libraries compile."""
        if len(self.ways) == 1:
            return self.ways[0]
        trial = texts[::TRIAL_EVERY]
        return min(self.ways, key=lambda way: min(way.took(trial) for _ in range(2)))

    def lone(self, text: str, times: int) -> Took:
        """Return the medians of a text alone."""
        process = self.ways[0].processes[0]
        process.ask([text], 0 if self.name == OURS else 1, times)
        return medians(process.answer())

    def vectors(self, texts: Sequence[str], scratch: Path) -> Vectors:
        """Return float32 (B, D), rows of unit L2 norm."""
        file = scratch / f"{self.name}.npy"
        process = self.ways[0].processes[0]
        process.ask(texts, 0 if self.name == OURS else 8, save=str(file))
        process.answer()
        found: Vectors = np.load(file)
        return found

    def close(self) -> None:
        for process in {id(each): each for way in self.ways for each in way.processes}.values():
            process.close()


def main() -> None:
    arguments = _arguments()
    try:
        for size in arguments.sizes:
            with tempfile.TemporaryDirectory() as scratch:
                for line in _measure(arguments, size, Path(scratch)):
                    shown = {"case": f"shapes {line.pop('question')}", "model": size, **line}
                    machine.show(shown, arguments, FOLDER / size / "onnx-int8")
    except Failed as error:
        sys.exit(f"a contender ended: {error}")


def _measure(arguments: argparse.Namespace, size: str, scratch: Path) -> Iterator[Line]:
    folder = (FOLDER / size).resolve()
    if not (folder / "config.json").exists():
        checkpoint.write(folder, *checkpoint.SIZES[size])
    yield {"question": "export", **export(folder)}
    contenders = [_ours(folder / "onnx-int8", scratch)]
    try:
        for name in arguments.only:
            try:
                contenders.append(_theirs(arguments.environments, name, folder, scratch))
            except Failed as error:
                yield {"question": "absent", "contender": name, "reason": str(error)}
        yield from _quality(contenders, scratch)
        for workload in WORKLOADS:
            texts = workloads.load(workload, 4000, arguments.texts)
            chosen = some(texts, CHARACTERS[size])
            yield from _workload(contenders, workload, chosen, arguments)
        yield from _latency(contenders, arguments)
    finally:
        for each in contenders:
            each.close()


# --- measurements ---------------------------------------------------------------------------------


def export(folder: Path) -> Line:
    """Export in a process of its own and return what it took; a refusal ends the benchmark.

    Time and memory are missing if the artifact of an earlier run is up to date.
    """
    artifact = folder / "onnx-int8"
    manifest = artifact / MANIFEST_FILE
    before = manifest.stat().st_mtime_ns if manifest.exists() else 0
    try:
        _, took = run_module(["export", folder], stdout=sys.stderr)
    except subprocess.CalledProcessError:
        sys.exit(f"the export of {folder} failed")
    agreement = read_manifest(artifact).agreement
    return {
        **(asdict(took) if manifest.stat().st_mtime_ns != before else {}),
        "file_mb": round((artifact / MODEL_FILE).stat().st_size / 1e6, 1),
        "cosine_mean": round(agreement.mean, 5),
        "cosine_min": round(agreement.minimum, 5),
    }


def _ours(artifact: Path, scratch: Path) -> Contender:
    command = [sys.executable, str(LIBRARY), OURS, str(artifact), str(cpu_budget())]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = Process(command, environ, scratch / f"{OURS}.log")
    return Contender(OURS, [Way([process], cpu_budget(), Config().batch_tokens)])


def _theirs(environments: Path, name: str, folder: Path, scratch: Path) -> Contender:
    """Return one process on all cores and, where there are several, one on each; raises Failed."""
    environment = Environment(environments, PACKAGES[name])
    model = folder if name == FLOAT else int8_model(environments, name, folder)

    def start(threads: int) -> Process:
        command = [environment.python, str(LIBRARY), name, str(model), str(threads)]
        environ = {**environment.environ, "OMP_NUM_THREADS": str(threads)}
        return Process(command, environ, scratch / f"{name}.log")

    cores = cpu_budget()
    arranged = [([start(cores)], cores)]
    if cores > 1:
        arranged.append(([start(1) for _ in range(cores)], 1))
    ways = [
        Way(processes, threads, size) for processes, threads in arranged for size in BATCH_SIZES
    ]
    found = Contender(name, ways, environment.versions())
    try:
        found.lone("天地", 1)
    except Failed:
        found.close()
        raise
    return found


def _quality(contenders: Sequence[Contender], scratch: Path) -> Iterator[Line]:
    """Yield cosines to PyTorch's vectors; different_texts: the mean cosine between those."""
    stored, _ = reference.load()
    texts = stored[::QUALITY_EVERY]
    vectors = {each.name: each.vectors(texts, scratch) for each in contenders}
    if FLOAT not in vectors:
        return
    expected = vectors[FLOAT]
    for each in contenders:
        mean, minimum = cosines(vectors[each.name], expected)
        yield {
            "question": "quality",
            "contender": each.name,
            "texts": len(texts),
            "cosine_mean": mean,
            "cosine_min": minimum,
            "different_texts": different(expected),
            "versions": each.versions,
        }


def _workload(
    contenders: Sequence[Contender],
    workload: str,
    texts: Sequence[str],
    arguments: argparse.Namespace,
) -> Iterator[Line]:
    chosen = {each.name: each.best(texts) for each in contenders}
    ours = chosen[OURS]
    for tokens in BATCH_TOKENS:
        chosen[f"{OURS} {tokens}"] = Way(ours.processes, ours.threads, tokens)
    for way in chosen.values():
        way.took(texts)
    took: dict[str, list[Took]] = {name: [] for name in chosen}
    for turn in range(arguments.turns):
        for name in rotated(list(chosen), turn):
            took[name].append(chosen[name].took(texts))
    for name, line in summary(took):
        seconds, work = medians(took[name])
        yield {
            "question": "workload",
            "workload": workload,
            "contender": name,
            "texts": len(texts),
            "texts_per_s": round(len(texts) / seconds, 2),
            "cpu_ms_a_text": round(work / len(texts) * 1e3, 2),
            **line,
            "setting": chosen[name].setting(*KINDS[name.split()[0]]),
        }


def _latency(contenders: Sequence[Contender], arguments: argparse.Namespace) -> Iterator[Line]:
    running_text = "".join(workloads.generate("laws", 20))
    by_name = {each.name: each for each in contenders}
    for tokens in LATENCY_TOKENS:
        text = running_text[: tokens - 2]
        for each in contenders:
            each.lone(text, 3)
        took: dict[str, list[Took]] = {name: [] for name in by_name}
        for turn in range(arguments.turns):
            for name in rotated(list(by_name), turn):
                took[name].append(by_name[name].lone(text, 5))
        for name, line in summary(took):
            seconds, work = medians(took[name])
            yield {
                "question": "latency",
                "shape": f"1x{tokens}",
                "contender": name,
                "ms": round(seconds * 1e3, 2),
                "cpu_ms": round(work * 1e3, 2),
                **line,
            }


# --- figures --------------------------------------------------------------------------------------


def some(texts: Sequence[str], characters: int) -> list[str]:
    """Return texts from all over the list, with about this many characters together."""
    mean = sum(map(len, texts)) / len(texts)
    step = max(1, int(len(texts) * mean / characters))
    return list(texts[::step])


def different(vectors: Vectors) -> float:
    """Return the mean cosine of each row to each other one; rows of length 1."""
    count = len(vectors)
    return round(float((np.square(vectors.sum(axis=0)).sum() - count) / (count * (count - 1))), 3)


def medians(took: Sequence[Took]) -> Took:
    """Return the median of the clock seconds and that of the CPU seconds."""
    seconds, work = zip(*took, strict=True)
    return statistics.median(seconds), statistics.median(work)


def summary(took: Mapping[str, Sequence[Took]]) -> Iterator[tuple[str, Line]]:
    """Yield for each contender its time and CPU time relative to ours, by the medians.

    ratio_quartiles: of the turns' ratios by the clock.
    """
    our_seconds, our_work = medians(took[OURS])
    for name, theirs in took.items():
        seconds, work = medians(theirs)
        turns = [their[0] / our[0] for their, our in zip(theirs, took[OURS], strict=True)]
        yield (
            name,
            {
                "ours_to_it": round(seconds / our_seconds, 3),
                "ratio_quartiles": [round(float(q), 3) for q in np.quantile(turns, (0.25, 0.75))],
                "cpu_ratio": round(work / our_work, 3),
            },
        )


def _arguments() -> argparse.Namespace:
    files = "queries.json, laws.json, mixed.json"
    options = parser(__doc__, model=False, texts=files, turns=5)
    for name, known in (("--sizes", checkpoint.SIZES), ("--only", PACKAGES)):
        options.add_argument(name, type=names_among(known), default=list(known), metavar="NAME,...")
    options.add_argument("--environments", type=Path, default=ENVIRONMENTS)
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
