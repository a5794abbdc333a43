"""Real nodes behind a real proxy, with the examples of deploy/nodes, and clients that ask them all the time."""

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.proxies import NoProxy, Proxy, free_port
from tests.support.fakes import PATIENCE_S, eventually
from tests.support.processes import Server, serving

# Of each client. A test needs some hundreds.
MOST_REQUESTS = 20_000
TEXT = "今天天气怎么样"


@dataclass
class Node:
    """A node at a fixed port, which can be started again. server: while it runs."""

    artifact: Path
    folder: Path
    flags: tuple[str, ...]
    port: int = field(default_factory=free_port)
    server: Server | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        self.folder.mkdir(exist_ok=True)
        usual = ("--collections", "off", "--port", str(self.port), "--audit", str(self.audit))
        with serving(self.artifact, self.folder, *usual, *self.flags) as server:
            self.server = server
            yield server

    @property
    def audit(self) -> Path:
        return self.folder / "audit.jsonl"

    def served(self, route: str = "/embed") -> list[str]:
        """The ids of the requests that its audit lists, each as often as it was served."""
        if not self.audit.exists():
            return []
        # A line of a node that was killed may be cut off.
        lines = [line for line in self.audit.read_text().splitlines() if line.endswith("}")]
        records: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [each["request"] for each in records if each["route"].endswith(route)]


class Nodes:
    """Nodes, all running, behind a proxy with TLS."""

    def __init__(self, proxy: Proxy, nodes: list[Node], folder: Path, certificate: Path) -> None:
        self.nodes = nodes
        self._proxy, self._folder, self._certificate = proxy, folder, certificate
        self._trust = ssl.create_default_context(cafile=f"{certificate}.crt")
        self._stack = ExitStack()
        self.url = ""

    def __enter__(self) -> "Nodes":
        for node in self.nodes:
            self.start(node)
        self._folder.mkdir()
        ports = [node.port for node in self.nodes]
        try:
            front = self._proxy(ports, self._folder, str(self._certificate))
            self.url = f"https://127.0.0.1:{self._stack.enter_context(front).port}"
        except NoProxy as missing:
            self._stack.close()
            pytest.skip(str(missing))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def start(self, node: Node) -> None:
        self._stack.enter_context(node.running())

    def client(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.url, verify=self._trust, timeout=PATIENCE_S, trust_env=False
        )

    def load(self, clients: int = 8) -> "AbstractContextManager[Load]":
        return Load(self, clients).running()


@dataclass(frozen=True)
class Sent:
    """A request of the load. status: 0 where the connection ended without an answer."""

    id: str
    began: float
    ended: float
    status: int
    code: str = ""


class Load:
    """Clients that each send the next request when the last one is answered, with ids of their own."""

    def __init__(self, nodes: Nodes, clients: int) -> None:
        self._nodes = nodes
        self.sent: list[Sent] = []
        self._end = threading.Event()
        names = [f"load-{number}" for number in range(clients)]
        self._threads = [threading.Thread(target=self._ask, args=(name,)) for name in names]

    @contextlib.contextmanager
    def running(self) -> Iterator["Load"]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._end.set()
            for thread in self._threads:
                thread.join(PATIENCE_S)

    def _ask(self, name: str) -> None:
        with self._nodes.client() as client:
            for number in range(MOST_REQUESTS):
                if self._end.is_set():
                    return
                self.sent.append(ask(client, f"{name}-{number}"))

    def goes_on(self, more: int = 100) -> None:
        """Wait until so many more requests have been answered."""
        wanted = len(self.sent) + more
        eventually(lambda: len(self.sent) >= wanted)

    @property
    def failed(self) -> list[Sent]:
        return [each for each in self.sent if each.status != 200]


def ask(client: httpx.Client, id: str, texts: tuple[str, ...] = (TEXT,)) -> Sent:
    began = time.monotonic()
    try:
        answer = client.post("/embed", json={"texts": texts}, headers={"x-request-id": id})
    except httpx.TransportError as error:
        return Sent(id, began, time.monotonic(), 0, repr(error))
    code = "" if answer.status_code == 200 else answer.json()["error"]["code"]
    assert answer.status_code >= 502 or answer.headers["x-request-id"] == id
    return Sent(id, began, time.monotonic(), answer.status_code, code)
