"""The contenders of `compare`: how each is started, at which setting, and how a text is asked for."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.comparison.environments import CONTENDERS as FILES
from benchmarks.comparison.environments import Environment, Failed, int8_model, reason
from benchmarks.connection import ask
from benchmarks.serve import NotStarted, process
from server.inference.manifest import MANIFEST_FILE, parse_manifest
from server.system.cpu import cpu_budget, cpu_features


@dataclass(frozen=True, slots=True)
class Format:
    """A request for one text, and the place of its vector in the reply."""

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
    """A server that answers at `url`.

    setting: processes, threads, batch and numbers it runs with. lower_case: texts are sent lower-cased.
    versions and pid, of its first process, are known if it was started here.
    """

    name: str
    url: str
    format: Format
    model: str = ""
    setting: str = "unknown"
    lower_case: bool = False
    versions: str = ""
    pid: int | None = None

    @property
    def address(self) -> str:
        return self.url + self.format.path

    def body(self, text: str) -> dict[str, Any]:
        """Return the request for one text."""
        return self.format.body(text.lower() if self.lower_case else text, self.model)

    def embed(self, text: str) -> list[float]:
        """Return the vector of one text; the first one comes when the contender is warm."""
        return self.format.vector(ask(self.address, self.body(text), timeout_s=600))


@dataclass(frozen=True, slots=True)
class Recipe:
    """The start of a contender in its environment, with the model that int8.py wrote for it.

    setting: the best of those tried that contenders/README.md lists; {cores} and {float} stand for
    their number and for PyTorch's type here. tried: False if no other setting was measured beside it.
    lower_case: its tokenizer does not lower-case, so its client must where the model asks for it.
    """

    command: Callable[[Path], list[str]]  # Arguments of its interpreter, from the model's folder.
    environment: str  # The packages: requirements-NAME.txt.
    setting: str
    tried: bool = True
    lower_case: bool = False
    int8: str = ""  # The library that int8.py exports with; "" for the checkpoint itself.
    folder: str = "."  # Within what int8.py wrote.
    probe: str = "/docs"
    format: str = "native"
    model: str = ""

    def setting_here(self, lower_cased: bool) -> str:
        """Return the setting on this machine, for result lines."""
        number = "bfloat16" if "avx512_bf16" in cpu_features() else "float32"
        found = self.setting.format(cores=cpu_budget(), float=number)
        if lower_cased:
            found += "; input lower-cased by the client"
        return found if self.tried else found + "; not tried beside others"


def _small(library: str) -> Callable[[Path], list[str]]:
    return lambda folder: [str(FILES / "small.py"), library, str(folder)]


def _infinity(engine: str) -> Callable[[Path], list[str]]:
    return lambda _: [str(FILES / "infinity.py"), engine]


EACH_CORE = "{cores} processes of 1 thread, "
# fastembed and infinity take the file that sentence-transformers writes, so all ONNX contenders run
# the same numbers.
RECIPES = {
    "tutorial": Recipe(
        lambda folder: [str(FILES / "tutorial.py"), str(folder)],
        "tutorial",
        "1 process, {cores} threads, no batches, float32",
    ),
    "torch": Recipe(_small("torch"), "tutorial", EACH_CORE + "no batches, {float}"),
    "onnx": Recipe(_small("onnx"), "onnx", EACH_CORE + "no batches, dynamic int8", int8="onnx"),
    "openvino": Recipe(
        _small("openvino"), "openvino", EACH_CORE + "no batches, static int8", int8="openvino"
    ),
    "fastembed": Recipe(
        _small("fastembed"),
        "fastembed",
        EACH_CORE + "no batches, dynamic int8",
        lower_case=True,
        int8="onnx",
    ),
    "infinity": Recipe(
        _infinity("optimum"),
        "infinity",
        EACH_CORE + "its batches to 4, dynamic int8",
        tried=False,
        lower_case=True,
        int8="onnx",
        folder="flat",
        probe="/v1/models",
        format="openai",
        model="model",
    ),
    "infinity-torch": Recipe(
        _infinity("torch"),
        "infinity",
        EACH_CORE + "its batches to 4, bfloat16",
        tried=False,
        probe="/v1/models",
        format="openai",
        model="model",
    ),
}


@contextlib.contextmanager
def running(name: str, artifact: Path, environments: Path, scratch: Path) -> Iterator[Contender]:
    """Run a contender until the block ends, with the checkpoint around `artifact`; raises Failed."""
    checkpoint = artifact.resolve().parent
    manifest = parse_manifest(artifact / MANIFEST_FILE)
    recipe = RECIPES[name]
    lowered = recipe.lower_case and manifest.text.lower_case
    environment = Environment(environments, recipe.environment)
    folder = checkpoint
    if recipe.int8:
        folder = int8_model(environments, recipe.int8, checkpoint) / recipe.folder
    command = [environment.python, *recipe.command(folder)]
    log = scratch / f"{name}.log"
    with contextlib.ExitStack() as stack:
        try:
            started = process(command, log, recipe.probe, folder, environment.environ)
            url, pid = stack.enter_context(started)
        except (NotStarted, subprocess.TimeoutExpired) as error:
            raise Failed(reason(str(error))) from None
        yield Contender(
            name,
            url,
            FORMATS[recipe.format],
            recipe.model,
            recipe.setting_here(lowered),
            lowered,
            environment.versions(),
            pid,
        )
