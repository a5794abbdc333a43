"""Asks a model hub for a list of files and for the files, and compares them with what it listed.

The only module that uses the network, and only when a model is asked for by its id.
"""

import hashlib
import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from export.errors import DownloadFailed, NoSuchModel
from server.messages.message import Message

# Attempts at one file whose connection breaks, before the user has to run the export again.
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


def by_hand(template: str, **fields: object) -> DownloadFailed:
    """Return an error that says what went wrong with a download, and the way without a network."""
    return DownloadFailed(
        "{why}; or copy the model's folder by hand from a machine with a network and export that"
        " folder",
        why=Message(template, **fields),
    )


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that the hub lists.

    size: bytes, None if not listed. digest: sha256 of the content, or git's sha1 of it as a blob,
    or empty if the hub lists neither.
    """

    name: str
    size: int | None
    digest: str

    def is_at(self, path: Path) -> bool:
        """Return whether the file at `path` is this one, as far as the hub's list shows."""
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


def quiet_libraries(home: Path) -> None:
    """Turn off the telemetry of the Hugging Face libraries and keep them out of the user's home.

    It has an effect only before the first import of huggingface_hub, transformers or optimum.
    """
    os.environ.update(QUIET_ENVIRONMENT)
    os.environ["HF_HOME"] = str(home)


class Hub:
    """One model on one hub; its methods raise the library's errors."""

    def __init__(self, model_id: str, endpoint: str, scratch: Path) -> None:
        self.model_id = model_id
        self.endpoint = endpoint
        self._token: str | bool = os.environ.get("HF_TOKEN", "").strip() or False
        self._scratch = scratch

    @property
    def shown(self) -> str:
        """The endpoint without the user name and password that may be in it."""
        parts = urlsplit(self.endpoint)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def files(self, revision: str) -> tuple[str, dict[str, RemoteFile]]:
        """Return the commit that `revision` names, and its files by name."""
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
                '"{model_id}" is neither a folder nor the id of a model', model_id=self.model_id
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
        """Return the same file with its digest, which not every mirror lists."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(self.model_id, file.name, revision=commit, endpoint=self.endpoint)
        found = get_hf_file_metadata(url, token=self._token, timeout=TIMEOUT_S)
        return replace(file, size=found.size, digest=found.etag or "")

    def download(self, file: RemoteFile, commit: str, staging: Path) -> Path:
        """Download a file, check it and return its path; resumes what an earlier call left unfinished."""
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
            # The next call would take it for finished, or continue it.
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
