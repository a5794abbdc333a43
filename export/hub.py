"""Downloads a model from a Hugging Face style hub: the files that the exporter reads, no others.

The only module that uses the network, and only when a model is asked for by its id. Files are
collected in a folder inside their destination, checked against the hub's hashes, and moved out
when all have come, the weights last: what looks complete is complete. An interrupted download is
resumed. A file that is already there is never overwritten, and nothing is written under the user's
home.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from export.errors import (
    CannotWrite,
    CorruptFile,
    DownloadFailed,
    ExportError,
    MissingPackage,
    NoSuchModel,
)
from server.messages.message import Message

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
SINGLE, SHARD_INDEX, PICKLED = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
)
# Where a download collects its files, in a folder per commit: deep enough that no reader of the
# model's folder takes them for its settings.
STAGING = ".download"
# How often a connection that breaks inside a file is taken up again before the user has to.
TRIES = 3
TIMEOUT_S = 10
# Read by huggingface_hub when it is imported. Neither hf_transfer nor xet can resume a file, and
# xet keeps a cache of its own.
QUIET_ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_ENABLE_HF_TRANSFER": "0",
}


REASONS = {
    errno.ENOSPC: Message("the disk is full"),
    errno.EACCES: Message("permission denied"),
    errno.EROFS: Message("the file system is read-only"),
}


def by_hand(template: str, **fields: object) -> DownloadFailed:
    """What went wrong with a download, and the way that needs no network."""
    return DownloadFailed(
        "{why}; or copy the model's folder by hand from a machine with a network and export that"
        " folder",
        why=Message(template, **fields),
    )


Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that the hub lists.

    size: bytes, None if not listed. digest: sha256 of the content, or git's sha1 of it as a blob,
    or empty if the hub tells neither.
    """

    name: str
    size: int | None
    digest: str

    def is_at(self, path: Path) -> bool:
        """Whether the file at `path` is this one, as far as the hub lets us know."""
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            return False
        if re.fullmatch("[0-9a-f]{64}", self.digest):
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.digest
        if re.fullmatch("[0-9a-f]{40}", self.digest):
            digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
            return digest.hexdigest() == self.digest
        return True


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
    where it is set. Files that `folder` has already are compared with the hub's and not downloaded.
    """
    quiet_libraries(folder / STAGING / "home")
    try:
        from huggingface_hub import constants
    except ImportError:
        raise MissingPackage(
            "downloading a model needs huggingface_hub: install the export extra, or give the "
            "folder of a model",
        ) from None
    # subtle: constants.ENDPOINT is what HF_ENDPOINT was when the library was imported.
    where = endpoint or os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    hub = _Hub(model_id, where.rstrip("/"), folder / STAGING)
    with _plain_errors(hub, revision):
        commit, offered = hub.files(revision)
        transfer = _Transfer(hub, commit, offered, folder, progress)
        weights = transfer.weights_to_read(allow_pickle=allow_pickle)
        names = [*transfer.settings(), *transfer.weights(weights)]
        transfer.place(names)
    return folder, commit


def quiet_libraries(home: Path) -> None:
    """Turn off the telemetry of the Hugging Face libraries and keep them out of the user's home.

    It has an effect only before the first import of huggingface_hub, transformers or optimum.
    """
    os.environ.update(QUIET_ENVIRONMENT)
    os.environ["HF_HOME"] = str(home)


class _Hub:
    """One model on one hub; errors are the library's."""

    def __init__(self, model_id: str, endpoint: str, scratch: Path) -> None:
        self.model_id = model_id
        self.endpoint = endpoint
        self._token: str | bool = os.environ.get("HF_TOKEN", "").strip() or False
        self._scratch = scratch

    @property
    def shown(self) -> str:
        """The endpoint without a user name and password that may be in it."""
        parts = urlsplit(self.endpoint)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def files(self, revision: str) -> tuple[str, dict[str, RemoteFile]]:
        """The commit that `revision` names, and its files by name."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        try:
            info = HfApi(endpoint=self.endpoint, token=self._token).model_info(
                self.model_id, revision=revision, files_metadata=True, timeout=TIMEOUT_S
            )
            if not re.fullmatch("[0-9a-f]{40}", info.sha or ""):
                raise ValueError(f"no commit but {info.sha!r}")
        except HFValidationError:
            raise NoSuchModel(
                '"{model_id}" is neither a folder nor the id of a model',
                model_id=self.model_id,
            ) from None
        except HfHubHTTPError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError):
            raise by_hand(
                "{shown} does not answer as a model hub does: check the endpoint", shown=self.shown
            ) from None
        files = {
            sibling.rfilename: RemoteFile(
                sibling.rfilename,
                sibling.size,
                (sibling.lfs.sha256 if sibling.lfs else sibling.blob_id) or "",
            )
            for sibling in info.siblings or ()
        }
        return str(info.sha), files

    def examine(self, file: RemoteFile, commit: str) -> RemoteFile:
        """The same file with its digest, which not every mirror lists."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(self.model_id, file.name, revision=commit, endpoint=self.endpoint)
        found = get_hf_file_metadata(url, token=self._token, timeout=TIMEOUT_S)
        return replace(file, size=found.size, digest=found.etag or "")

    def download(self, file: RemoteFile, commit: str, staging: Path) -> Path:
        """The downloaded and checked file; what an earlier call left unfinished is resumed."""
        from huggingface_hub import hf_hub_download
        from requests.exceptions import ChunkedEncodingError

        for attempt in range(TRIES):
            try:
                path = hf_hub_download(
                    self.model_id,
                    file.name,
                    revision=commit,
                    local_dir=staging,
                    cache_dir=self._scratch / "cache",
                    endpoint=self.endpoint,
                    token=self._token,
                )
                break
            except ChunkedEncodingError:
                if attempt == TRIES - 1:
                    raise
        if not file.is_at(Path(path)):
            # Kept, it would be taken for finished, or be continued, by the next call.
            Path(path).unlink()
            raise by_hand(
                "{name} of {model_id} is not the file that {shown} lists: size or checksum differ;"
                " try again",
                name=file.name,
                model_id=self.model_id,
                shown=self.shown,
            )
        return Path(path)

    def forget_download(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)


