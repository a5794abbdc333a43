"""A server that is killed with writes in its outbox, and one whose database is away."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.fakes import eventually
from tests.support.processes import serving

pytest.importorskip("qdrant_client", reason="the client of Qdrant is not installed")

# Nothing listens there.
AWAY = "main=qdrant+http://127.0.0.1:1?timeout_s=1"


def document(n: int, text: str = "墨池笔纸") -> dict[str, Any]:
    return {"id": str(n), "text": f"{text} {n}", "metadata": {"n": n}}


def test_no_acknowledged_write_is_lost(toy_artifact: Path, tmp_path: Path) -> None:
    there = f"main=qdrant:{tmp_path / 'qdrant'}"
    with serving(toy_artifact, tmp_path, "--vector-database", there) as server:
        server.ask("POST", "/collections", {"name": "far", "database": "main"})
        body = {"documents": [document(n) for n in range(20)]}
        assert "queued" not in server.ask("POST", "/collections/far/documents", body)
        server.kill()

    with serving(toy_artifact, tmp_path, "--vector-database", AWAY) as server:
        for n in range(10, 40):
            body = {"documents": [document(n, "山川湖海")]}
            assert server.ask("POST", "/collections/far/documents", body)["queued"] is True
        removed = server.ask("POST", "/collections/far/documents/delete", {"ids": ["0", "1"]})
        assert removed == {"removed": 2, "queued": True}
        # Those that wait are known by their ids.
        got = server.ask("GET", "/collections/far/documents/25")
        assert got["text"] == "山川湖海 25"
        with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
            changed = client.patch("/collections/far/documents/25", json={"metadata": {"m": 1}})
        assert (changed.status_code, changed.headers["x-waiting-writes"]) == (200, "33")
        with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
            assert client.get("/collections/far/documents/0").status_code == 404
            for response in (
                client.get("/collections/far/documents/5"),
                client.post("/collections/far/search", json={"query": "墨池"}),
            ):
                assert response.status_code == 503
                assert response.json()["error"]["code"] == "database_away"
                assert "'main'" in response.json()["error"]["message"]
                assert int(response.headers["retry-after"]) >= 1
        stats = server.ask("GET", "/collections/far")
        assert stats["documents"] is None and not stats["database"]["up"]
        assert stats["database"]["waiting"] == 33
        assert server.metric("outbox_writes", database="main") == 33
        assert server.metric("vector_database_up", database="main") == 0
        server.kill()

    with serving(toy_artifact, tmp_path, "--vector-database", there) as server:
        eventually(lambda: server.ask("GET", "/collections/far")["database"]["waiting"] == 0)
        listed = server.ask("GET", "/collections/far/documents?limit=100")["documents"]
        texts = {each["id"]: each["text"].split()[0] for each in listed}
        assert texts == {str(n): "墨池笔纸" if n < 10 else "山川湖海" for n in range(2, 40)}
        found = server.ask("POST", "/collections/far/search", {"query": "山川湖海 30"})
        assert "warnings" not in found


def test_full_outbox_refuses_more(toy_artifact: Path, tmp_path: Path) -> None:
    there = f"main=qdrant:{tmp_path / 'qdrant'}"
    with serving(toy_artifact, tmp_path, "--vector-database", there) as server:
        server.ask("POST", "/collections", {"name": "far", "database": "main"})
    flags = ("--vector-database", AWAY, "--outbox-mb", "1")
    with serving(toy_artifact, tmp_path, *flags) as server:
        stored = 0
        with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
            for n in range(100):
                body = {"documents": [document(1000 * n + k) for k in range(1000)]}
                response = client.post("/collections/far/documents", json=body)
                if response.status_code != 200:
                    break
                stored += 1000
            # Repeating what can never wait would change nothing.
            body = {"documents": [document(n) for n in range(8000)]}
            large = client.post("/collections/far/documents", json=body)
        assert large.status_code == 413, large.text
        assert "(--outbox-mb); send fewer at once" in large.json()["error"]["message"]
        assert response.status_code == 503
        error = response.json()["error"]
        assert error["code"] == "database_away"
        assert "at most 1048576 may wait (--outbox-mb)" in error["message"]
        stats = server.ask("GET", "/collections/far")["database"]
        assert stats["waiting"] == stored
        assert stats["waiting_bytes"] <= 1 << 20
