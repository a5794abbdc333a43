"""One client must not stop the others: requests that cost much, and the longest wait for /health beside each.

Another process asks for /health all the while. `-s` shows a line of JSON for each attack.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.net.test_socket import connect, request
from tests.support.processes import Server, environment, serving

pytestmark = [pytest.mark.slow, pytest.mark.stress]
MEGABYTE = 1 << 20
# A server on a quiet machine answers within 100 ms. The attackers here take cores from it too.
WORST_S = 0.5
AS_JSON = {"content-type": "application/json"}
# Two connections that ask again and again; whenever a line is read, the seconds of each since the last.
PROBE = """
import http.client, json, sys, threading, time
host, port = sys.argv[1], int(sys.argv[2])
waits = {"health": [], "search": []}
lock = threading.Lock()
def ask(kind, method, path, body):
    connection = http.client.HTTPConnection(host, port, timeout=60)
    while True:
        started = time.perf_counter()
        connection.request(method, path, body, {"content-type": "application/json"})
        reply = connection.getresponse()
        reply.read()
        assert reply.status == 200, reply.status
        with lock:
            waits[kind].append(time.perf_counter() - started)
        time.sleep(0.01)
search = json.dumps({"query": "墨池 7", "top_k": 3})
for asked in (("health", "GET", "/health", None), ("search", "POST", "/search", search)):
    threading.Thread(target=ask, args=asked, daemon=True).start()
for _ in sys.stdin:
    time.sleep(0.1)
    with lock:
        print(json.dumps(waits), flush=True)
        for found in waits.values():
            found.clear()
"""


@dataclass
class Probe:
    """Waits for /health and for a plain search, as another process measures them."""

    process: "subprocess.Popen[str]"

    def waits(self) -> tuple[list[float], list[float]]:
        """Return the seconds of each health check, and of each search, since the last call."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        found = json.loads(self.process.stdout.readline())
        return found["health"], found["search"]


