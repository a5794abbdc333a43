"""A model hub on this machine, with one model, that fails when a test asks it to."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar
from urllib.parse import unquote, urlsplit

Hub = TypeVar("Hub", bound=ThreadingHTTPServer)
MODEL = "someone/tiny-model"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = bytes(range(256)) * 400
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
NEEDED = {
    "config.json": b'{"model_type": "bert"}',
    "modules.json": json.dumps(MODULES).encode(),
    "1_Pooling/config.json": b'{"pooling_mode_cls_token": true}',
    "sentence_bert_config.json": b'{"max_seq_length": 512}',
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer_config.json": b"{}",
    "vocab.txt": "[PAD]\n墨\n池\n".encode(),
    "model.safetensors": WEIGHTS,
}
NOT_NEEDED = {
    ".gitattributes": b"",
    "README.md": b"# Tiny",
    "modeling_tiny.py": b"raise SystemExit",
    "onnx/model.onnx": b"onnx",
    "onnx/config.json": b"{}",
    "pytorch_model.bin": b"pickle",
    "tf_model.h5": b"h5",
}
LARGE = ("model.safetensors", "pytorch_model.bin")


class StandInHub(ThreadingHTTPServer):
    """A server with the routes that huggingface_hub uses, for one model.

    large files are announced with their sha256, as Git LFS files are, the others with git's sha1.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model = MODEL
        self.files = NEEDED | NOT_NEEDED
        self.lists_digests = True
        self.cut: dict[str, int] = {}  # name -> bytes after which the connection is closed
        self.spoilt: set[str] = set()  # files sent with other content of the same size
        self.refusal: tuple[int, dict[str, str]] | None = None
        self.answer: bytes | None = None  # instead of the list of files
        self.checks_ranges = True
        self.absent: set[str] = set()  # files that are listed and not there
        self.large_files_at = ""
        self.etag = ""  # instead of each file's own
        self.listed_sizes: dict[str, int] = {}  # instead of the files' own
        self.endless: set[str] = set()  # files without a length that never end
        self.redirects_to = ""  # where every answer redirects to; "self" for the same place
        self.headers: dict[str, str] = {}  # of every answer
        self.seen: list[tuple[str, str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def sent(self, method: str = "GET") -> list[str]:
        """Names of the files that were asked for."""
        return [path for verb, path, _ in self.seen if verb == method and path in self.files]


class _Handler(BaseHTTPRequestHandler):
    server: StandInHub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        resolved = f"/{hub.model}/resolve/{COMMIT}/"
        name = path.removeprefix(resolved)
        hub.seen.append((self.command, name, {k.lower(): v for k, v in self.headers.items()}))
        if hub.redirects_to:
            to = hub.redirects_to.replace("self", self.path)
            self._send(302, b"", {"Location": to}, body=body)
        elif hub.refusal:
            self._send(hub.refusal[0], b"", hub.refusal[1], body=body)
        elif path == f"/api/models/{hub.model}/revision/main":
            self._send(200, self._list() if hub.answer is None else hub.answer, {}, body=body)
        elif path.startswith(f"/api/models/{hub.model}/revision/"):
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"}, body=body)
        elif name in hub.absent:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body=body)
        elif path.startswith(resolved) and name in hub.files:
            self._send_file(name, body=body)
        else:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, body=body)

    def _list(self) -> bytes:
        siblings: list[dict[str, object]] = [{"rfilename": name} for name in self.server.files]
        for sibling in siblings if self.server.lists_digests else ():
            name = str(sibling["rfilename"])
            content = self.server.files[name]
            size = self.server.listed_sizes.get(name, len(content))
            sibling |= {"size": size, "blobId": git_sha1(content)}
            if name in LARGE:
                sha256 = hashlib.sha256(content).hexdigest()
                sibling["lfs"] = {"size": size, "sha256": sha256, "pointerSize": 134}
        return json.dumps({"id": self.server.model, "sha": COMMIT, "siblings": siblings}).encode()

    def _send_file(self, name: str, *, body: bool) -> None:
        hub, content = self.server, self.server.files[name]
        digest = hashlib.sha256(content).hexdigest() if name in LARGE else git_sha1(content)
        digest = hub.etag or digest
        if name in hub.endless:
            self._send_without_end(digest, body=body)
            return
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if name in LARGE and hub.large_files_at:
            headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
            headers["Location"] = f"{hub.large_files_at}{self.path}"
            self._send(302, b"", headers | {"Content-Length": "0"}, body=False)
            return
        if name in hub.spoilt:
            content = bytes(len(content))
        first = int(self.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        if first >= len(content) and hub.checks_ranges:
            self._send(416, b"", {}, body=body)
            return
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        cut = max(0, hub.cut.get(name, len(content)) - first)
        self._send(206 if first else 200, content[first:], headers, body=body, cut=cut)

    def _send_without_end(self, digest: str, *, body: bool) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("ETag", f'"{digest}"')
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            while body:
                self.wfile.write(bytes(1 << 16))

    def _send(
        self,
        status: int,
        content: bytes,
        headers: dict[str, str],
        *,
        body: bool,
        cut: int | None = None,
    ) -> None:
        self.send_response(status)
        length = {"Content-Length": str(len(content))}
        for key, value in (length | self.server.headers | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content[:cut])


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def run(hub: Hub) -> Iterator[Hub]:
    """Serve while the block runs."""
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield hub
    hub.shutdown()
    thread.join()
    hub.server_close()
