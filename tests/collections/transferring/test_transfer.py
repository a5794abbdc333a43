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
    return {"id": f"文 {n}", "text": text or TEXTS[n % 5] * (1 + n % 7), "title": title, "metadata": metadata}


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
        near, far, again = [await ask(client, "GET", f"/{name}/stats") for name in ("near", "there", "back")]
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
