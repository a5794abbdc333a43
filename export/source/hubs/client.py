"""Asks a model hub for a list of files and for the files, and compares them with what it listed.

The only module that uses the network, and only for a model that is asked for by an id or a pasted address.
Nothing in an answer is trusted: sizes, time and redirects are bounded, types are checked, and no name in it becomes a
path here.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any
from urllib.parse import urljoin, urlsplit

from export.errors import MissingPackage
from export.source.hubs.address import HubAddress
from export.source.hubs.dialects.dialect import NO_ENTRY
from export.source.hubs.errors import by_hand, other_hubs, refusal
from export.source.hubs.remote_file import CHUNK, RemoteFile
from export.source.json_file import decode

# Attempts at one file whose connection breaks, before the user has to run the export again.
TRIES = 3
# For a connection, and for each part of an answer.
TIMEOUT_S = 10
MOST_REDIRECTS, REDIRECTS = 5, (301, 302, 303, 307, 308)
# A hub may not hold an export up for ever: after so long its answer must have begun, and after so long it
# must have sent so many bytes a second.
PATIENCE_S, LEAST_RATE = 60.0, 1024
# The list of a repository's files. One with 10,000 files takes some 3 MB.
MOST_LISTED = 16 * 1024 * 1024
# Of an answer that refuses.
MOST_REFUSAL = 64 * 1024
# Of one file. A shard of a published model has about 5 GB.
MOST_FILE = 64 * 1024**3
# What a file of unknown size leaves free on the disk.
LEFT_FREE = 256 * 1024 * 1024
# Read by huggingface_hub when it is imported. Neither hf_transfer nor xet can resume a file, and
# xet keeps a cache of its own.
QUIET_ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_ENABLE_HF_TRANSFER": "0",
}


def quiet_libraries(home: Path) -> None:
    """Turn off the telemetry of the Hugging Face libraries and keep them out of the user's home.

    For `--via optimum`, before the first import of huggingface_hub, transformers or optimum.
    """
    os.environ.update(QUIET_ENVIRONMENT)
    os.environ["HF_HOME"] = str(home)


class Hub:
    """One model on one hub. Its methods raise ExportErrors, and the errors of requests and the disk."""

    def __init__(self, address: HubAddress, clock: Callable[[], float] = time.monotonic) -> None:
        try:
            import requests
        except ImportError:
            raise MissingPackage(
                "downloading a model needs requests: install the export extra, or give the folder of a "
                "model"
            ) from None
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            raise by_hand("HF_HUB_OFFLINE is set, so nothing is downloaded: unset it")
        self._address, self._dialect = address, address.dialect
        self.model_id, self.shown = address.model_id, _without_password(address.endpoint)
        # Called with a file and how many bytes of it are there, for each part that arrives.
        self.received: Callable[[RemoteFile, int], None] = lambda file, n_bytes: None
        self._clock = clock
        self._session = requests.Session()
        # Of other content than the file's own the size could not be compared.
        self._session.headers.update({"User-Agent": "inkwell", "Accept-Encoding": "identity"})
        # subtle: following a redirect requests would first read all of an answer that no one needs.
        self._session.get_redirect_target = lambda _: None
        self._credentials = self._dialect.credentials(address.token) if address.token else {}

    def close(self) -> None:
        self._session.close()

    def files(self) -> tuple[str, dict[str, RemoteFile]]:
        """Return the commit that the address's revision names, and its files by name."""
        listing = self._dialect.listing(self.model_id, self._address.revision)
        answer = None
        while True:
            try:
                place = listing.send(answer)
            except StopIteration as ended:
                commit, files = ended.value
                return commit, {file.name: file for file in files}
            except (ValueError, TypeError, KeyError, AttributeError):
                raise self._no_hub() from None
            answer = self._json(place)

    def _json(self, place: str) -> Any:
        """Return the JSON at a place."""
        with self._answer("GET", place) as steps:
            content = b"".join(self._parts(steps[-1], MOST_LISTED))
            cause = self._dialect.cause(steps[-1].headers, content)
            if cause:
                raise self._refusal(steps[-1].status_code, cause)
        try:
            return decode(content)
        except ValueError:
            raise self._no_hub() from None

    def examine(self, file: RemoteFile, commit: str) -> RemoteFile:
        """Return the same file with its size and digest, which not every mirror lists."""
        with self._answer("HEAD", self._place(file, commit), of_file=True) as steps:
            return self._dialect.examined(file, [step.headers for step in steps])

    def download(self, file: RemoteFile, commit: str, staging: Path, most: int = MOST_FILE) -> Path:
        """Download a file of up to `most` bytes, check it and return its path in `staging`.

        Resumes what an earlier call left unfinished.
        """
        from requests.exceptions import ConnectionError as Broken
        from urllib3.exceptions import ProtocolError

        path = staging / file.name
        if file.is_at(path) and file.digest:
            return path
        part = path.with_name(path.name + ".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        for left in reversed(range(TRIES)):
            try:
                self._append(file, commit, part, self._most(file, staging, most))
                break
            except (Broken, ProtocolError):
                if not left:
                    raise
        if not file.is_at(part):
            # The next call would take it for finished, or continue it.
            part.unlink()
            raise self._other_bytes(file)
        return part.replace(path)

    def _most(self, file: RemoteFile, staging: Path, most: int) -> int:
        """Return how many bytes of a file are taken."""
        if file.size is None:
            return max(0, min(most, shutil.disk_usage(staging).free - LEFT_FREE))
        if file.size > most:
            raise by_hand(
                "{name} of {model_id} has {size:,} bytes, at most {most:,} are downloaded",
                name=file.name,
                model_id=self.model_id,
                size=file.size,
                most=most,
            )
        return file.size

    def _append(self, file: RemoteFile, commit: str, part: Path, most: int) -> None:
        """Add to `part` what it lacks of a file."""
        first = part.stat().st_size if part.exists() else 0
        if first and first == file.size:
            return
        if file.size is None or first > file.size:
            first = 0
        asked = {"Range": f"bytes={first}-"} if first else {}
        with self._answer("GET", self._place(file, commit), asked, of_file=True) as steps:
            response = steps[-1]
            # Not by the status: ModelScope sends a part with 200.
            if not str(response.headers.get("Content-Range", "")).startswith(f"bytes {first}-"):
                first = 0
            with part.open("r+b" if first else "wb") as out:
                out.seek(first)
                out.truncate()
                try:
                    for block in self._parts(response, most - first):
                        out.write(block)
                        self.received(file, out.tell())
                except _TooManyBytes:
                    out.truncate(0)
                    raise self._other_bytes(file) from None

    def _place(self, file: RemoteFile, commit: str) -> str:
        return self._dialect.place(self.model_id, commit, file.name)

    @contextmanager
    def _answer(
        self,
        method: str,
        place: str,
        headers: dict[str, str] | None = None,
        *,
        of_file: bool = False,
    ) -> Iterator[Sequence[Any]]:
        """Yield the response, after those that redirected to it; its content has not been read."""
        from requests.exceptions import TooManyRedirects

        url, headers = self._address.endpoint + place, self._credentials | (headers or {})
        steps: list[Any] = []
        try:
            for _ in range(MOST_REDIRECTS + 1):
                steps.append(self._ask(method, url, headers))
                target = steps[-1].headers.get("Location")
                if steps[-1].status_code not in REDIRECTS or target is None:
                    break
                steps[-1].close()
                before, url = url, urljoin(url, target)
                if self._session.should_strip_auth(before, url):
                    headers = {k: v for k, v in headers.items() if k not in self._credentials}
            else:
                raise TooManyRedirects
            if steps[-1].status_code not in (200, 206):
                raise self._refusal(steps[-1].status_code, self._cause(steps[-1], of_file))
            if steps[-1].headers.get("Content-Encoding", "identity") != "identity":
                raise self._no_hub()
            yield steps
        finally:
            for step in steps:
                step.close()

    def _cause(self, response: Any, of_file: bool) -> str:
        """Return why the hub refuses a place, empty where only the status says it."""
        try:
            content = b"".join(self._parts(response, MOST_REFUSAL))
        except _TooManyBytes:
            content = b""
        cause = self._dialect.cause(response.headers, content)
        # The hub has the model, because it has listed the file.
        return cause or (NO_ENTRY if of_file and response.status_code == 404 else "")

    def _refusal(self, status: int, cause: str) -> Exception:
        return refusal(status, cause, self.shown, self._address)

    def _ask(self, method: str, url: str, headers: dict[str, str]) -> Any:
        """Return the beginning of an answer, or raise Timeout where it does not come in time.

        subtle: the timeout of requests holds for each part of it, and a part may be one byte. So
        another thread waits, and is left behind.
        """
        from requests.exceptions import Timeout

        came = SimpleQueue[Any]()

        def wait() -> None:
            try:
                came.put(
                    self._session.request(
                        method,
                        url,
                        headers=headers,
                        timeout=TIMEOUT_S,
                        stream=True,
                        allow_redirects=False,
                    )
                )
            except Exception as error:
                came.put(error)

        Thread(target=wait, daemon=True).start()
        try:
            found = came.get(timeout=PATIENCE_S)
        except Empty:
            raise Timeout from None
        if isinstance(found, Exception):
            raise found
        return found

    def _parts(self, response: Any, most: int) -> Iterator[bytes]:
        """Yield the content as it comes; raises where it is longer than `most` or too slow."""
        started, came = self._clock(), 0
        # subtle: read1 returns what there is. read would wait for a whole block of a slow hub.
        while block := response.raw.read1(CHUNK):
            came += len(block)
            if came > most:
                raise _TooManyBytes
            yield block
            waited = self._clock() - started
            if waited > PATIENCE_S and came < waited * LEAST_RATE:
                raise by_hand(
                    "{shown} sends less than {least} bytes a second; try later, or another hub: {other}; "
                    "what has come is kept and resumed",
                    shown=self.shown,
                    least=LEAST_RATE,
                    other=other_hubs(self.model_id),
                )

    def _no_hub(self) -> Exception:
        return by_hand(
            "{shown} does not answer as a model hub does: check the endpoint", shown=self.shown
        )

    def _other_bytes(self, file: RemoteFile) -> Exception:
        return by_hand(
            "{name} of {model_id} is not the file that {shown} lists: size or checksum differ;"
            " try again",
            name=file.name,
            model_id=self.model_id,
            shown=self.shown,
        )


def _without_password(endpoint: str) -> str:
    """Return an address without the user name and password that may be in it."""
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class _TooManyBytes(ValueError):
    pass
