"""The model of an installation that has none yet: where it is kept, and how it is fetched.

The server itself opens no connection. Fetching is a run of `python -m export` in a process of its own, and
only after the user has agreed, by --fetch or at the terminal.
"""

import asyncio
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from server.cli.invocation import Invocation
from server.config import DEFAULT_MODEL, Config, Effective, ModelPlace, ModelPlaces
from server.config_sources import DEFAULT
from server.errors import BadSettings
from server.messages.message import Message

MODEL_ID = "BAAI/bge-small-zh-v1.5"
# Packages of the `export` extra, by the names under which they are imported.
NEEDED = ("huggingface_hub", "ml_dtypes", "onnx", "requests", "safetensors", "tqdm")
STANDARD_ERROR = 2
YES = {"", "y", "yes", "是"}


def home(variables: Mapping[str, str]) -> Path:
    """Return the folder of this user for fetched models (XDG_DATA_HOME)."""
    named = Path(variables.get("XDG_DATA_HOME", ""))
    data = named if named.is_absolute() else Path(variables.get("HOME") or "/") / ".local/share"
    return data / "inkwell"


def with_fetched_model(found: Effective, variables: Mapping[str, str]) -> Effective:
    """Return the settings with the fetched model, where none is named and ./models has none."""
    place = home(variables) / DEFAULT_MODEL
    if (
        found.origins["model"] is not DEFAULT
        or _is_artifact(DEFAULT_MODEL)
        or not _is_artifact(place)
    ):
        return found
    return found._replace(config=replace(found.config, model=ModelPlaces([ModelPlace(place)])))


def with_model(given: Invocation) -> Config:
    """Return the settings, with a fetched model where none is named and none is there; raises BadSettings."""
    if given.origins["model"] is not DEFAULT or _is_artifact(given.config.model[0].folder):
        return given.config
    folder = home(given.variables)
    _check_packages()
    _agree(given, folder)
    folder.mkdir(parents=True, exist_ok=True)
    status = asyncio.run(_export(folder, given.variables))
    if status:
        raise BadSettings(
            "{model} was not fetched, see above; name a model that is there with --model, or a mirror with"
            " the variable HF_ENDPOINT",
            model=MODEL_ID,
        )
    return with_fetched_model(Effective(given.config, given.origins), given.variables).config


def _is_artifact(folder: Path) -> bool:
    from server.inference.manifest import MANIFEST_FILE

    return (folder / MANIFEST_FILE).is_file()


def _check_packages() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise BadSettings(
            "no model is named with --model, and {folder} does not exist. To fetch {model}, the packages"
            ' {missing} are needed: pip install "inkwell-embeddings[export]"',
            folder=DEFAULT_MODEL,
            model=MODEL_ID,
            missing=tuple(missing),
        )


def _agree(given: Invocation, folder: Path) -> None:
    """Return if the user agrees to the download; raises BadSettings otherwise."""
    question = Message(
        "No model is named with --model, and {default} does not exist. Download {model} (100 MB) from its hub,"
        " or the mirror in HF_ENDPOINT, and export it into {folder}? Nothing else is sent or fetched.",
        default=DEFAULT_MODEL,
        model=MODEL_ID,
        folder=folder,
    )
    terminal = given.terminal
    if given.arguments.fetch:
        terminal.inform("fetching {model} into {folder}", model=MODEL_ID, folder=folder)
        return
    if not sys.stdin.isatty():
        raise BadSettings(
            "{question} Standard input is no terminal that could answer: give --fetch",
            question=question,
        )
    terminal.err.write(f"{terminal.words(question)} [Y/n] ")
    terminal.err.flush()
    answer = sys.stdin.readline()
    if not answer or answer.strip().lower() not in YES:
        raise BadSettings("nothing was fetched; name a model with --model")


async def _export(folder: Path, variables: Mapping[str, str]) -> int:
    """Run the exporter, which writes models/NAME/onnx-int8 in `folder`; return its exit status."""
    # Where this program was started from a clone, the exporter is there too.
    paths = [str(Path(__file__).parents[2]), variables.get("PYTHONPATH", "")]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "export", MODEL_ID),
        cwd=folder,
        env={**variables, "PYTHONPATH": ":".join(filter(None, paths))},
        # What the command itself prints there stays apart.
        stdout=STANDARD_ERROR,
    )
    return await process.wait()
