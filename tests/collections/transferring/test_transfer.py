"""Collections that are copied between this server's disk and a real Qdrant in a folder, through the API."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.inference.model import Model
from tests.support.clients import run

pytest.importorskip("qdrant_client", reason="the client of Qdrant is not installed")

TEXTS = ("墨池笔纸", "山川湖海", "春夏秋冬", "东西南北", "墨池山川")


def document(n: int, text: str | None = None) -> dict[str, Any]:
    metadata = {"n": n, "price": n / 4, "list": [1, 1.0, True, None, "x"]}
    title = f"标题{n}" if n % 2 else None
    return {
        "id": f"文 {n}",
        "text": text or TEXTS[n % 5] * (1 + n % 7),
        "title": title,
        "metadata": metadata,
    }


def over(test: Any, model: Model, folder: Path, **settings: Any) -> None:
    """Run a test with a collection "near" on this server and an empty database "main"."""

    async def begun(client: httpx.AsyncClient) -> None:
        chunks = {"size": 8, "overlap": 2}
        made = await client.post("/collections", json={"name": "near", "chunks": chunks})
        assert made.status_code == 201, made.text
        await test(client)

    run(begun, model, vector_database=f"main=qdrant:{folder / 'qdrant'}", **settings)


async def ask(client: httpx.AsyncClient, method: str, path: str, body: Any = None) -> Any:
    response = await client.request(method, f"/collections{path}", json=body)
    assert response.status_code < 300, response.text
    return response.json()


async def transferred(client: httpx.AsyncClient, name: str, **order: Any) -> Any:
    await ask(client, "POST", f"/{name}/transfer", order)
    return await ended(client, name)


async def ended(client: httpx.AsyncClient, name: str) -> Any:
    async with asyncio.timeout(60):
        while True:
            found = await ask(client, "GET", f"/{name}/transfer")
            if found["state"] in ("done", "failed"):
                return found
            await asyncio.sleep(0.05)


async def everything(client: httpx.AsyncClient, name: str) -> dict[str, Any]:
    response = await client.post(
        f"/collections/{name}/documents/export", json={"include_vectors": True}
    )
    lines = [httpx.Response(200, text=line).json() for line in response.text.splitlines()]
    return {each["id"]: each for each in lines}


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for id, document in one.items():
        for name in document.keys() - {"vector", "vectors", "parts"}:
            assert document[name] == other[id][name]


def test_there_and_back_without_embedding(toy_model: Model, tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        documents = [document(n) for n in range(40)]
        await ask(client, "POST", "/near/documents", {"documents": documents})
        there = await transferred(client, "near", to="there", database="main")
        assert there["state"] == "done", there
        assert (there["written"], there["done"], there["compared"]) == (40, 40, 40)
        back = await transferred(client, "there", to="back")
        assert back["state"] == "done", back
        near, far, again = [
            await ask(client, "GET", f"/{name}/stats") for name in ("near", "there", "back")
        ]
        for key in ("documents", "fingerprint", "dimension", "chunks", "model"):
            assert near[key] == far[key] == again[key], key
        assert near["parts"] == again["parts"]
        same(await everything(client, "near"), await everything(client, "there"))
        same(await everything(client, "near"), await everything(client, "back"))
        # A copy is the model's own: it embeds what comes in, and knows what it has.
        for name in ("there", "back"):
            stored = await ask(client, "POST", f"/{name}/documents", {"documents": documents[:9]})
            assert stored["stored"] == 0
            found = await ask(client, "POST", f"/{name}/search", {"query": "墨池笔纸", "top_k": 3})
            assert found["hits"]
        assert (await transferred(client, "near", to="there", database="main"))["written"] == 0

    over(test, toy_model, tmp_path)


def test_what_others_put_there_stays_unless_it_is_pruned(toy_model: Model, tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await ask(client, "POST", "/near/documents", {"documents": [document(n) for n in range(8)]})
        chunks = {"size": 8, "overlap": 2}
        await ask(client, "POST", "", {"name": "there", "database": "main", "chunks": chunks})
        others = [document(n, "冬") for n in (7, 8, 9)]
        await ask(client, "POST", "/there/documents", {"documents": others})
        found = await transferred(client, "near", to="there", database="main")
        assert (found["state"], found["written"], found["removed"]) == ("done", 8, 0)
        assert found["others"] == 2
        assert len(await everything(client, "there")) == 10
        found = await transferred(client, "near", to="there", database="main", prune=True)
        assert (found["state"], found["written"], found["removed"]) == ("done", 0, 2)
        assert found["others"] == 0
        same(await everything(client, "near"), await everything(client, "there"))

    over(test, toy_model, tmp_path)


def test_changes_of_the_source_follow(toy_model: Model, tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        documents = [document(n) for n in range(30)]
        await ask(client, "POST", "/near/documents", {"documents": documents})
        await ask(client, "POST", "/near/transfer", {"to": "there", "database": "main"})
        for n in range(12):
            changed = [document(n, "冬夏"), document(100 + n)]
            await ask(client, "POST", "/near/documents", {"documents": changed})
            await ask(client, "DELETE", f"/near/documents/文 {29 - n}")
            await ask(client, "PATCH", f"/near/documents/文 {n}", {"metadata": {"n": -n}})
        found = await ended(client, "near")
        assert found["state"] == "done", found
        # What was written after the end comes with the next one.
        found = await transferred(client, "near", to="there", database="main", prune=True)
        assert found["state"] == "done", found
        same(await everything(client, "near"), await everything(client, "there"))

    over(test, toy_model, tmp_path)


def test_clients_move_with_an_alias_and_lose_nothing(toy_model: Model, tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        stored: dict[str, str | None] = {}
        stop = asyncio.Event()

        async def write(k: int) -> None:
            """Write and remove documents by the alias, one at a time, until the end."""
            round = 0
            while not stop.is_set():
                round += 1
                n = 1000 * k + round % 7
                body = {"documents": [document(n, f"墨池 {round}")]}
                await ask(client, "POST", "/law/documents", body)
                stored[f"文 {n}"] = f"墨池 {round}"
                if round % 3 == 0:
                    await ask(client, "POST", "/law/documents/delete", {"ids": [f"文 {n}"]})
                    stored[f"文 {n}"] = None

        await ask(
            client, "POST", "/near/documents", {"documents": [document(n) for n in range(30)]}
        )
        assert (await client.put("/aliases/law", json={"collection": "near"})).is_success
        writers = [asyncio.ensure_future(write(k)) for k in range(1, 4)]
        order = {"to": "there", "database": "main", "alias": "law"}
        await ask(client, "POST", "/near/transfer", order)
        again = await client.post("/collections/near/transfer", json=order)
        assert again.status_code == 202
        found = await ended(client, "near")
        assert found["state"] == "done", found
        assert (await client.get("/aliases/law")).json()["collection"] == "there"
        await asyncio.sleep(0.3)
        stop.set()
        await asyncio.gather(*writers)
        there = await everything(client, "there")
        for id, text in stored.items():
            assert (there[id]["text"] if id in there else None) == text
        assert len(there) == 30 + sum(text is not None for text in stored.values())
        # It is done: what clients have written there since is not overwritten.
        found = await transferred(client, "near", **order)
        assert (found["state"], found["written"]) == ("done", 0)
        assert found["why"] == "alias 'law' leads to 'there' already"

    over(test, toy_model, tmp_path)


def test_what_cannot_be_copied_is_refused(toy_model: Model, tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await ask(client, "POST", "/near/documents", {"documents": [document(n) for n in range(9)]})
        await ask(client, "POST", "", {"name": "given", "embedder": "other", "dimension": 32})
        await ask(client, "POST", "", {"name": "cut", "database": "main"})
        await client.put("/aliases/law", json={"collection": "near"})
        for order, status, said in (
            ({"to": "near"}, 400, "the collection itself"),
            ({"to": "law"}, 400, "an alias of 'near'"),
            ({"to": "given"}, 409, "holds vectors of model embedder:other"),
            ({"to": "cut", "database": "main"}, 400, "was made with chunks of"),
            ({"to": "cut"}, 409, "is there, in vector database 'main'"),
            ({"to": "new", "database": "none"}, 400, "there is no vector database 'none'"),
            ({"to": "new", "alias": "cut"}, 400, "the name of a collection"),
            ({"to": "../x"}, 400, "cannot name a collection"),
            ({"to": "new", "alias": "../x"}, 400, "cannot name a collection"),
        ):
            refused = await client.post("/collections/near/transfer", json=order)
            assert refused.status_code == status, (order, refused.text)
            assert said in refused.json()["error"]["message"]
        assert (await client.get("/collections/near/transfer")).status_code == 404
        assert (await client.get("/collections/new")).status_code == 404
        await ask(client, "POST", "/near/transfer", {"to": "there", "database": "main"})
        for method, path, body in (
            ("DELETE", "", None),
            ("POST", "/reindex", {}),
            ("POST", "/rename", {"name": "x"}),
            ("POST", "/transfer", {"to": "y"}),
        ):
            refused = await client.request(method, f"/collections/near{path}", json=body)
            assert refused.status_code == 409, path
        assert (await client.delete("/collections/there")).status_code == 409
        stopped = await ask(client, "DELETE", "/near/transfer")
        assert (stopped["state"], stopped["why"]) == ("failed", "it was stopped")
        assert (await transferred(client, "near", to="there", database="main"))["state"] == "done"

    over(test, toy_model, tmp_path)
