"""The same requests to what people use today: how fast, and how near to float32?

    python -m benchmarks.comparison.compare [--texts FOLDER] [--only NAME,...] [--contender NAME=URL,FORMAT]

Contenders: the server itself; the tutorial's FastAPI and sentence-transformers on PyTorch, as it is
written everywhere; a careful user's small server around sentence-transformers on PyTorch, its ONNX and
OpenVINO backends in int8, and fastembed; infinity. Each runs in an environment of its own, made once
under --environments, with the fastest settings of those tried, which contenders/README.md lists.
Servers that run already are named by URL, in the format native, tei, openai or ollama.

All stand ready at once and take turns, another first each turn, after a second that does not count, and
each when the one before it rests; one text a request, every text unique, 16 clients. The ratio is the
median over turns of the server's rate to the contender's; cores, how many of them a contender kept
busy: where not all are, its settings are to blame, not its speed. One JSON line a result; a contender
that cannot run is listed with the reason. Last, for each workload, who came nearest: of all, and of
those whose vectors are as near to float32.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import closedloop, machine, reference, usage, workloads
from benchmarks.comparison.environments import CONTENDERS as FILES
from benchmarks.comparison.environments import Environment, Failed, reason
from benchmarks.serve import NotStarted, process, server
from export.texts import CALIBRATION
from server.config import DEFAULT_MODEL

WORKLOADS = ("queries", "laws", "mixed")
CLIENTS = 16
OURS = "inkwell"
# A contender rests when it takes less than this part of a core; it is looked at so often, in seconds, and
# waited for so long.
RESTING, LOOK_S, REST_S = 0.2, 0.2, 5.0
Turn = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Format:
    """How a text is asked for, and where its vector stands in the reply."""

    path: str
    body: Callable[[str, str], dict[str, Any]]  # text, model
    vector: Callable[[Any], list[float]]


FORMATS = {
    "native": Format("/embed", lambda text, _: {"texts": [text]}, lambda r: r["vectors"][0]),
    "tei": Format("/embed", lambda text, _: {"inputs": [text]}, lambda r: r[0]),
    "openai": Format(
        "/v1/embeddings",
        lambda text, model: {"model": model, "input": [text]},
        lambda r: r["data"][0]["embedding"],
    ),
    "ollama": Format(
        "/api/embed",
        lambda text, model: {"model": model, "input": [text]},
        lambda r: r["embeddings"][0],
    ),
}


@dataclass(frozen=True, slots=True)
class Contender:
    """A server that answers at `url`; pid: of its first process, where it was started here."""

    name: str
    url: str
    format: Format
    model: str = ""
    versions: str = ""  # of a contender that was started here
    pid: int | None = None

    @property
    def address(self) -> str:
        return self.url + self.format.path

    def body(self, text: str) -> dict[str, Any]:
        return self.format.body(text, self.model)

    def embed(self, text: str) -> list[float]:
        headers = {"content-type": "application/json"}
        # The first answers come when the contender is warm.
        request = urllib.request.Request(
            self.address, json.dumps(self.body(text)).encode(), headers
        )
        with urllib.request.urlopen(request, timeout=600) as reply:
            return self.format.vector(json.load(reply))


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a contender is started: in its environment, with the model that `int8` wrote for it."""

    command: Callable[[Path], list[str]]  # arguments of its interpreter, from the model's folder
    environment: str  # whose packages: requirements-NAME.txt
    int8: str = ""  # the library that int8.py is told; none: the checkpoint itself
    folder: str = "."  # within what int8.py wrote
    probe: str = "/docs"
    format: str = "native"
    model: str = ""


def _small(library: str) -> Callable[[Path], list[str]]:
    return lambda folder: [str(FILES / "small.py"), library, str(folder)]


def _infinity(engine: str) -> Callable[[Path], list[str]]:
    """It pads a batch to its longest text: of 32, its default, texts of mixed lengths came to 1 /s.

    The model's folder is the current one: optimum-onnx refuses the path infinity makes for another.
    """
    start = "from infinity_emb.cli import cli; cli()"
    options = f"{engine} --device cpu --pooling-method cls --batch-size 4 --model-warmup"
    place = "--model-id . --served-model-name model --url-prefix /v1 --host 127.0.0.1"
    return lambda _: ["-c", start, "v2", "--engine", *options.split(), *place.split()]


