"""The collections API over a real Qdrant, in its local mode."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from server.inference.model import Model
from tests.support.clients import run

pytest.importorskip("qdrant_client", reason="the client of Qdrant is not installed")

DOCUMENTS = [
    {"id": str(n), "text": text, "title": f"标题{n}", "metadata": {"n": n, "even": n % 2 == 0}}
    for n, text in enumerate(("墨池笔纸", "山川湖海", "春夏秋冬", "东西南北", "墨池山川"))
]


def over(test: Any, model: Model, folder: Path, **settings: Any) -> None:
    """Run a test with a collection "far" in Qdrant."""

    async def begun(client: httpx.AsyncClient) -> None:
        made = await client.post("/collections", json={"name": "far", "database": "main"})
        assert made.status_code == 201, made.text
        await test(client)

    run(begun, model, vector_database=f"main=qdrant:{folder / 'qdrant'}", **settings)


async def posted(client: httpx.AsyncClient, path: str, body: Any) -> Any:
    response = await client.post(f"/collections/far{path}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_documents_are_stored_found_and_removed(toy_model: Model, tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        assert await posted(client, "/documents", {"documents": DOCUMENTS}) == {
            "ids": ["0", "1", "2", "3", "4"],
            "stored": 5,
        }
        again = await posted(client, "/documents", {"documents": DOCUMENTS})
        assert again["stored"] == 0
        for mode in ("dense", "lexical", "hybrid"):
            found = await posted(client, "/search", {"query": "墨池笔纸", "mode": mode})
            assert found["hits"][0]["id"] == "0", mode
            assert "warnings" not in found
        # A character finds its document whether it begins, continues or ends a word.
        for character in "墨池笔":
            found = await posted(client, "/search", {"query": character, "mode": "lexical"})
            assert "0" in {hit["id"] for hit in found["hits"]}, character
        kept = {"filter": {"even": True}}
        assert (await posted(client, "/documents/count", kept))["count"] == 3
        found = await posted(client, "/search", {"query": "墨池", "mode": "lexical", **kept})
        assert {hit["id"] for hit in found["hits"]} == {"0", "4"}
        page = (await client.get("/collections/far/documents", params={"limit": 2})).json()
        assert [each["id"] for each in page["documents"]] == ["0", "1"]
        rest = await client.get("/collections/far/documents", params={"after": page["next"]})
        assert [each["id"] for each in rest.json()["documents"]] == ["2", "3", "4"]
        one = (await client.get("/collections/far/documents/3")).json()
        assert one == DOCUMENTS[3]
        got = await posted(client, "/documents/get", {"ids": ["4", "9"], "include_vectors": True})
        assert got["missing"] == ["9"] and len(got["documents"][0]["vector"]) == 32
        assert await posted(client, "/documents/delete", {"filter": {"n": {"$gte": 3}}}) == {
            "removed": 2
        }
        gone = await client.request("DELETE", "/collections/far/documents/0")
        assert gone.json() == {"removed": 1}
        assert (await client.request("DELETE", "/collections/far/documents/0")).status_code == 404
        stats = (await client.get("/collections/far")).json()
        assert stats["documents"] == 2
        assert stats["database"]["up"] and stats["database"]["waiting"] == 0
        listed = (await client.get("/collections")).json()["collections"]
        assert {"name": "far", "documents": 2} in listed

    over(test, toy_model, tmp_path)


def test_metadata_is_changed_and_exported(toy_model: Model, tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await posted(client, "/documents", {"documents": DOCUMENTS})
        patch = {"metadata": {"n": None, "more": [1]}}
        changed = await client.patch("/collections/far/documents/2", json=patch)
        assert changed.status_code == 200, changed.text
        assert changed.json()["metadata"] == {"even": True, "more": [1]}
        exported = await client.post("/collections/far/documents/export", json={})
        assert len(exported.text.splitlines()) == 5
        with_vectors = await client.post(
            "/collections/far/documents/export", json={"include_vectors": True}
        )
        assert with_vectors.text.count('"vector"') == 5

    over(test, toy_model, tmp_path)


def test_what_a_database_cannot_do_is_refused(toy_model: Model, tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for more in (
            {"facets": ["n"]},
            {"fusion": "blend", "mode": "hybrid"},
            {"explain": True},
            {"offset": 9_000},
        ):
            body = {"query": "墨池", **more}
            refused = await client.post("/collections/far/search", json=body)
            assert refused.status_code == 400, more
            assert "vector database 'main'" in refused.json()["error"]["message"]
        for path in ("/backup", "/reindex", "/rename"):
            body = {"name": "other"} if path == "/rename" else {}
            refused = await client.post(f"/collections/far{path}", json=body)
            assert refused.status_code == 400, path
            assert "vector database 'main'" in refused.json()["error"]["message"], path
        assert (await client.get("/collections/far/words")).status_code == 400
        # Nothing waits where documents are stored at once.
        assert (await client.get("/outbox")).json()["waiting"] == 0

    over(test, toy_model, tmp_path)


def test_removed_collection_is_gone_here_and_there(toy_model: Model, tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await posted(client, "/documents", {"documents": DOCUMENTS})
        assert (await client.delete("/collections/far")).json() == {"removed": "far"}
        assert (await client.get("/collections/far")).status_code == 404
        made = await client.post("/collections", json={"name": "far", "database": "main"})
        assert made.json()["documents"] == 0

    over(test, toy_model, tmp_path)


def test_aliases_lead_to_it_and_keep_it(toy_model: Model, tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await posted(client, "/documents", {"documents": DOCUMENTS})
        alias = await client.put("/aliases/current", json={"collection": "far"})
        assert alias.status_code == 200, alias.text
        body = {"query": "墨池笔纸"}
        found = (await client.post("/collections/current/search", json=body)).json()
        assert found["hits"][0]["id"] == "0"
        stored = await client.post(
            "/collections/current/documents", json={"documents": [{"id": "new", "text": "新墨"}]}
        )
        assert stored.json()["stored"] == 1
        assert (await client.delete("/collections/far")).status_code == 409
        assert (await client.delete("/aliases/current")).status_code == 200
        taken = await client.post("/collections", json={"name": "far"})
        assert taken.status_code == 409
        unknown = {"name": "other", "database": "nowhere"}
        refused = await client.post("/collections", json=unknown)
        assert refused.status_code == 400
        assert "'main'" in refused.json()["error"]["message"]

    over(test, toy_model, tmp_path)
