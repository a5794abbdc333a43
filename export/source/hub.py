"""Downloads a model from a Hugging Face style hub: the files that the exporter reads, no others.

Files are collected in a folder inside their destination, checked against the hub's hashes, and moved
out when all have come, the weights last: a folder with weights is complete. An interrupted download is
resumed. An existing file is never overwritten, and nothing is written under the user's home.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from export.errors import CannotWrite, CorruptFile, MissingPackage, NoSuchModel
from export.source.hub_client import Hub, RemoteFile, quiet_libraries
from export.source.hub_errors import plain_errors
from export.source.tensors import PICKLED, SHARD_INDEX, SINGLE

CONFIG, MODULES = "config.json", "modules.json"
SETTINGS = (
    CONFIG,
    MODULES,
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "vocab.txt",
)
# Of these, what a folder named in modules.json may hold.
MODULE_SETTINGS = (CONFIG, "sentence_bert_config.json", "tokenizer_config.json")
# Where a download collects its files, in a folder per commit: deep enough that no reader of the
# model's folder reads them as its settings.
STAGING = ".download"
Progress = Callable[[str], None]


def fetch(
    model_id: str,
    folder: Path,
    *,
    revision: str = "main",
    endpoint: str | None = None,
    allow_pickle: bool = False,
    progress: Progress = lambda _: None,
) -> tuple[Path, str]:
    """Download `model_id` into `folder`; returns the folder and the commit that `revision` names.

    endpoint: the hub's address; without it HF_ENDPOINT's, else the public hub's. HF_TOKEN is sent
    where it is set. Files that `folder` already has are compared with the hub's and not downloaded.
    """
    quiet_libraries(folder / STAGING / "home")
    try:
        from huggingface_hub import constants
    except ImportError:
        raise MissingPackage(
            "downloading a model needs huggingface_hub: install the export extra, or give the "
            "folder of a model"
        ) from None
    # subtle: constants.ENDPOINT is what HF_ENDPOINT was when the library was imported.
    where = endpoint or os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    hub = Hub(model_id, where.rstrip("/"), folder / STAGING)
    with plain_errors(hub, revision):
        commit, offered = hub.files(revision)
        transfer = _Transfer(hub, commit, offered, folder, progress)
        weights = transfer.weights_to_read(allow_pickle=allow_pickle)
        names = [*transfer.settings(), *transfer.weights(weights)]
        transfer.place(names)
    return folder, commit


class _Transfer:
    """Brings the files of one commit to a folder; methods return names in the order of moving."""

    def __init__(
        self,
        hub: Hub,
        commit: str,
        offered: Mapping[str, RemoteFile],
        folder: Path,
        progress: Progress,
    ) -> None:
        self._hub = hub
        self._commit = commit
        self._offered = offered
        self._folder = folder
        self._staging = folder / STAGING / commit
        self._progress = progress
        self._brought: dict[str, Path] = {}

    def weights_to_read(self, *, allow_pickle: bool) -> str:
        """Return the file that holds or lists the weights; raises if none may be read."""
        model_id, offered = self._hub.model_id, self._offered
        if CONFIG not in offered:
            raise NoSuchModel(
                "{model_id} has no {config}: it is not a transformers model",
                model_id=model_id,
                config=CONFIG,
            )
        for name in (SINGLE, SHARD_INDEX):
            if name in offered:
                return name
        if PICKLED in offered and allow_pickle:
            return PICKLED
        if PICKLED in offered:
            raise NoSuchModel(
                "{model_id} has only {pickled}; add --allow-pickle to read it (weights only)",
                model_id=model_id,
                pickled=PICKLED,
            )
        raise NoSuchModel("{model_id} has no {weights}", model_id=model_id, weights=SINGLE)

    def settings(self) -> list[str]:
        """Bring the files with settings, those of modules included; returns their names."""
        names = [name for name in SETTINGS if name in self._offered]
        paths = {name: self._bring(name) for name in names}
        if MODULES in paths:
            modules = [
                f"{module}/{name}"
                for module in _module_folders(paths[MODULES])
                for name in MODULE_SETTINGS
            ]
            for name in modules:
                if name in self._offered and _is_inside(name):
                    self._bring(name)
                    names.append(name)
        return names

    def weights(self, lead: str) -> list[str]:
        """Bring `lead` and the shards that it may name; returns their names, `lead` last."""
        names = [lead]
        if lead == SHARD_INDEX:
            names = [*_shards(self._bring(lead)), lead]
            missing = [name for name in names if name not in self._offered or not _is_inside(name)]
            if missing:
                raise NoSuchModel(
                    "{lead} of {model_id} names missing files: {missing}",
                    lead=lead,
                    model_id=self._hub.model_id,
                    missing=tuple(missing),
                )
        self._check_space(names)
        for name in names:
            self._bring(name)
        return names

    def place(self, names: list[str]) -> None:
        """Move what was collected to its place, in the given order."""
        for name in (*SETTINGS, SINGLE, SHARD_INDEX):
            if name not in names and (self._folder / name).exists():
                raise self._conflict(name)
        for name in names:
            if (self._staging / name).exists():
                (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self._staging / name).replace(self._folder / name)
        shutil.rmtree(self._folder / STAGING, ignore_errors=True)

    def _bring(self, name: str) -> Path:
        if name not in self._brought:
            self._brought[name] = self._find_or_download(name)
        return self._brought[name]

    def _find_or_download(self, name: str) -> Path:
        file, there = self._offered[name], self._folder / name
        if not file.digest:
            file = self._hub.examine(file, self._commit)
        if there.exists():
            if not file.is_at(there):
                raise self._conflict(name)
            return there
        size = "" if file.size is None else f", {file.size / 1e6:.1f} MB"
        self._progress(f"{self._hub.model_id} {self._commit[:8]}: {name}{size}")
        return self._hub.download(file, self._commit, self._staging)

    def _conflict(self, name: str) -> CannotWrite:
        path, model_id = self._folder / name, self._hub.model_id
        return CannotWrite(
            "{path} exists and is not a file of {model_id} {commit}; it is not overwritten: export that "
            "folder, or download to another",
            path=path,
            model_id=model_id,
            commit=self._commit[:8],
        )

    def _check_space(self, names: list[str]) -> None:
        needed = sum(
            self._offered[name].size or 0 for name in names if not (self._folder / name).exists()
        )
        self._staging.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._staging).free
        if free < needed:
            raise CannotWrite(
                "{folder} has {free:.0f} MB free, the weights of {model_id} need {needed:.0f} MB",
                folder=self._folder,
                free=free / 1000000.0,
                model_id=self._hub.model_id,
                needed=needed / 1000000.0,
            )


def _module_folders(path: Path) -> list[str]:
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
        return [str(module["path"]).strip("/") for module in modules if module["path"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptFile("{path} cannot be read: {error}", path=path, error=error) from None


def _shards(path: Path) -> list[str]:
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        return sorted(set(map(str, index["weight_map"].values())))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptFile("{path} cannot be read: {error}", path=path, error=error) from None


def _is_inside(name: str) -> bool:
    """Return whether a name, which comes from the hub, stays inside the folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name