INFINITY = Recipe(
    _infinity("optimum"), "infinity", probe="/v1/models", format="openai", model="model"
)
# fastembed and infinity take the file that sentence-transformers writes, so all ONNX contenders
# run the same numbers.
CONTENDERS = {
    "tutorial": Recipe(lambda folder: [str(FILES / "tutorial.py"), str(folder)], "tutorial"),
    "torch": Recipe(_small("torch"), "tutorial"),
    "onnx": Recipe(_small("onnx"), "onnx", int8="onnx"),
    "openvino": Recipe(_small("openvino"), "openvino", int8="openvino"),
    "fastembed": Recipe(_small("fastembed"), "fastembed", int8="onnx"),
    "infinity": replace(INFINITY, int8="onnx", folder="flat"),
    "infinity-torch": replace(
        INFINITY, command=_infinity("torch --dtype bfloat16 --no-compile --no-bettertransformer")
    ),
}


def main() -> None:
    arguments = _arguments()
    facts = machine.facts()

    def show(line: dict[str, Any]) -> None:
        print(json.dumps({**line, "machine": facts}, ensure_ascii=False), flush=True)

    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url, pid = stack.enter_context(server(arguments.model, scratch))
        ready: dict[str, Contender] = {}
        cosine = {}
        for contender in (
            Contender(OURS, url, FORMATS["native"], pid=pid),
            *_started(arguments, stack, scratch, show),
            *arguments.contender,
        ):
            try:
                found = quality(contender)
            except (OSError, ValueError, LookupError, TypeError) as error:
                show({"case": "compare absent", "contender": contender.name, "reason": str(error)})
                continue
            show({"case": "compare quality", "contender": contender.name, **found})
            ready[contender.name] = contender
            cosine[contender.name] = found["cosine_mean"]
        found_best = []
        for workload in WORKLOADS:
            lines = list(_rates(arguments, list(ready.values()), workload, scratch))
            for line in lines:
                show({"case": "compare", "workload": workload, "clients": CLIENTS, **line})
            found_best += [{"workload": workload, **line} for line in best(lines, cosine)]
        for line in found_best:
            show({"case": "compare best", "clients": CLIENTS, **line})


def _started(
    arguments: argparse.Namespace,
    stack: contextlib.ExitStack,
    scratch: Path,
    show: Callable[[dict[str, Any]], None],
) -> Iterator[Contender]:
    for name in arguments.only:
        recipe = CONTENDERS[name]
        try:
            environment = Environment(arguments.environments, recipe.environment)
            folder = _model(arguments, recipe)
            started = process(
                [environment.python, *recipe.command(folder)],
                scratch / f"{name}.log",
                recipe.probe,
                folder,
                environment.environ,
            )
            url, pid = stack.enter_context(started)
            versions = environment.versions()
        except (Failed, NotStarted, subprocess.TimeoutExpired) as error:
            line = {"case": "compare absent", "contender": name, "reason": reason(str(error))}
            show(line)
            continue
        yield Contender(name, url, FORMATS[recipe.format], recipe.model, versions, pid)


def _model(arguments: argparse.Namespace, recipe: Recipe) -> Path:
    """The folder that the contender loads, exported unless this int8.py has done so before."""
    checkpoint: Path = arguments.model.parent.resolve()
    if not recipe.int8:
        return checkpoint
    folder: Path = (arguments.environments / f"int8-{recipe.int8}" / checkpoint.name).resolve()
    done = folder / "done"
    script = (FILES / "int8.py").read_bytes()
    if not done.exists() or done.read_bytes() != script:
        exporter = Environment(arguments.environments, recipe.int8)
        command = [str(FILES / "int8.py"), recipe.int8, str(checkpoint), str(folder)]
        exporter.run(*command, "--texts", str(CALIBRATION.resolve()))
        done.write_bytes(script)
    return folder / recipe.folder


def quality(contender: Contender) -> dict[str, Any]:
    """Cosine to sentence-transformers' float32 vectors of the same texts, mean and minimum."""
    texts, expected = reference.load()
    found = cosines(np.array([contender.embed(text) for text in texts], np.float32), expected)
    line: dict[str, Any] = {
        "texts": len(texts),
        "cosine_mean": round(float(found.mean()), 5),
        "cosine_min": round(float(found.min()), 5),
    }
    return {**line, "versions": contender.versions} if contender.versions else line


