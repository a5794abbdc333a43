"""A server whose models all score pairs: reranking works, and what needs vectors says that there are none."""

import asyncio
from pathlib import Path
from typing import Any

import httpx

from server.app import create_app
from server.config import Config
from server.inference.model import Model
from server.store.folder import DataFolder
from tests.support.clients import Test, lifespan, run, stateful

NO_EMBEDDER = "no embedding model is served"
TEXTS = ["墨池", "笔纸砚书", "search"]
# Requests for vectors, with the status in the caller's dialect.
VECTORS: list[tuple[str, str, Any, int]] = [
    ("POST", "/embed", {"inputs": "墨"}, 424),
    ("POST", "/similarity", {"inputs": {"source_sentence": "墨", "sentences": ["池"]}}, 424),
    ("POST", "/v1/embeddings", {"input": "墨", "model": ""}, 404),
    ("POST", "/embeddings", {"input": "墨"}, 404),
    ("POST", "/v2/embed", {"texts": ["墨"], "model": ""}, 404),
    ("POST", "/api/embed", {"model": "", "input": "墨"}, 404),
    ("POST", "/vectors", {"text": "墨"}, 404),
    ("GET", "/meta", None, 404),
    ("POST", "/collections", {"name": "laws"}, 404),
    ("POST", "/documents", {"documents": [{"id": "1", "text": "墨"}]}, 404),
    ("POST", "/search", {"query": "墨"}, 404),
    ("GET", "/stats", None, 404),
]


def test_pairs_are_scored_and_the_server_says_what_it_serves(toy_scorer: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        body: dict[str, Any] = {"query": "墨", "texts": TEXTS}
        ranks = (await client.post("/rerank", json=body)).json()
        assert sorted(each["index"] for each in ranks) == [0, 1, 2]
        documents = {"query": "墨", "documents": TEXTS}
        best = (await client.post("/v1/rerank", json=documents)).json()
        assert best["model"] == "toy-scorer" and len(best["results"]) == 3
        pair = (await client.post("/predict", json={"inputs": ["墨", "池"]})).json()
        assert 0 < pair[0]["score"] < 1
        passages = {"query": {"text": "墨"}, "passages": [{"text": "池"}]}
        pairs = {"text_1": "墨", "text_2": "池"}
        for path, wanted in (
            ("/rerank", body),
            ("/v1/rerank", documents),
            ("/v1/ranking", passages),
            ("/v1/score", pairs),
            ("/predict", {"inputs": ["墨", "池"]}),
        ):
            reply = await client.post(path, json=wanted | {"instruction": "Find ink"})
            assert "reads pairs without a prompt" in reply.text and reply.status_code in (400, 422)
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/ready")).json() == {"status": "ready", "model": "toy-scorer"}
        assert (await client.get("/ping")).status_code == 200
        info = (await client.get("/info")).json()
        assert info["model_id"] == "toy-scorer" and info["dimension"] is None
        assert set(info["model_type"]) == {"reranker"}
        listed = (await client.get("/v1/models")).json()["data"]
        assert [(each["id"], each["task"]) for each in listed] == [("toy-scorer", "score")]
        assert (await client.get("/api/tags")).json() == {"models": []}
        assert 'model_id="toy-scorer"' in (await client.get("/metrics")).text
        assert (await client.get("/openapi.json")).status_code == 200
        (tokens,) = (await client.post("/tokenize", json={"inputs": "墨"})).json()
        ids = [each["id"] for each in tokens]
        assert (await client.post("/decode", json={"ids": ids})).json() == ["墨"]
        assert (await client.get("/collections")).json()["collections"] == []

    run(test, toy_scorer)


def test_what_needs_vectors_is_refused_and_says_why(toy_scorer: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        found = {}
        for method, path, body, _ in VECTORS:
            answer = await client.request(method, path, json=body)
            found[path] = answer.status_code, NO_EMBEDDER in answer.text
        assert found == {path: (status, True) for _, path, _, status in VECTORS}

    run(test, toy_scorer)


def test_collection_whose_model_is_gone_is_searched_by_words_alone(
    toy_model: Model, toy_scorer: Model, tmp_path: Path
) -> None:
    """A data folder of an earlier server stays, and its vectors wait for their model."""

    async def served(model: Model, test: Test) -> None:
        folder = DataFolder(tmp_path / "data")
        app = create_app([model], Config(lanes=1), folder)
        try:
            async with lifespan(app) as state:
                transport = httpx.ASGITransport(stateful(app, state))
                async with httpx.AsyncClient(transport=transport, base_url="http://i") as client:
                    await test(client)
        finally:
            folder.close()

    async def write(client: httpx.AsyncClient) -> None:
        body = {"documents": [{"id": "1", "text": "墨池 search"}]}
        assert (await client.post("/documents", json=body)).status_code == 200

    async def read(client: httpx.AsyncClient) -> None:
        words = {"query": "search", "mode": "lexical", "rerank": {}}
        found = (await client.post("/search", json=words)).json()
        assert [hit["id"] for hit in found["hits"]] == ["1"]
        answer = await client.post("/search", json={"query": "search"})
        assert answer.status_code == 409
        assert "no embedding model is served; serve that model too" in answer.text
        assert (await client.post("/reindex", json={})).status_code == 404
        assert (await client.get("/stats")).json()["documents"] == 1

    async def both() -> None:
        await served(toy_model, write)
        await served(toy_scorer, read)

    asyncio.run(both())
