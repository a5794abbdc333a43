"""Downloads a model from a hub: the files that the exporter reads, no others.

Files are collected in a folder inside their destination, checked against the hub's hashes, and moved
out when all have come, the weights last: a folder with weights is complete. An interrupted download is
resumed. An existing file is never overwritten, and nothing is written under the user's home.
"""

import os
import shutil
import time
from collections.abc import Callable, Mapping, Set
from contextlib import closing, suppress
from pathlib import Path

from export.errors import CannotWrite, ExportError, NoSuchModel, UnsupportedModel
from export.kinds import check_kind
from export.kinds.networks import may_read_prompts
from export.kinds.sighting import ADAPTER, CONFIG, see
from export.source.card import CARD, MOST_CARD
from export.source.file import MOST_SETTINGS, MOST_TABLE, read_file
from export.source.folder import CollectedFiles, ModelFolder
from export.source.folder_lock import Waiting, only_one
from export.source.heads import HEADS, head_files
from export.source.hubs.address import HubAddress, hub_address
from export.source.hubs.client import MOST_FILE, Hub
from export.source.hubs.errors import plain_errors
from export.source.hubs.remote_file import RemoteFile
from export.source.json_file import parse_json
from export.source.modules import MODULES, Modules, parse_modules
from export.source.sentence_settings import PROMPTS, SENTENCE_CONFIGS
from export.source.tensors import PICKLED, SHARD_INDEX, SINGLE, shard_names, stored_weights
from server.messages.message import Message
from server.types import Task

# Files of the Transformer's folder, which is the model's own unless modules.json names another.
SETTINGS = (
    *(CONFIG, ADAPTER, *SENTENCE_CONFIGS),
    *("tokenizer_config.json", "tokenizer.json", "vocab.txt"),
)
# Larger than settings may be.
TABLES = ("tokenizer.json", "vocab.txt", SHARD_INDEX)
WEIGHTS = (".safetensors", ".bin", ".pt")
# Where a download collects its files, in a folder per commit: deep enough that no reader of the
# model's folder reads them as its settings.
STAGING = ".download"
# Between lines that say how much of a large file is there.
LINE_EVERY_S = 5.0
Progress = Callable[[str], None]
Examine = Callable[[ModelFolder], object]


def fetch(
    model_id: str,
    folder: Path,
    *,
    revision: str | None = None,
    endpoint: str | None = None,
    allow_pickle: bool = False,
    task: Task | None = None,
    progress: Progress = lambda _: None,
    waiting: Waiting = lambda _: None,
    examine: Examine = lambda _: None,
    pair_prompt: str | None = None,
) -> tuple[Path, str]:
    """Download a model into `folder`; returns the folder and the commit that `revision` names.

    model_id, revision, endpoint: as `hub_address` reads them. folder: for downloads only; no artifact may
    lie in it. Files that `folder` already has are compared with the hub's and not downloaded. waiting:
    called where another export downloads to the same folder, before that one is waited for. examine: called
    with the files that come before the weights; may raise an ExportError, and then no weights are downloaded.
    pair_prompt: what the command says of the model, see `Sighting`. task: what is asked of the model.
    """
    hub = Hub(hub_address(model_id, revision, endpoint))
    with closing(hub), plain_errors(hub.model_id, hub.shown):
        commit, offered = hub.files()
        transfer = _Transfer(hub, commit, offered, folder, progress)
        # Before anything is downloaded, wherever modules.json says that the weights are.
        anywhere = {name.rpartition("/")[2] for name in offered}
        if CONFIG in anywhere:
            transfer.lead(Modules(), anywhere, allow_pickle)
        folder.mkdir(parents=True, exist_ok=True)
        with only_one(folder, waiting):
            transfer.check_kind(pair_prompt, task)
            modules = transfer.modules()
            lead = transfer.lead(modules, offered.keys(), allow_pickle)
            tail = transfer.tail(modules, allow_pickle)
            settings = transfer.settings(modules)
            transfer.examine(examine)
            heads = transfer.heads(modules, task, allow_pickle)
            transfer.place([*settings, *heads, *transfer.weights(lead, tail, modules)], modules)
    return folder, commit


