"""A server whose queue is full, and a way past it: the first request meets it, the others do not.

What the client gets is the server's own refusal, in the form that the client asked in.
"""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from processes import post, serving

# Longer than the model reads, so each is cut to 512 tokens.
LONG = "天" * 600
TEXTS = 16
QUEUE_TOKENS = TEXTS * 512
# One is computed, one waits and fills the queue, one takes its place.
FILLERS = 3
TRIES = 200


@contextlib.contextmanager
def busy() -> Iterator[str]:
    """The address of a server whose queue is full nearly all the time."""
    tokens = str(QUEUE_TOKENS)
    limits = ("--interactive-tokens", tokens, "--interactive-queue-tokens", tokens)
    with serving("--lanes", "1", "--batch-tokens", tokens, *limits) as url:
        over = threading.Event()
        fillers = [threading.Thread(target=_fill, args=(url, over)) for _ in range(FILLERS)]
        for each in fillers:
            each.start()
        try:
            yield url
        finally:
            over.set()
            for each in fillers:
                each.join()


def _fill(url: str, over: threading.Event) -> None:
    body = json.dumps({"texts": [LONG] * TEXTS}).encode()
    while not over.is_set():
        status, _, _ = post(url, "/embed", body)
        if status == 429:
            over.wait(0.01)


class Doorway(ThreadingHTTPServer):
    """Hands the first request to the busy server until that refuses it, and the others to the idle one.

    statuses: what was answered. waited_s: from the refusal to the next request.
    """

    def __init__(self, busy_url: str, idle_url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.busy_url, self.idle_url = busy_url, idle_url
        self.statuses: list[int] = []
        self.retry_after_s = 0
        self.waited_s = 0.0
        self._refused_at = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(
        self, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        if not self.statuses:
            reply = self._refusal(path, body, headers)
            self.retry_after_s = int(dict(reply[1])["retry-after"])
            self._refused_at = time.monotonic()
        else:
            self.waited_s = self.waited_s or time.monotonic() - self._refused_at
            reply = post(self.idle_url, path, body, headers)
        self.statuses.append(reply[0])
        return reply

    def _refusal(
        self, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        for _ in range(TRIES):
            reply = post(self.busy_url, path, body, headers)
            if reply[0] != 200:
                break
        assert reply[0] == 429, reply
        return reply


class _Handler(BaseHTTPRequestHandler):
    server: Doorway

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        status, headers, reply = self.server.answer(
            self.path, body, {"content-type": self.headers["content-type"]}
        )
        self.send_response_only(status)
        for name, value in headers:
            if name not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def doorway(busy_url: str, idle_url: str) -> Iterator[Doorway]:
    with Doorway(busy_url, idle_url) as door:
        thread = threading.Thread(target=door.serve_forever)
        thread.start()
        try:
            yield door
        finally:
            door.shutdown()
            thread.join()
