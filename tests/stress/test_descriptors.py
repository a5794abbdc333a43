"""No file descriptor left: RLIMIT_NOFILE of a running server, set to what it has open."""

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.fakes import eventually
from tests.support.processes import Server, serving

pytestmark = [pytest.mark.slow, pytest.mark.stress]
DOCUMENTS = [{"id": str(number), "text": f"墨池 {number}"} for number in range(50)]


def forbid_more_files(server: Server) -> None:
    pid = server.process.pid
    highest = max(map(int, os.listdir(f"/proc/{pid}/fd")))
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, hard))


def served(client: httpx.Client) -> bool:
    """Return whether the client has, or gets, a connection."""
    with contextlib.suppress(httpx.TransportError):
        return client.get("/health", timeout=2).status_code == 200
    return False


def connections(server: Server) -> Iterator[httpx.Client]:
    """New ones until the server takes no more."""
    while True:
        client = server.client()
        if not served(client):
            client.close()
            return
        yield client


def test_without_descriptors_open_connections_are_served_and_closed_ones_make_room(
    toy_artifact: Path, tmp_path: Path
) -> None:
    with serving(toy_artifact, tmp_path) as server, server.client() as client:
        assert client.post("/documents", json={"documents": DOCUMENTS}).status_code == 200
        query = {"query": "墨池 7", "top_k": 3}
        usual = client.post("/search", json=query).json()["hits"]
        others = [server.client() for _ in range(20)]
        assert all(map(served, others))
        forbid_more_files(server)
        # There may be free numbers below the limit.
        others += connections(server)
        assert len(others) < 40

        for _ in range(20):
            assert all(map(served, others))
            answer = client.post("/embed", json={"texts": ["墨池"]})
            assert answer.status_code == 200
            assert client.post("/search", json=query).json()["hits"] == usual
            more = [{"id": "more", "text": "书画"}]
            assert client.post("/documents", json={"documents": more}).status_code == 200

        for other in others[:10]:
            other.close()
        with server.client() as late:
            eventually(lambda: served(late))
            assert late.post("/search", json=query).json()["hits"] == usual
        for other in others:
            other.close()
        assert server.process.poll() is None
