"""A real server and a real PostgreSQL, either of which is killed while clients write: nothing acknowledged is lost."""

import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.databases.address import variable
from tests.support.fakes import eventually
from tests.support.postgres import NEWEST, PASSWORD, PostgresServer, postgres_server, programs
from tests.support.processes import Server, environment, serving

pytest.importorskip("pg8000", reason="the client of PostgreSQL is not installed")
if programs(NEWEST) is None:
    pytest.skip("the programs of PostgreSQL are not installed", allow_module_level=True)

WRITERS = 3


@contextmanager
def beside(postgres: PostgresServer, artifact: Path, folder: Path) -> Iterator[Server]:
    address = f"main={postgres.url(sslmode='disable', timeout_s='2')}"
    environ = environment(**{variable("main"): PASSWORD})
    with serving(artifact, folder, "--vector-database", address, environ=environ) as server:
        yield server


class Writer:
    """Writes documents one after the other until it is stopped; text: of each id, as last acknowledged."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.acknowledged: dict[str, str | None] = {}
        # What was sent without an answer: it may be there or not.
        self.unsure: dict[str, set[str | None]] = {}
        self.queued = 0
        self._random = random.Random(number)
        self._round = 0

    def write(self, url: str, stop: threading.Event) -> None:
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            while not stop.is_set():
                self._round += 1
                id = f"{self.number}-{self._random.randrange(40)}"
                text = None if self._random.random() < 0.2 else f"墨池 {id} {self._round}"
                try:
                    response = self._send(client, id, text)
                except httpx.TransportError:
                    self.unsure.setdefault(id, set()).add(text)
                    return
                if response.status_code == 200:
                    self.acknowledged[id] = text
                    self.unsure.pop(id, None)
                    self.queued += "queued" in response.json()
                elif text is None and response.status_code == 404:
                    self.acknowledged[id] = None
                    self.unsure.pop(id, None)
                else:
                    assert response.status_code == 503, response.text

    def _send(self, client: httpx.Client, id: str, text: str | None) -> httpx.Response:
        path = "/collections/far/documents"
        if text is None:
            return client.delete(f"{path}/{id}")
        return client.post(path, json={"documents": [{"id": id, "text": text}]})


def stored(server: Server) -> dict[str, str]:
    """Return the text of every document, as a list of all has them."""
    found: dict[str, str] = {}
    with server.client() as client:
        after = "0"
        while after is not None:
            page = client.get(f"/collections/far/documents?limit=50&after={after}").json()
            found.update((each["id"], each["text"]) for each in page["documents"])
            after = page["next"]
    return found


def waiting(server: Server) -> dict[str, Any]:
    with server.client() as client:
        found: dict[str, Any] = client.get("/collections/far/outbox").json()
        return found


def test_nothing_acknowledged_is_lost_whoever_is_killed(toy_artifact: Path, tmp_path: Path) -> None:
    writers = [Writer(number) for number in range(WRITERS)]
    with postgres_server(NEWEST) as postgres:
        with beside(postgres, toy_artifact, tmp_path) as server, server.client() as client:
            made = client.post("/collections", json={"name": "far", "database": "main"})
            assert made.status_code == 201, made.text
        for round in range(3):
            with beside(postgres, toy_artifact, tmp_path) as server:
                stop = threading.Event()
                threads = [
                    threading.Thread(target=each.write, args=(server.url, stop)) for each in writers
                ]
                for thread in threads:
                    thread.start()
                threading.Event().wait(1.5)
                postgres.stop(signal.SIGQUIT)
                threading.Event().wait(1.5)
                if round % 2:
                    postgres.start()
                    threading.Event().wait(0.5)
                # With what waits, and in the middle of requests.
                server.kill()
                stop.set()
                for thread in threads:
                    thread.join()
                if not round % 2:
                    postgres.start()
        assert sum(each.queued for each in writers) > 0
        with beside(postgres, toy_artifact, tmp_path) as server:
            eventually(lambda: waiting(server)["waiting"] == 0)
            found = stored(server)
            assert waiting(server)["refused"] is None
    acknowledged = {id: text for each in writers for id, text in each.acknowledged.items()}
    unsure = {id: texts for each in writers for id, texts in each.unsure.items()}
    lost = {
        id: (text, found.get(id))
        for id, text in acknowledged.items()
        if found.get(id) != text and found.get(id) not in unsure.get(id, set())
    }
    assert lost == {}
    invented = found.keys() - acknowledged.keys() - unsure.keys()
    assert invented == set()


def test_database_that_comes_back_is_found_again(toy_artifact: Path, tmp_path: Path) -> None:
    with postgres_server(NEWEST) as postgres, beside(postgres, toy_artifact, tmp_path) as server:
        with server.client() as client:
            client.post("/collections", json={"name": "far", "database": "main"})
            body: dict[str, Any] = {"documents": [{"id": "a", "text": "墨池笔纸"}]}
            assert "queued" not in client.post("/collections/far/documents", json=body).json()
            postgres.stop()
            body = {"documents": [{"id": "b", "text": "山川湖海"}]}
            assert client.post("/collections/far/documents", json=body).json()["queued"] is True
            refused = client.post("/collections/far/search", json={"query": "墨池"})
            assert refused.status_code == 503
            assert PASSWORD not in refused.text
            postgres.start()
            eventually(lambda: waiting(server)["waiting"] == 0)
            for mode in ("dense", "lexical", "hybrid"):
                body = {"query": "山川湖海", "mode": mode}
                found = client.post("/collections/far/search", json=body).json()
                assert found["hits"][0]["id"] == "b", mode
        assert PASSWORD not in server.log.read_text()
