"""A ModelScope hub on this machine, with one model; it answers as the public one was observed to answer."""

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.stand_in_hub import MODEL, NEEDED, NOT_NEEDED

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
API = f"/api/v1/models/{MODEL}"


class StandInModelScope(ThreadingHTTPServer):
    """A server with the three routes of ModelScope that an export asks, for one model."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = NEEDED | NOT_NEEDED
        self.branches = {"master": COMMIT}
        self.cut: dict[str, int] = {}  # name -> bytes after which the connection is closed
        self.spoilt: set[str] = set()  # files sent with other content of the same size
        self.absent: set[str] = set()  # files that are listed and not there
        self.code = 0  # of a refusal instead of every list
        self.answers: dict[str, Any] = {}  # instead of the data of "commits" or "repo/files"
        self.large_files_at = ""
        self.seen: list[tuple[str, dict[str, str], dict[str, str]]] = []  # path, query, headers

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def sent(self) -> list[str]:
        """Names of the files that were asked for."""
        return [query["FilePath"] for _, query, _ in self.seen if "FilePath" in query]


class _Handler(BaseHTTPRequestHandler):
    server: StandInModelScope

    def do_GET(self) -> None:
        hub, split = self.server, urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(split.query).items()}
        hub.seen.append((split.path, query, {k.lower(): v for k, v in self.headers.items()}))
        if hub.code and split.path != f"{API}/repo":
            self._refuse(hub.code)
        elif split.path == f"{API}/commits":
            # The public hub answers master where the parameter is misspelled.
            commit = hub.branches.get(query.get("Ref", "master"))
            self._data(
                {"Commit": [{"Id": commit}] if commit else None, "TotalCount": int(bool(commit))}
            )
        elif split.path == f"{API}/repo/files" and query["Revision"] == COMMIT:
            self._data(
                {"Files": self._list(), "LatestCommitter": {"Id": "", "ShortId": COMMIT[:8]}}
            )
        elif split.path == f"{API}/repo/files":
            self._refuse(10990101004)
        elif split.path == f"{API}/repo" and query["FilePath"] in hub.files.keys() - hub.absent:
            self._send_file(query["FilePath"])
        else:
            self._refuse(10010205001)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _list(self) -> list[dict[str, Any]]:
        folders = {name.rpartition("/")[0] for name in self.server.files} - {""}
        return [
            *({"Path": name, "Type": "tree", "Size": 0, "Sha256": ""} for name in folders),
            *(
                {
                    "Name": name.rpartition("/")[2],
                    "Path": name,
                    "Type": "blob",
                    "Size": len(content),
                    "Sha256": hashlib.sha256(content).hexdigest(),
                    "Revision": "f" * 40,
                    "IsLFS": name.endswith(".safetensors"),
                }
                for name, content in self.server.files.items()
            ),
        ]

    def _data(self, data: Any) -> None:
        data = self.server.answers.get(urlsplit(self.path).path.removeprefix(f"{API}/"), data)
        self._send(200, json.dumps({"Code": 200, "Success": True, "Data": data}).encode(), {})

    def _refuse(self, code: int) -> None:
        self._send(
            404, json.dumps({"Code": code, "Success": False, "Message": "失败"}).encode(), {}
        )

    def _send_file(self, name: str) -> None:
        hub, content = self.server, self.server.files[name]
        if name.endswith(".safetensors") and hub.large_files_at:
            self._send(302, b"", {"Location": f"{hub.large_files_at}{self.path}"})
            return
        if name in hub.spoilt:
            content = bytes(len(content))
        first = int(self.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        span = f"bytes {first}-{len(content) - 1}/{len(content)}"
        # The public hub sends a part with status 200.
        cut = max(0, hub.cut.get(name, len(content)) - first)
        self._send(200, content[first:], {"Content-Range": span} if first else {}, cut)

    def _send(
        self, status: int, content: bytes, headers: dict[str, str], cut: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content[:cut])
