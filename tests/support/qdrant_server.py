"""A server with Qdrant's HTTP API over what its client does in a folder, with the limits of a real one.

So the whole suite takes the way of a server: requests and answers as JSON, pages, and writes that wait. What it
cannot show is the search of a real server, which may be approximate.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

# `service.max_request_size_mb`, and how deep its reader of JSON goes.
MAX_BODY, MAX_DEPTH = 32 << 20, 128
# What is longer are documents: a filter is a megabyte at most.
FLAT = 1 << 20
Answer = tuple[int, Any]


class QdrantServer(ThreadingHTTPServer):
    """Listens on 127.0.0.1. key: without which it answers nothing."""

    daemon_threads = True

    def __init__(self, folder: str, key: str) -> None:
        from qdrant_client import QdrantClient

        super().__init__(("127.0.0.1", 0), _Handler)
        self.client = QdrantClient(path=folder)
        self.key = key
        self.turn = Lock()
        self.indexes: dict[str, dict[str, str]] = {}

    def answer(self, method: str, path: str, query: Mapping[str, list[str]], body: Any) -> Answer:
        with self.turn:
            match method, [unquote(part) for part in path.strip("/").split("/")]:
                case "GET", [""]:
                    return 200, {"title": "qdrant - vector search engine", "version": "1.20.0"}
                case "GET", ["collections"]:
                    return 200, _plain(self.client.get_collections())
                case _, ["collections", name, *rest]:
                    return self._of_collection(method, name, rest, query, body)
        return 404, "no such path"

    def _of_collection(
        self, method: str, name: str, rest: list[str], query: Mapping[str, list[str]], body: Any
    ) -> Answer:
        from qdrant_client import models

        client = self.client
        there = client.collection_exists(name)
        match method, rest:
            case "GET", ["exists"]:
                return 200, {"exists": there}
            case "PUT", []:
                if there:
                    return 409, f"Collection `{name}` already exists!"
                made = models.CreateCollection.model_validate(body)
                client.create_collection(
                    name, made.vectors, made.sparse_vectors, metadata=made.metadata
                )
                return 200, True
            case "DELETE", []:
                self.indexes.pop(name, None)
                return 200, client.delete_collection(name)
        if not there:
            return 404, f"Not found: Collection `{name}` doesn't exist!"
        if rest in (["index"], ["points"], ["points", "delete"]) and query.get("wait") != ["true"]:
            return 400, "a write that does not wait: a read after it may not see it"
        done = {"operation_id": 1, "status": "completed"}
        match method, rest:
            case "GET", []:
                return 200, _plain(client.get_collection(name))
            case "PUT", ["index"]:
                self.indexes.setdefault(name, {})[body["field_name"]] = body["field_schema"]
                return 200, done
            case "PUT", ["points"]:
                client.upsert(name, models.PointsList.model_validate(body).points)
                return 200, done
            case "POST", ["points", "delete"]:
                selector = models.PointIdsList if "points" in body else models.FilterSelector
                client.delete(name, selector.model_validate(body))
                return 200, done
            case "POST", ["points", "count"]:
                asked = models.CountRequest.model_validate(body)
                if not asked.exact:
                    return 400, "a count that is not exact"
                return 200, _plain(client.count(name, asked.filter))
            case "POST", ["points", "scroll"]:
                asked = models.ScrollRequest.model_validate(body)
                points, following = client.scroll(
                    name,
                    asked.filter,
                    asked.limit or 10,
                    offset=asked.offset,
                    with_payload=asked.with_payload,
                    with_vectors=asked.with_vector or False,
                )
                return 200, {
                    "points": [_plain(point) for point in points],
                    "next_page_offset": following,
                }
            case "POST", ["points", "query"]:
                asked = models.QueryRequest.model_validate(body)
                found = client.query_points(
                    name,
                    asked.query,
                    using=asked.using,
                    prefetch=asked.prefetch,
                    query_filter=asked.filter,
                    limit=asked.limit or 10,
                    with_payload=asked.with_payload,
                )
                return 200, _plain(found)
        return 404, "no such path"


class _Handler(BaseHTTPRequestHandler):
    server: QdrantServer
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length", "0"))
        text = self.rfile.read(length)
        status, result = self._answer(parts.path, parse_qs(parts.query), text)
        body: object = (
            result if parts.path == "/" else {"result": result, "status": "ok", "time": 0.0}
        )
        if status != 200:
            body = {"status": {"error": result}, "time": 0.0}
        written = json.dumps(body, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(written)))
        self.end_headers()
        self.wfile.write(written)

    do_GET = do_PUT = do_POST = do_DELETE = _serve

    def _answer(self, path: str, query: Mapping[str, list[str]], text: bytes) -> Answer:
        if self.headers.get("api-key") != self.server.key:
            return 401, "Must provide an API key or an Authorization bearer token"
        if len(text) > MAX_BODY:
            return 413, f"Payload is larger than allowed (limit: {MAX_BODY} bytes)"
        if len(text) < FLAT and _depth(text) > MAX_DEPTH:
            return 400, "recursion limit exceeded"
        try:
            return self.server.answer(self.command, path, query, json.loads(text) if text else None)
        except ValueError as error:
            return 400, f"Bad request: {error}"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def running(folder: str, key: str) -> Iterator[QdrantServer]:
    """Serve what is in a folder until the block ends."""
    server = QdrantServer(folder, key)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        server.client.close()


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json", exclude_none=True)


def _depth(text: bytes) -> int:
    """Return how deep a JSON text is nested."""
    depth = deepest = 0
    quoted = escaped = False
    for byte in text:
        if quoted:
            quoted, escaped = escaped or byte != 0x22, not escaped and byte == 0x5C
        elif byte == 0x22:
            quoted = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest
