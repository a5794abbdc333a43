"""Does what holds for the small model hold for larger ones? Encoders side by side, random weights.

    python -m benchmarks.comparison.shapes [--sizes 12x768,24x1024] [--texts FOLDER] [--only NAME,...]

For each size: a checkpoint with random weights, exported as usual (seconds and peak memory are
printed), then this project's encoder beside sentence-transformers on PyTorch in float32, on ONNX
Runtime in dynamic int8 and on OpenVINO in static int8, each in an environment of its own. Whole
workloads from texts to vectors, on all cores: the contenders with the size of a batch, and with one
process on all cores or one on each, whichever was faster on every fourth text; this project with the
server's own settings, and with other budgets of tokens a batch beside them. Then the latency of a lone
text. All take turns, another first each turn; the ratio is that of the medians, more than 1 where this
project is faster. Quality is the cosine to PyTorch's vectors. One JSON line a result.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, reference, workloads
from benchmarks.comparison import checkpoint
from benchmarks.comparison.compare import WORKLOADS, cosines
from benchmarks.comparison.environments import CONTENDERS as FILES
from benchmarks.comparison.environments import Environment, Failed, reason
from export.texts import CALIBRATION
from server.config import Config
from server.inference.manifest import MANIFEST_FILE, MODEL_FILE, read_manifest
from server.system.cpu import cpu_budget
from server.types import Vectors

ROOT = Path(__file__).parents[2]
LIBRARY = FILES / "library.py"
OURS, FLOAT = "inkwell", "torch"
# A contender's environment; with PyTorch in it, the tutorial's will do.
ENVIRONMENTS = {FLOAT: "tutorial", "onnx": "onnx", "openvino": "openvino"}
BATCH_SIZES = (1, 8, 32)
BATCH_TOKENS = (128, 512)
LATENCY_TOKENS = (18, 128, 512)
# Characters of a workload: about as many seconds of work at either size.
CHARACTERS = {"12x768": 12_000, "24x1024": 4_000}
QUALITY_EVERY = 4
TRIAL_EVERY = 4

Line = dict[str, Any]
# Seconds by the clock, and of work on all cores.
Took = tuple[float, float]


class Process:
    """library.py with a loaded model; answers one question at a time."""

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
        """Raises Failed if the process has ended."""
        asked = {"texts": texts, "batch_size": batch_size, "times": times, "save": save}
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed(reason(self._log.read_text(encoding="utf-8"))) from None

    def answer(self) -> list[Took]:
        """What every time took; raises Failed if the process has ended."""
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return [(float(seconds), float(work)) for seconds, work in json.loads(line)]
        raise Failed(reason(self._log.read_text(encoding="utf-8")))

    def close(self) -> None:
        self._process.terminate()
        self._process.communicate()


@dataclass(frozen=True, slots=True)
class Way:
    """How a contender computes a workload: in which processes, in batches of which size."""

    processes: Sequence[Process]
    threads: int
    batch_size: int

    def took(self, texts: Sequence[str]) -> Took:
        """Until the last process is done; each has as many texts of every length as the others."""
        longest_first = sorted(texts, key=len, reverse=True)
        for index, process in enumerate(self.processes):
            process.ask(longest_first[index :: len(self.processes)], self.batch_size)
        answers = [process.answer()[0] for process in self.processes]
        return max(seconds for seconds, _ in answers), sum(work for _, work in answers)

    def facts(self) -> Line:
        return {
            "processes": len(self.processes),
            "threads": self.threads,
            "batch_size": self.batch_size,
        }


@dataclass(frozen=True, slots=True)
class Contender:
    """ways: what is tried; of the first the only process computes lone texts, on all cores."""

    name: str
    ways: Sequence[Way]
    versions: str = ""

    def best(self, texts: Sequence[str]) -> Way:
        """The fastest on some of the texts, which are computed twice: some libraries compile."""
        if len(self.ways) == 1:
            return self.ways[0]
        trial = texts[::TRIAL_EVERY]
        return min(self.ways, key=lambda way: min(way.took(trial) for _ in range(2)))

    def lone(self, text: str, times: int) -> Took:
        """The medians of a text alone."""
        process = self.ways[0].processes[0]
        process.ask([text], 0 if self.name == OURS else 1, times)
        return medians(process.answer())

    def vectors(self, texts: Sequence[str], scratch: Path) -> Vectors:
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
    facts = machine.facts()
    try:
        for size in arguments.sizes:
            with tempfile.TemporaryDirectory() as scratch:
                for line in _measure(arguments, size, Path(scratch)):
                    shown = {"case": f"shapes {line.pop('question')}", "model": size, **line}
                    print(json.dumps({**shown, "machine": facts}, ensure_ascii=False), flush=True)
    except Failed as error:
        sys.exit(f"a contender ended: {error}")


def _measure(arguments: argparse.Namespace, size: str, scratch: Path) -> Iterator[Line]:
    folder = (arguments.folder / size).resolve()
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
            characters = arguments.characters or CHARACTERS[size]
            yield from _workload(contenders, workload, some(texts, characters), arguments)
        yield from _latency(contenders, arguments)
    finally:
        for each in contenders:
            each.close()


# --- what is measured -----------------------------------------------------------------------------


def export(folder: Path) -> Line:
    """Export in a process of its own; a refusal ends the benchmark.

    What it took is left out where an earlier run has left an artifact that is up to date.
    """
    artifact = folder / "onnx-int8"
    manifest = artifact / MANIFEST_FILE
    before = manifest.stat().st_mtime_ns if manifest.exists() else 0
    started = time.perf_counter()
    running = subprocess.Popen([sys.executable, "-m", "export", str(folder)], stdout=sys.stderr)
    _, status, usage = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        sys.exit(f"the export of {folder} failed")
    took = {
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": round(usage.ru_maxrss / 1024),
    }
    agreement = read_manifest(artifact).agreement
    return {
        **(took if manifest.stat().st_mtime_ns != before else {}),
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
    """One process on all cores and, where there are several, one on each. Raises Failed."""
    environment = Environment(environments, ENVIRONMENTS[name])
    model = folder if name == FLOAT else _int8(environment, environments, name, folder)

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


def _int8(environment: Environment, environments: Path, library: str, folder: Path) -> Path:
    """What int8.py writes of the checkpoint, once."""
    written = (environments / f"int8-{library}" / folder.name).resolve()
    done = written / "done"
    if not done.exists():
        command = [str(FILES / "int8.py"), library, str(folder), str(written)]
        environment.run(*command, "--texts", str(CALIBRATION.resolve()))
        done.touch()
    return written


def _quality(contenders: Sequence[Contender], scratch: Path) -> Iterator[Line]:
    """Cosine to PyTorch's vectors; different_texts is the mean cosine of theirs to each other."""
    stored, _ = reference.load()
    texts = stored[::QUALITY_EVERY]
    vectors = {each.name: each.vectors(texts, scratch) for each in contenders}
    if FLOAT not in vectors:
        return
    expected = vectors[FLOAT]
    for each in contenders:
        found = cosines(vectors[each.name], expected)
        yield {
            "question": "quality",
            "contender": each.name,
            "texts": len(texts),
            "cosine_mean": round(float(found.mean()), 5),
            "cosine_min": round(float(found.min()), 5),
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
            **chosen[name].facts(),
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


# --- what follows from it -------------------------------------------------------------------------


def some(texts: Sequence[str], characters: int) -> list[str]:
    """Texts from all over the list, of about so many characters together."""
    mean = sum(map(len, texts)) / len(texts)
    step = max(1, int(len(texts) * mean / characters))
    return list(texts[::step])


def rotated(names: Sequence[str], turn: int) -> list[str]:
    """Another one is first each turn."""
    first = turn % len(names)
    return [*names[first:], *names[:first]]


def different(vectors: Vectors) -> float:
    """Mean cosine of each row to each other one; rows of length 1."""
    count = len(vectors)
    return round(float((np.square(vectors.sum(axis=0)).sum() - count) / (count * (count - 1))), 3)


def medians(took: Sequence[Took]) -> Took:
    seconds, work = zip(*took, strict=True)
    return statistics.median(seconds), statistics.median(work)


def summary(took: Mapping[str, Sequence[Took]]) -> Iterator[tuple[str, Line]]:
    """How many times as long, and as much work, each takes as we do: of the medians.

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


def _listed(known: Sequence[str], text: str) -> list[str]:
    chosen = [name for name in text.split(",") if name]
    if unknown := set(chosen) - set(known):
        raise argparse.ArgumentTypeError(
            f"{', '.join(sorted(unknown))} is not among {', '.join(known)}"
        )
    return chosen


def sizes(text: str) -> list[str]:
    """Reads names of sizes, with commas between."""
    return _listed(list(checkpoint.SIZES), text)


def names(text: str) -> list[str]:
    """Reads names of contenders, with commas between."""
    return _listed(list(ENVIRONMENTS), text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=sizes, default=list(checkpoint.SIZES), metavar="SIZE,...")
    parser.add_argument("--folder", type=Path, default=Path("build/shapes"))
    parser.add_argument(
        "--texts", type=Path, help="folder with queries.json, laws.json, mixed.json"
    )
    parser.add_argument("--environments", type=Path, default=Path("build/contenders"))
    parser.add_argument("--only", type=names, default=list(ENVIRONMENTS), metavar="NAME,...")
    parser.add_argument("--characters", type=int, help="of a workload; fewer for a busy machine")
    parser.add_argument("--turns", type=int, default=5, help="alternations; medians count")
    return parser.parse_args()


if __name__ == "__main__":
    main()
