"""Transfers between this server's disk and a real PostgreSQL, whose server, command or database is killed meanwhile."""

import json
import signal
import subprocess
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
from tests.support.postgres import (
    NEWEST,
    PASSWORD,
    PostgresServer,
    free_port,
    postgres_server,
    programs,
)
from tests.support.processes import Server, command, environment, serving

pytest.importorskip("pg8000", reason="the client of PostgreSQL is not installed")
if programs(NEWEST) is None:
    pytest.skip("the programs of PostgreSQL are not installed", allow_module_level=True)

NUMBER = 2_000
ORDER = {"to": "there", "database": "main"}


@contextmanager
def beside(postgres: PostgresServer, artifact: Path, folder: Path, *flags: str) -> Iterator[Server]:
    address = f"main={postgres.url(sslmode='disable', timeout_s='5')}"
    environ = environment(**{variable("main"): PASSWORD})
    given = ("--vector-database", address, *flags)
    with serving(artifact, folder, *given, environ=environ) as server:
        yield server


def document(n: int, text: str = "墨池笔纸") -> dict[str, Any]:
    return {"id": str(n), "text": f"{text} {n}。" * (1 + n % 4), "metadata": {"n": n}}


def fill(server: Server, number: int = NUMBER) -> None:
    chunks = {"size": 8, "overlap": 0}
    server.ask("POST", "/collections", {"name": "near", "chunks": chunks})
    for begin in range(0, number, 500):
        some = [document(n) for n in range(begin, min(begin + 500, number))]
        server.ask("POST", "/collections/near/documents", {"documents": some})


def state(server: Server, name: str = "near") -> Any:
    return server.ask("GET", f"/collections/{name}/transfer")


def ended(server: Server, name: str = "near", seconds: float = 60) -> Any:
    end_by = time.monotonic() + seconds
    while (found := state(server, name))["state"] not in ("done", "failed"):
        assert time.monotonic() < end_by, found
        time.sleep(0.05)
    return found


def everything(server: Server, name: str) -> dict[str, Any]:
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
        vectors, copied = (
            np.atleast_2d(each.get("vectors") or each["vector"]) for each in (document, copy)
        )
        cosines = (vectors * copied).sum(1) / (
            np.linalg.norm(vectors, axis=1) * np.linalg.norm(copied, axis=1)
        )
        assert cosines.min() >= 0.99999


def test_killed_server_goes_on(toy_artifact: Path, tmp_path: Path) -> None:
    with postgres_server(NEWEST) as postgres:
        with beside(postgres, toy_artifact, tmp_path) as server:
            fill(server)
        copied = []
        # Before the first page, after it, and later; the document may be on its way when it is deleted.
        for least, id in ((0, "5"), (1, "30"), (NUMBER // 2, str(NUMBER // 2 + 99))):
            with beside(postgres, toy_artifact, tmp_path) as server:
                server.ask("POST", "/collections/near/transfer", ORDER)
                while (now := state(server))["done"] < least:
                    assert now["state"] == "running", now
                copied.append(now["done"])
                server.ask("POST", "/collections/near/documents/delete", {"ids": [id]})
                server.kill()
        with beside(postgres, toy_artifact, tmp_path) as server:
            server.ask("POST", "/collections/near/transfer", ORDER)
            found = ended(server)
            assert found["state"] == "done", found
            assert found["done"] == found["total"] == NUMBER - 3
            assert found["others"] == 0
            # It did not begin again.
            assert found["written"] <= NUMBER - max(copied)
            assert_same(server, "near", "there")
            server.ask("POST", "/collections/there/transfer", {"to": "back"})
            assert ended(server, "there")["state"] == "done"
            assert_same(server, "near", "back")


def test_database_that_is_away_is_waited_for(toy_artifact: Path, tmp_path: Path) -> None:
    with postgres_server(NEWEST) as postgres, beside(postgres, toy_artifact, tmp_path) as server:
        fill(server)
        server.ask("POST", "/collections/near/transfer", ORDER)
        for _ in range(2):
            time.sleep(0.2)
            postgres.stop(signal.SIGQUIT)
            eventually(lambda: state(server)["state"] == "waiting")
            assert "'main' does not answer" in state(server)["why"]
            # The source is read and written as before.
            body = {"documents": [document(1, "山川湖海")]}
            assert server.ask("POST", "/collections/near/documents", body)["stored"] <= 1
            postgres.start()
            eventually(lambda: state(server)["state"] != "waiting")
        assert ended(server)["state"] == "done"
        assert_same(server, "near", "there")


def test_command_may_be_killed(toy_artifact: Path, tmp_path: Path) -> None:
    with postgres_server(NEWEST) as postgres, beside(postgres, toy_artifact, tmp_path) as server:
        fill(server)
        order = ("--to", "there", "--database", "main", "--alias", "law")
        asked = ("transfer", "near", *order, "--url", server.url)
        began = subprocess.Popen(
            command(*asked), stderr=subprocess.PIPE, text=True, env=environment()
        )
        eventually(lambda: state_or_none(server) is not None)
        began.kill()
        began.communicate()
        found = subprocess.run(command(*asked), capture_output=True, text=True, env=environment())
        assert found.returncode == 0, found.stderr
        assert f"near is copied to there: {NUMBER:,} documents" in found.stdout
        assert "law leads to there now" in found.stdout
        assert f"copied {NUMBER:,}/{NUMBER:,}" in found.stderr
        again = subprocess.run(command(*asked), capture_output=True, text=True, env=environment())
        assert again.returncode == 0, again.stderr
        assert "alias 'law' leads to 'there' already" in again.stdout
        back = command("transfer", "there", "--to", "near", "--local", "--url", server.url)
        found = subprocess.run(back, capture_output=True, text=True, env=environment())
        assert (found.returncode, ", 0 written, 0 removed" in found.stdout) == (0, True)
        refused = command("transfer", "near", "--to", "near", "--local", "--url", server.url)
        found = subprocess.run(refused, capture_output=True, text=True, env=environment())
        assert found.returncode == 1 and "the collection itself" in found.stderr


def state_or_none(server: Server) -> Any:
    with server.client() as client:
        response = client.get("/collections/near/transfer")
        return response.json() if response.is_success else None


def test_command_waits_for_a_server_that_is_started_again(
    toy_artifact: Path, tmp_path: Path
) -> None:
    port = str(free_port())
    url = f"http://127.0.0.1:{port}"
    asked = command("transfer", "near", "--to", "there", "--database", "main", "--url", url)
    with postgres_server(NEWEST) as postgres:
        with beside(postgres, toy_artifact, tmp_path, "--port", port) as server:
            fill(server)
            began = subprocess.Popen(
                asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
            )
            eventually(lambda: state_or_none(server) is not None)
            server.kill()
        with beside(postgres, toy_artifact, tmp_path, "--port", port) as server:
            out, err = began.communicate(timeout=60)
            assert began.returncode == 0, err
            assert f"near is copied to there: {NUMBER:,} documents" in out
            assert_same(server, "near", "there")