class _Transfer:
    """Brings the files of one commit to a folder; methods return names, in an order to keep."""

    def __init__(
        self,
        hub: _Hub,
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
        """The file that leads to the weights; raises if there are none that may be read."""
        model_id, offered = self._hub.model_id, self._offered
        if CONFIG not in offered:
            raise NoSuchModel(
                "{model_id} has no {CONFIG}: it is not a transformers model",
                model_id=model_id,
                CONFIG=CONFIG,
            )
        for name in (SINGLE, SHARD_INDEX):
            if name in offered:
                return name
        if PICKLED in offered and allow_pickle:
            return PICKLED
        if PICKLED in offered:
            raise NoSuchModel(
                "{model_id} has only {PICKLED}; add --allow-pickle to read it (weights only)",
                model_id=model_id,
                PICKLED=PICKLED,
            )
        raise NoSuchModel("{model_id} has no {SINGLE}", model_id=model_id, SINGLE=SINGLE)

    def settings(self) -> list[str]:
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
        """`lead` and the shards it may name; `lead` is last."""
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
            "{path} is there and is not a file of {model_id} {_commit}; it is not overwritten: "
            "export that folder as it is, or download to another",
            path=path,
            model_id=model_id,
            _commit=self._commit[:8],
        )

    def _check_space(self, names: list[str]) -> None:
        needed = sum(
            self._offered[name].size or 0 for name in names if not (self._folder / name).exists()
        )
        self._staging.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._staging).free
        if free < needed:
            raise CannotWrite(
                "{_folder} has {free:.0f} MB free, the weights of {model_id} need {needed:.0f} MB",
                _folder=self._folder,
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
    """Names come from the hub; one that would leave the folder is not followed."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name


# --- the library's errors, said plainly ----------------------------------------------------------


@contextmanager
def _plain_errors(hub: _Hub, revision: str) -> Iterator[None]:
    try:
        yield
    except ExportError:
        raise
    except OSError as error:
        # All errors of requests and of the hub's library are OSErrors, with or without an errno.
        raise _plain_error(error, hub, revision) from None


def _plain_error(error: OSError, hub: _Hub, revision: str) -> ExportError:
    from huggingface_hub import errors
    from requests import RequestException

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, OSError):
        error = error.__cause__
    if isinstance(error, errors.RevisionNotFoundError):
        return NoSuchModel(
            '{model_id} has no revision "{revision}" on {shown}',
            model_id=hub.model_id,
            revision=revision,
            shown=hub.shown,
        )
    if isinstance(error, errors.EntryNotFoundError):
        return by_hand(
            "{shown} lists a file of {model_id} that it does not have; try later",
            shown=hub.shown,
            model_id=hub.model_id,
        )
    if isinstance(error, errors.HfHubHTTPError) and error.response is not None:
        if error.response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            hub.forget_download()
        return _refusal(error.response.status_code, hub)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return by_hand(
            "HF_HUB_OFFLINE is set, so nothing is downloaded: unset it",
        )
    if isinstance(error, RequestException):
        reason = type(error).__name__
        return by_hand(
            "the download of {model_id} from {shown} failed ({reason}): check the network, or name a"
            " mirror in HF_ENDPOINT; what has come is kept and resumed",
            model_id=hub.model_id,
            shown=hub.shown,
            reason=reason,
        )
    if error.errno is not None:
        name = error.filename or hub.model_id
        return CannotWrite(
            "cannot write {name}: {reason}",
            name=name,
            reason=REASONS.get(error.errno or 0, error.strerror),
        )
    hub.forget_download()
    return by_hand(
        "{shown} sent other bytes for {model_id} than it announced; try again",
        shown=hub.shown,
        model_id=hub.model_id,
    )


def _refusal(status: int, hub: _Hub) -> ExportError:
    if status in (401, 403):
        return DownloadFailed(
            "{shown} refuses {model_id} (HTTP {status}): it does not exist, or is private or "
            "gated; check the id, or accept the model's terms there and put your access token "
            "into HF_TOKEN",
            shown=hub.shown,
            model_id=hub.model_id,
            status=status,
        )
    if status == 404:
        return NoSuchModel(
            "there is no model {model_id} on {shown}",
            model_id=hub.model_id,
            shown=hub.shown,
        )
    return by_hand(
        "{shown} answered {model_id} with HTTP {status}; try later",
        shown=hub.shown,
        model_id=hub.model_id,
        status=status,
    )
