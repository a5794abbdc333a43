"""How fast is reranking beside sentence-transformers' CrossEncoder, with the same weights and pairs?

    python -m benchmarks.comparison.rerankers CHECKPOINT ARTIFACT --torch PYTHON [--turns 5]
        [--only NAME ...] [--shapes 50x128 50x400] [--requests 100]

CHECKPOINT is a folder with a cross-encoder, ARTIFACT the export of it; one with random weights of a
published shape is written by `--write bge-reranker-base`, and exported, where they are missing. PYTHON has
sentence-transformers with its ONNX backend. A shape is a number of candidates and the tokens of a passage;
queries have some twenty tokens.

Each contender is a process of its own with a thread for every core. They take turns with the same pairs, so that a
busy moment meets all of them. pairs_s is the median of the turns, ours_to_it the median of the turns' ratios.
Agreement is with torch in float32: the largest difference of scores as probabilities, and Kendall's tau over
the candidates. In the end the server is asked over HTTP, one request after the other, for the latency of
the candidates of one query. One JSON line a shape and contender, and one a shape for the latency.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.arguments import parser
from benchmarks.comparison.environments import CONTENDERS as FILES
from benchmarks.comparison.environments import run
from benchmarks.comparison.turns import OURS, rotated
from benchmarks.connection import ask
from benchmarks.machine import Line
from benchmarks.models.checkpoint import write_checkpoint
from benchmarks.models.published import BY_NAME, SCORE
from benchmarks.rerank import Shape
from benchmarks.serve import process
from export.texts.files import MULTILINGUAL, read_texts
from export.verification.order import kendall_tau
from server.config import DEFAULT_MODEL
from server.inference.comparison import sigmoid
from server.inference.model import Model
from server.inference.tokenizer import Tokenizer
from server.system.cpu import cpu_budget
from server.system.output import until_reader_leaves

ROOT = Path(__file__).parents[2]
SCRIPT = FILES / "reranking.py"
CONTENDERS = (OURS, "torch", "torch-bfloat16", "onnx", "onnx-int8")
EXACT = "torch"
SHAPES = ("50x128", "50x400")
# Tokens of a query, without those between the texts of a pair.
QUERY_TOKENS = 20
# Passages are this much shorter or longer than the shape says, as real ones are not of one length.
SPREAD = 0.25
Pairs = list[tuple[str, str]]


def main() -> None:
    arguments = _arguments()
    _prepare(arguments)
    tokenizer = Model(arguments.artifact).tokenizer
    pairs = {shape.name: pairs_of(tokenizer, shape) for shape in arguments.shapes}
    names = [name for name in CONTENDERS if name == OURS or name in arguments.only]
    with contextlib.ExitStack() as stack:
        workers = {}
        for name in names:
            try:
                workers[name] = stack.enter_context(_worker(name, arguments))
            except OSError as error:
                _show({"contender": name, "failed": str(error)}, arguments)
        for shape, some in pairs.items():
            for line in _compared(workers, some, arguments.turns):
                _show({"shape": shape, **line}, arguments)
    with _server(arguments) as url:
        for shape, some in pairs.items():
            _show({"shape": shape, **_latency(url, some, arguments.requests)}, arguments)


def _prepare(arguments: argparse.Namespace) -> None:
    """Write a random checkpoint and export it where they are missing."""
    if arguments.write and not (arguments.checkpoint / "config.json").exists():
        write_checkpoint(arguments.checkpoint, BY_NAME[arguments.write])
    if not arguments.artifact.exists():
        command = ["export", arguments.checkpoint, f"--out={arguments.artifact}"]
        command += ["--min-agreement=-1,-1,-1"] if arguments.write else []
        subprocess.run([sys.executable, "-m", *map(str, command)], check=True)


def pairs_of(tokenizer: Tokenizer, shape: Shape) -> Pairs:
    """Return one query with as many passages as the shape has, of about so many tokens each."""
    texts = cycle(read_texts(MULTILINGUAL.calibration, at_least=1))
    query = _long(tokenizer, texts, QUERY_TOKENS)
    random = np.random.default_rng(0)
    spread = random.uniform(1 - SPREAD, 1 + SPREAD, len(shape.lengths))
    return [
        (query, _long(tokenizer, texts, round(length * part)))
        for length, part in zip(shape.lengths, spread, strict=True)
    ]


def _long(tokenizer: Tokenizer, texts: Iterator[str], tokens: int) -> str:
    """Return a text of about so many tokens."""
    text = ""
    while tokenizer.count([text])[0] < tokens:
        text = f"{text} {next(texts)}".strip()
    words = text.split(" ")
    while len(words) > 1 and tokenizer.count([" ".join(words[:-1])])[0] >= tokens:
        words.pop()
    return " ".join(words)


# --- the contenders -------------------------------------------------------------------------------


@contextlib.contextmanager
def _worker(name: str, arguments: argparse.Namespace) -> Iterator["subprocess.Popen[str]"]:
    """Run a contender until the block ends; raises OSError where it does not start."""
    python, folder = (
        (sys.executable, arguments.artifact)
        if name == OURS
        else (str(arguments.torch), arguments.checkpoint)
    )
    threads = str(cpu_budget())
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": threads}
    command = [python, str(SCRIPT), name, str(folder), threads]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
    ) as running:
        _ask(running, [("a", "b")])
        yield running
        running.communicate("\n")


def _ask(worker: "subprocess.Popen[str]", pairs: Pairs) -> Line:
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write(json.dumps(pairs) + "\n")
    worker.stdin.flush()
    answer = worker.stdout.readline()
    if not answer:
        raise OSError(f"{worker.args!r} ended without an answer")
    found: Line = json.loads(answer)
    return found


def _compared(
    workers: Mapping[str, "subprocess.Popen[str]"], pairs: Pairs, turns: int
) -> Iterator[Line]:
    """Yield a line for each contender."""
    answers: dict[str, list[Line]] = {name: [] for name in workers}
    for worker in workers.values():
        _ask(worker, pairs)
    for turn in range(turns):
        for name in rotated(list(workers), turn):
            answers[name].append(_ask(workers[name], pairs))
    exact = answers.get(EXACT)
    for name, found in answers.items():
        line: Line = {
            "contender": name,
            "pairs": len(pairs),
            "pairs_s": round(len(pairs) / median(each["seconds"] for each in found), 2),
            "pairs_cpu_s": round(len(pairs) / median(each["cpu_s"] for each in found), 2),
            "ours_to_it": round(_ratio(answers[OURS], found, "seconds"), 2),
            "ours_to_it_cpu": round(_ratio(answers[OURS], found, "cpu_s"), 2),
        }
        yield line | ({} if exact is None else _agreement(found[0], exact[0]))


def _ratio(ours: Sequence[Line], others: Sequence[Line], key: str) -> float:
    return float(median(other[key] / own[key] for own, other in zip(ours, others, strict=True)))


def _agreement(found: Line, exact: Line) -> Line:
    scores, expected = (np.array(each["scores"], np.float32) for each in (found, exact))
    difference = np.abs(sigmoid(scores) - sigmoid(expected))
    return {
        "difference_mean": float(f"{difference.mean():.3g}"),
        "difference_most": float(f"{difference.max():.3g}"),
        "tau": round(kendall_tau(scores, expected), 4),
    }


# --- over HTTP ------------------------------------------------------------------------------------


@contextlib.contextmanager
def _server(arguments: argparse.Namespace) -> Iterator[str]:
    """Run the server with the reranker until the block ends; yields its URL."""
    command = [sys.executable, "-m", "server", "serve"]
    for model in (arguments.embedder, arguments.artifact):
        command += ["--model", str(model)]
    with tempfile.TemporaryDirectory() as name:
        command += ["--data", f"{name}/data"]
        with process(command, Path(name) / "server.log", "/ready") as (url, _):
            yield url


def _latency(url: str, pairs: Pairs, requests: int) -> Line:
    """Return the latency of one query with its candidates, one request at a time."""
    query, texts = pairs[0][0], [second for _, second in pairs]
    took: list[float] = []
    for number in range(-2, requests):
        # No two requests are equal, so nothing is known from before.
        body = {"query": f"{query} {number + 2}", "texts": texts, "truncate": True}
        started = time.perf_counter()
        ask(f"{url}/rerank", body)
        if number >= 0:
            took.append(1000 * (time.perf_counter() - started))
    p50, p99 = (round(float(np.percentile(took, q)), 1) for q in (50, 99))
    return {"over": "http", "pairs": len(pairs), "requests": requests, "p50_ms": p50, "p99_ms": p99}


def _show(line: Mapping[str, Any], arguments: argparse.Namespace) -> None:
    whole = {"case": "rerank compare", "model": arguments.checkpoint.name, **line}
    whole["setting"] = f"1 process, {cpu_budget()} threads"
    machine.show(whole | {"versions": arguments.versions}, arguments, arguments.artifact)


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, model=False, turns=5)
    options.add_argument("checkpoint", type=Path)
    options.add_argument("artifact", type=Path)
    options.add_argument("--torch", type=Path, help="a Python that has sentence-transformers")
    options.add_argument("--only", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    scorers = [each.name for each in BY_NAME.values() if each.pooling == SCORE]
    options.add_argument("--write", choices=scorers, help="write random weights of this shape")
    shapes = [Shape.of(name) for name in SHAPES]
    options.add_argument("--shapes", nargs="+", type=Shape.of, default=shapes, metavar="NxTOKENS")
    options.add_argument(
        "--embedder",
        type=Path,
        default=DEFAULT_MODEL,
        help="a model of vectors that is served beside it",
    )
    options.add_argument("--requests", type=int, default=100, help="over HTTP, for the percentiles")
    found = options.parse_args()
    if found.torch is None:
        found.only, found.versions = (OURS,), ""
        return found
    found.versions = run([str(found.torch), str(SCRIPT), "--versions"], dict(os.environ)).strip()
    return found


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
