"""A server with a collection of given vectors, killed at random while it compacts, saves, restores and renames.

Batches come until the index has codes, and then one comes as the oldest goes; so the server compacts again and
again. ROUNDS kills, 12 unless given: `ROUNDS=100 make test-stress ARGS=tests/stress/test_kills.py`. SEED gives
another run.
"""

import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from server.store.folder import INDEX, DataFolder
from server.store.local_index.index import SCAN_FROM
from server.store.search import Query, search
from server.store.upkeep.integrity import faults_of
from server.types import Vectors
from tests.support.administration import OCTETS
from tests.support.processes import Server, serving

pytestmark = [pytest.mark.slow, pytest.mark.stress]
ROUNDS = int(os.environ.get("ROUNDS", "12"))
SEED = int(os.environ.get("SEED", "1"))
BATCH, D = 1000, 16
MOST_BATCHES = 2 * SCAN_FROM // BATCH
NAME, OTHER = "given", "given-x"
Batches = frozenset[int]


def vectors_of(batch: int) -> Vectors:
    return np.random.default_rng(batch).standard_normal((BATCH, D), dtype=np.float32)


def documents_of(batch: int) -> list[dict[str, Any]]:
    rows = vectors_of(batch).tolist()
    return [
        {"id": f"{batch}-{place}", "text": "", "metadata": {"batch": batch}, "vector": row}
        for place, row in enumerate(rows)
    ]


class Client:
    """Writes, one request after the other. stored: what was acknowledged; begun: with the running request."""

    def __init__(self, choose: random.Random) -> None:
        self.stored: Batches = frozenset()
        self.begun: Batches = frozenset()
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._choose = choose
        self._next = 0
        self._name = NAME

    def run(self, server: Server) -> None:
        """Write until the server is killed."""
        try:
            with server.client() as client:
                known = [each["name"] for each in client.get("/collections").json()["collections"]]
                self._name = OTHER if OTHER in known else NAME
                while not self.wrong:
                    self._step(client)
        except httpx.TransportError:
            self.done["kills"] += 1

    def _step(self, client: httpx.Client) -> None:
        kind = self._choose.choices(("write", "rename", "restore"), (30, 3, 1))[0]
        if kind == "rename" and self.stored:
            new = OTHER if self._name == NAME else NAME
            self._send(client, "rename", json={"name": new})
            self._name = new
        elif kind == "restore" and self.stored:
            copy = self._send(client, "backup", json={})
            given: dict[str, Any] = {"content": copy.content, "headers": OCTETS}
            self._send(client, "restore", 201, params={"replace": "true"}, **given)
        elif len(self.stored) >= MOST_BATCHES:
            oldest = min(self.stored)
            self.begun = self.stored - {oldest}
            self._send(client, "documents/delete", json={"filter": {"batch": oldest}})
        else:
            self._next += 1
            self.begun = self.stored | {self._next}
            body = {"documents": documents_of(self._next), "embedder": "theirs"}
            self._send(client, "documents", json=body)
        self.stored = self.begun

    def _send(
        self, client: httpx.Client, path: str, status: int = 200, **given: Any
    ) -> httpx.Response:
        response = client.post(f"/collections/{self._name}/{path}", **given)
        if response.status_code != status:
            self.wrong.append(f"{path}: {response.status_code} {response.text[:200]}")
        self.done[path] += 1
        return response


def test_nothing_acknowledged_is_lost_whatever_runs_when_the_server_is_killed(
    toy_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    choose = random.Random(SEED)
    client, snapshots = Client(choose), 0
    with serving(toy_artifact, tmp_path) as server, server.client() as first:
        body = {"name": NAME, "embedder": "theirs", "dimension": D}
        assert first.post("/collections", json=body).status_code == 201
    for number in range(ROUNDS):
        with serving(toy_artifact, tmp_path) as server:
            thread = threading.Thread(target=client.run, args=(server,))
            thread.start()
            time.sleep(choose.uniform(0.5, 8))
            os.kill(server.process.pid, signal.SIGKILL)
            assert server.wait() == -signal.SIGKILL
            thread.join()
            assert "Traceback" not in server.log.read_text()
        assert not client.wrong
        client.stored = client.begun = check(tmp_path / "data", client, number)
        snapshots += any((tmp_path / "data").rglob("index.faiss"))
    figures = {**client.done, "batches": len(client.stored), "snapshots": snapshots}
    with capsys.disabled():
        sys.stdout.write(f"\n{json.dumps({'case': 'kills', **figures})}\n")


def check(data: Path, client: Client, number: int) -> Batches:
    """Check what a start finds, and return its batches: all that were acknowledged, and each of them whole."""
    with closing(DataFolder(data)) as folder:
        assert not folder.damaged
        ((name, collection),) = folder.collections.items()
        assert name in (NAME, OTHER)
        found = Counter(int(id.partition("-")[0]) for id in collection.documents.ids())
        assert set(found.values()) <= {BATCH}
        assert set(found) in (client.stored, client.begun), (found, client.stored, client.begun)
        assert len(collection.index) == BATCH * len(found)
        for batch in sorted(found)[:: max(1, len(found) // 5)]:
            place = number * 37 % BATCH
            query = Query("dense", 1, vectors_of(batch)[place])
            ((hit,),) = search(collection, [query])
            assert hit.id == f"{batch}-{place}" and round(hit.score, 3) == 1
        if number % 4 == 0:
            folder.close()
            assert not (faults := faults_of(data / "collections" / name, INDEX)), faults
    return frozenset(found)