def look(address: HubAddress, folder: Path) -> tuple[CollectedFiles, int]:
    """Download what shows a model's kind and settings into `folder`, and no weights.

    Returns the files, and the bytes of the weights that an export would download.
    """
    hub = Hub(address)
    with closing(hub), plain_errors(hub.model_id, hub.shown):
        commit, offered = hub.files()
        transfer = _Transfer(hub, commit, offered, folder, lambda _: None)
        # The kind says why a model is refused.
        with suppress(UnsupportedModel):
            transfer.signs()
            transfer.settings(transfer.modules())
        return transfer.collected(), sum(
            file.size or 0 for name, file in offered.items() if name.endswith(".safetensors")
        )


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
        self._reported = time.monotonic()
        self._brought: dict[str, Path] = {}

    def check_kind(self, pair_prompt: str | None, task: Task | None) -> None:
        """Bring the few files that show what the model is; raises UnsupportedModel.

        task: what is asked of it.
        """
        try:
            self.signs()
        except UnsupportedModel:
            # Its classes may show a cause that says more.
            self.examine(lambda files: check_kind(see(files, pair_prompt), task))
            raise
        self.examine(lambda files: check_kind(see(files, pair_prompt), task))

    def signs(self) -> None:
        """Bring modules.json, config.json and the settings of an adapter, where they are.

        Of a model that may read prompts the card too: it may say that the model was made from a known reranker.
        """
        modules = self.modules()
        for name in map(modules.file, (CONFIG, ADAPTER)):
            if name in self._offered:
                self._bring(name)
        card = self._offered.get(CARD)
        small = card is not None and card.size is not None and card.size <= MOST_CARD
        if small and may_read_prompts(see(self.collected())):
            self._bring(CARD)

    def collected(self) -> CollectedFiles:
        """Return the files that have come, with the names of all."""
        names = self._offered.keys()
        return CollectedFiles(self._folder, self._brought, names, self._hub.model_id)

    def examine(self, judge: Callable[[ModelFolder], object]) -> None:
        """Judge the files that have come; those of a model that is refused are removed."""
        try:
            judge(self.collected())
        except ExportError:
            shutil.rmtree(self._folder / STAGING, ignore_errors=True)
            raise

    def modules(self) -> Modules:
        """Bring modules.json, where there is one, and return what it says."""
        if MODULES not in self._offered:
            return Modules()
        path = self._bring(MODULES)
        return parse_modules(path, read_file(path, MOST_SETTINGS))

    def lead(self, modules: Modules, offered: Set[str], allow_pickle: bool) -> str:
        """Return the file that holds or lists the weights; raises NoSuchModel if none may be read."""
        model_id = self._hub.model_id
        config, single, index, pickled = map(modules.file, (CONFIG, SINGLE, SHARD_INDEX, PICKLED))
        if config not in offered and not modules.static:
            raise NoSuchModel(
                "{model_id} has no {config}: it is not a transformers model",
                model_id=model_id,
                config=config,
            )
        if index in offered and single not in offered:
            return index
        return self._stored((single, pickled), offered, allow_pickle)

    def _stored(self, names: tuple[str, str], offered: Set[str], allow_pickle: bool) -> str:
        has, place = offered.__contains__, self._hub.model_id
        return stored_weights(has, place, names, allow_pickle=allow_pickle)

    def tail(self, modules: Modules, allow_pickle: bool) -> list[str]:
        """Return the files with the weights of the Dense layers; raises NoSuchModel if one may not be read."""
        offered = self._offered.keys()
        return [
            self._stored((layer.file(SINGLE), layer.file(PICKLED)), offered, allow_pickle)
            for layer in modules.dense
        ]

    def settings(self, modules: Modules) -> list[str]:
        """Bring the files with settings, those of modules included; returns their names."""
        names = [name for name in _settings(modules) if name in self._offered]
        names += [CARD] if CARD in self._brought else []
        for name in names:
            self._bring(name)
        return names

    def heads(self, modules: Modules, task: Task | None, allow_pickle: bool) -> list[str]:
        """Bring the weights of the head that a task needs, where the model has one; returns their names."""
        if task is None or task not in HEADS:
            return []
        safe, pickled = map(modules.file, head_files(HEADS[task]))
        if not self._offered.keys() & {safe, pickled}:
            return []
        name = self._stored((safe, pickled), self._offered.keys(), allow_pickle)
        self._bring(name)
        return [name]

    def weights(self, lead: str, tail: list[str], modules: Modules) -> list[str]:
        """Bring `tail`, the shards that `lead` may name, and `lead`; returns their names in this order."""
        names = [lead]
        if lead == modules.file(SHARD_INDEX):
            path = self._bring(lead)
            shards = shard_names(path, parse_json(path, read_file(path, MOST_TABLE)))
            names = [*map(modules.file, shards), lead]
            missing = [name for name in names if name not in self._offered]
            if missing or not shards:
                raise NoSuchModel(
                    "{lead} of {model_id} names missing files: {missing}",
                    lead=lead,
                    model_id=self._hub.model_id,
                    missing=tuple(missing[:10]) or Message("none at all"),
                )
        names = [*tail, *names]
        self._check_space(names)
        for name in names:
            self._bring(name)
        return names

    def place(self, names: list[str], modules: Modules) -> None:
        """Move what was collected to its place, in the given order."""
        weights = (SINGLE, SHARD_INDEX)
        preferred = (*map(modules.file, weights), *(layer.file(SINGLE) for layer in modules.dense))
        for name in (*_settings(modules), *preferred):
            if name not in names and os.path.lexists(self._folder / name):
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
        if os.path.lexists(there):
            if not file.is_at(there):
                raise self._conflict(name)
            return there
        size = "" if file.size is None else f", {file.size / 1e6:.1f} MB"
        self._hub.received = self._received
        self._progress(f"{self._hub.model_id} {self._commit[:8]}: {name}{size}")
        return self._hub.download(file, self._commit, self._staging, _most(name))

    def _received(self, file: RemoteFile, n_bytes: int) -> None:
        """Report how much of a large file is there, every few seconds."""
        if time.monotonic() - self._reported < LINE_EVERY_S:
            return
        self._reported = time.monotonic()
        size = "" if file.size is None else f" / {file.size / 1e6:,.0f}"
        self._progress(f"{file.name}: {n_bytes / 1e6:,.0f}{size} MB")

    def _conflict(self, name: str) -> CannotWrite:
        path, model_id = self._folder / name, self._hub.model_id
        return CannotWrite(
            "{path} exists and is not a file of {model_id} {commit}; it is not overwritten: remove it to "
            "download the model again, or export that folder",
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


def _settings(modules: Modules) -> list[str]:
    """Return the names of all files with settings that an export reads of a model."""
    own = map(modules.file, SETTINGS)
    names = [MODULES, PROMPTS, *own, modules.pooling_file(), modules.answers_file()]
    names += modules.tail_files()
    return [name for name in names if name]


def _most(name: str) -> int:
    """Return how large a file of this name may be."""
    if name.endswith(WEIGHTS):
        return MOST_FILE
    return MOST_TABLE if name.rpartition("/")[2] in TABLES else MOST_SETTINGS