def cosines(
    vectors: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Row by row; raises ValueError for shapes that differ."""
    if vectors.shape != expected.shape:
        raise ValueError(f"vectors of shape {vectors.shape}, not {expected.shape}")
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1)
    cosine: npt.NDArray[np.float32] = np.einsum("nd,nd->n", vectors, expected) / lengths
    return cosine


def _rates(
    arguments: argparse.Namespace, contenders: Sequence[Contender], workload: str, scratch: Path
) -> Iterator[dict[str, Any]]:
    texts = workloads.load(workload, 2000, arguments.texts)
    bodies = {}
    for each in contenders:
        path = scratch / f"{each.name}-{workload}.jsonl"
        asked = (each.body(workloads.UNIQUE + text) for text in texts)
        bodies[each.name] = workloads.write_bodies(path, asked)
    for each in contenders:  # Caches fill, and every process of a contender is up.
        _loaded(each, bodies[each.name], 1, arguments.turns)
    turns: list[dict[str, dict[str, float]]] = []
    for turn in range(arguments.turns):
        turns.append({})
        for each in order(contenders, turn):
            found = _loaded(each, bodies[each.name], arguments.seconds, turn)
            if not found["per_s"]:
                sys.exit(f"{each.name} answered nothing in {arguments.seconds} s: more --seconds")
            turns[-1][each.name] = found
    yield from summary(turns)


def _loaded(contender: Contender, bodies: Path, seconds: int, turn: int) -> dict[str, float]:
    """What the closed loop finds and, of a contender that was started here, `cores`; then it has rested."""
    pid = contender.pid
    before = usage.family_cpu_s(pid) if pid else 0.0
    found = closedloop.run(contender.address, bodies, CLIENTS, seconds, turn)
    if pid:
        found["cores"] = (usage.family_cpu_s(pid) - before) / found["seconds"]
    _rest(pid)
    return found


def _rest(pid: int | None) -> None:
    """Wait until a contender rests; as long as one may where that cannot be seen.

    The requests that were under way at the end of its turn, a second's work for some, are not to slow
    down the next.
    """
    if pid is None:
        time.sleep(REST_S)
        return
    for _ in range(round(REST_S / LOOK_S)):
        before = usage.family_cpu_s(pid)
        time.sleep(LOOK_S)
        if usage.family_cpu_s(pid) - before < RESTING * LOOK_S:
            break


def order(contenders: Sequence[Contender], turn: int) -> list[Contender]:
    """Another one is first each turn."""
    first = turn % len(contenders)
    return [*contenders[first:], *contenders[:first]]


def summary(turns: Sequence[Turn]) -> Iterator[dict[str, Any]]:
    """For each contender the medians, and the median of the turns' ratios of ours to its rate."""
    for name in turns[0]:
        line: dict[str, Any] = {"contender": name}
        for key in ("per_s", "p50_ms", "p99_ms", "cores"):
            if key in turns[0][name]:
                line[key] = round(statistics.median(turn[name][key] for turn in turns), 2)
        ratios = [turn[OURS]["per_s"] / turn[name]["per_s"] for turn in turns]
        yield {**line, "ours_to_it": round(statistics.median(ratios), 3)}


def best(
    lines: Sequence[Mapping[str, Any]], cosine: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    """Whom the server leads least, of those with vectors as near to float32 as its own, and of all.

    lines: of one workload, as `summary` yields them. cosine: each contender's mean to float32; as near
    is what is no lower in the third decimal, since the fourth moves with the CPU. No line if nobody is.
    """
    others = [line for line in lines if line["contender"] != OURS]
    as_near = [
        line for line in others if round(cosine[line["contender"]], 3) >= round(cosine[OURS], 3)
    ]
    for quality, among in (("as near or nearer", as_near), ("any", others)):
        if among:
            first = min(among, key=lambda line: float(line["ours_to_it"]))
            name = first["contender"]
            yield {
                "quality": quality,
                "contender": name,
                "cosine_mean": cosine[name],
                "ours_to_it": first["ours_to_it"],
            }


def contender(text: str) -> Contender:
    """Reads name=url,format or name=url,format,model."""
    name, _, rest = text.partition("=")
    url, format, model = [*rest.split(","), "", ""][:3]
    if not name or name == OURS or not url.startswith("http") or format not in FORMATS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not name=url,format with a format of {', '.join(FORMATS)}"
        )
    return Contender(name, url.rstrip("/"), FORMATS[format], model)


def names(text: str) -> list[str]:
    """Reads names of contenders, with commas between."""
    chosen = [name for name in text.split(",") if name]
    if unknown := set(chosen) - CONTENDERS.keys():
        raise argparse.ArgumentTypeError(f"no contender is named {', '.join(sorted(unknown))}")
    return chosen


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument(
        "--texts", type=Path, help="folder with queries.json, laws.json, mixed.json"
    )
    parser.add_argument("--environments", type=Path, default=Path("build/contenders"))
    parser.add_argument("--only", type=names, default=list(CONTENDERS), metavar="NAME,...")
    parser.add_argument(
        "--contender",
        type=contender,
        action="append",
        default=[],
        metavar="NAME=URL,FORMAT[,MODEL]",
        help="a server that runs already; repeatable",
    )
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--turns", type=int, default=5, help="alternations; medians count")
    return parser.parse_args()


if __name__ == "__main__":
    main()