@pytest.fixture(scope="module")
def server(toy_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(toy_artifact, tmp_path_factory.mktemp("stalls")) as started:
        with started.client() as client:
            fill(client)
        yield started
        assert "Traceback" not in started.log.read_text()


@pytest.fixture(scope="module")
def probe(server: Server) -> Iterator[Probe]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROBE, server.host, str(server.port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    yield Probe(process)
    process.kill()
    process.communicate()


def fill(client: httpx.Client) -> None:
    """Store 4,000 short documents, and 200 long ones that stay whole."""
    short: list[dict[str, Any]] = [
        {
            "id": str(n),
            "text": f"墨池 {n} " + "风花雪鸟鱼虫" * 30,
            "metadata": {f"k{key}": (n * key) % 97 for key in range(12)},
        }
        for n in range(4_000)
    ]
    for start in range(0, len(short), 1_000):
        body = {"documents": short[start : start + 1_000]}
        assert client.post("/documents", json=body).status_code == 200
    assert client.post("/collections", json={"name": "long", "chunks": None}).status_code == 201
    long = [{"id": str(n), "text": f"a{n} " + "ab cd ef " * 11_000} for n in range(200)]
    for start in range(0, len(long), 50):
        body = {"documents": long[start : start + 50]}
        assert client.post("/collections/long/documents", json=body).status_code == 200


def flood(server: Server, clients: int, seconds: float, ask: Callable[[httpx.Client], int]) -> Any:
    """Let several clients ask again and again; count the statuses."""
    until = time.monotonic() + seconds

    def one(_: int) -> list[int]:
        found = []
        with server.client() as client:
            while time.monotonic() < until:
                found.append(ask(client))
        return found

    with ThreadPoolExecutor(clients) as pool:
        return Counter(status for found in pool.map(one, range(clients)) for status in found)


def post(path: str, body: Any) -> Callable[[httpx.Client], int]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda client: client.post(path, content=content, headers=AS_JSON).status_code


def peak(server: Server) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) >> 10


TERMS = {"$and": [{f"k{n % 12}": {"$ne": 1_000 + n}} for n in range(256)]}
QUESTION = "墨池风花雪鸟"
ATTACKS: dict[str, tuple[int, float, Callable[[httpx.Client], int]]] = {
    "48 queries, 1,000 hits, highlight": (
        4,
        6.0,
        post(
            "/search",
            {"queries": [QUESTION] * 48, "top_k": 1_000, "mode": "lexical", "highlight": True},
        ),
    ),
    "highlight in long documents": (
        4,
        6.0,
        post(
            "/collections/long/search",
            {"query": "ab cd", "top_k": 600, "mode": "lexical", "highlight": True},
        ),
    ),
    "256 queries, 1,000 hits": (
        4,
        6.0,
        post("/search", {"queries": [f"墨池{n}" for n in range(256)], "top_k": 1_000}),
    ),
    "large pages": (8, 6.0, lambda client: client.get("/documents?limit=1000").status_code),
    "filters of 256 terms": (64, 8.0, post("/search", {"query": "墨", "filter": TERMS})),
    "counts with 256 terms": (64, 6.0, post("/documents/count", {"filter": TERMS})),
    "one-letter documents": (
        2,
        6.0,
        post(
            "/documents",
            b'{"documents":[' + b",".join([b'{"text":"a"}'] * 2_400_000) + b"]}",
        ),
    ),
    "ids to delete": (
        2,
        6.0,
        post("/documents/delete", b'{"ids":[' + b",".join([b"1"] * 16_000_000) + b"]}"),
    ),
    "ids to delete, as texts": (
        2,
        6.0,
        post("/documents/delete", b'{"ids":[' + b",".join([b'"a"'] * 2_000_000) + b"]}"),
    ),
    "a long key over many values": (
        2,
        3.0,
        post(
            "/documents",
            {"documents": [{"text": "a", "metadata": {"k" * 100_000: list(range(11_000))}}]},
        ),
    ),
    "a long title before many parts": (
        2,
        3.0,
        post("/documents", {"documents": [{"text": "墨池。" * 300_000, "title": "题" * 100_000}]}),
    ),
    "nested lists": (
        2,
        3.0,
        post("/documents/count", b'{"filter":{"$and":[' + b"{}," * 95_000 + b"{}]}}"),
    ),
}
REFUSED = {400, 413, 429}


@pytest.mark.parametrize("attack", ATTACKS)
def test_health_is_answered_beside_each_attack(server: Server, probe: Probe, attack: str) -> None:
    clients, seconds, ask = ATTACKS[attack]
    probe.waits()
    statuses = flood(server, clients, seconds, ask)
    health, searches = probe.waits()
    show(attack, server, health, searches, statuses)
    assert set(statuses) <= {200, *REFUSED}
    # An empty list: it waited all the time.
    assert max(health, default=seconds) < WORST_S
    assert max(searches, default=seconds) < 4 * WORST_S


def show(
    attack: str, server: Server, health: list[float], searches: list[float], statuses: Any
) -> None:
    def worst(waits: list[float]) -> dict[str, int]:
        ordered = sorted(waits) or [0.0]
        places = {"p50": len(ordered) // 2, "p99": len(ordered) * 99 // 100, "worst": -1}
        return {name: round(1_000 * ordered[place]) for name, place in places.items()}

    found = {
        "attack": attack,
        "health_ms": worst(health),
        "search_ms": worst(searches),
        "statuses": dict(statuses),
        "peak_mb": peak(server),
    }
    sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")


def test_replies_that_are_not_taken_have_a_bound(server: Server, probe: Probe) -> None:
    probe.waits()
    path = "/collections/long/documents?limit=1000"
    slow = [connect(server, 4096) for _ in range(40)]
    for each in slow:
        each.sendall(request(path))
        time.sleep(0.1)
    time.sleep(1.0)
    with server.client() as client:
        last = client.get(path).status_code
        assert client.get("/documents?limit=10").status_code == 200
    for each in slow:
        each.close()
    health, searches = probe.waits()
    show("replies not taken", server, health, searches, {last: 1})
    assert last == 429
    assert max(health) < WORST_S
    assert peak(server) < 1_200
