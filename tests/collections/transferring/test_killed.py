"""Transfers between this server's disk and a real PostgreSQL, whose server, command or database is killed meanwhile."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from server.databases.address import variable
from tests.support.fakes import eventually
from tests.support.postgres import NEWEST, PASSWORD, PostgresServer, postgres_server, programs
from tests.support.processes import Server, environment, serving

pytest.importorskip("pg8000", reason="the client of PostgreSQL is not installed")
if programs(NEWEST) is None:
    pytest.skip("the programs of PostgreSQL are not installed", allow_module_level=True)

NUMBER = 3_000
ORDER = {"to": "there", "database": "main"}


@contextmanager
def beside(postgres: PostgresServer, artifact: Path, folder: Path) -> Iterator[Server]:
    address = f"main={postgres.url(sslmode='disable', timeout_s='5')}"
    environ = environment(**{variable("main"): PASSWORD})
    with serving(artifact, folder, "--vector-database", address, environ=environ) as server:
        yield server


def ask(server: Server, method: str, path: str, body: Any = None) -> Any:
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        response = client.request(method, path, json=body)
    assert response.status_code < 300, response.text
    return response.json()


def kill(server: Server) -> None:
    os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait()


def document(n: int, text: str = "墨池笔纸") -> dict[str, Any]:
    return {"id": str(n), "text": f"{text} {n}。" * (1 + n % 4), "metadata": {"n": n}}


def fill(server: Server, number: int = NUMBER) -> None:
    chunks = {"size": 8, "overlap": 0}
    ask(server, "POST", "/collections", {"name": "near", "chunks": chunks})
    for begin in range(0, number, 500):
        some = [document(n) for n in range(begin, min(begin + 500, number))]
        ask(server, "POST", "/collections/near/documents", {"documents": some})


def state(server: Server, name: str = "near") -> Any:
    return ask(server, "GET", f"/collections/{name}/transfer")


def ended(server: Server, name: str = "near", seconds: float = 60) -> Any:
    end_by = time.monotonic() + seconds
    while (found := state(server, name))["state"] not in ("done", "failed"):
        assert time.monotonic() < end_by, found
        time.sleep(0.05)
    return found


def everything(server: Server, name: str) -> dict[str, Any]:
    import json

    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        body = {"include_vectors": True}
        found = client.post(f"/collections/{name}/documents/export", json=body).text
    return {each["id"]: each for each in map(json.loads, found.splitlines())}


def assert_same(server: Server, one: str, other: str) -> None:
    """Compare all documents of two collections, with all vectors."""
    wanted, found = everything(server, one), everything(server, other)
    assert wanted.keys() == found.keys()
    for id, document in wanted.items():
        copy = found[id]
        assert document.keys() == copy.keys()
        for name in document.keys() - {"vector", "vectors"}:
            assert document[name] == copy[name], name
        vectors, copied = (np.atleast_2d(each.get("vectors") or each["vector"]) for each in (document, copy))
        cosines = (vectors * copied).sum(1) / (
            np.linalg.norm(vectors, axis=1) * np.linalg.norm(copied, axis=1)
        )
        assert cosines.min() >= 0.99999


def test_killed_server_goes_on(toy_artifact: Path, tmp_path: Path) -> None:
    with postgres_server(NEWEST) as postgres:
        with beside(postgres, toy_artifact, tmp_path) as server:
            fill(server)
            kill(server)
        done = 0
        for moment in (0.05, 0.3, 0.6):
            with beside(postgres, toy_artifact, tmp_path) as server:
                begun = ask(server, "POST", "/collections/near/transfer", ORDER)
                time.sleep(moment)
                if state(server)["state"] == "running":
                    done = max(done, state(server)["done"])
                ask(server, "POST", "/collections/near/documents/delete", {"ids": [str(int(moment * 100))]})
                kill(server)
        print("before the last run", done, begun)
        with beside(postgres, toy_artifact, tmp_path) as server:
            ask(server, "POST", "/collections/near/transfer", ORDER)
            found = ended(server)
            assert found["state"] == "done", found
            assert found["done"] == NUMBER - 3 == found["total"]
            assert found["others"] == 0
            print(found)
            assert_same(server, "near", "there")
            back = {"to": "back"}
            ask(server, "POST", "/collections/there/transfer", back)
            assert ended(server, "there")["state"] == "done"
            assert_same(server, "near", "back")
