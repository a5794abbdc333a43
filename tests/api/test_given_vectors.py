"""Vectors that come with documents: stored as given, of one embedder only."""

import asyncio
import base64
from typing import Any

import httpx
import numpy as np
import pytest

from server.inference.model import Model
from tests.api.test_collections import check_refused
from tests.support.clients import run

OWN = "/collections/own"
MADE = {"name": "own", "embedder": "my-model", "dimension": 3}
SHORT = "documents[0]"


async def make(client: httpx.AsyncClient) -> None:
    made = await client.post("/collections", json=MADE)
    assert made.status_code == 201, made.text
    stats = made.json()
    assert (stats["fingerprint"], stats["dimension"]) == ("embedder:my-model", 3)
    assert (stats["model"], stats["chunks"]) == (None, None)


async def add(client: httpx.AsyncClient, *documents: Any, path: str = OWN, **more: Any) -> Any:
    return await client.post(f"{path}/documents", json={"documents": documents, **more})


def in_base64(*numbers: float) -> str:
    return base64.b64encode(np.array(numbers, dtype="<f4").tobytes()).decode()


def test_a_collection_of_given_vectors_is_searched_by_vectors_and_by_words(
    toy_model: Model,
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await make(client)
        added = await add(
            client,
            {"id": "x", "text": "墨池笔纸", "vector": [1, 0, 0]},
            {"id": "y", "vector": in_base64(0, 2, 0), "metadata": {"n": 1}},
        )
        assert added.json() == {"ids": ["x", "y"], "stored": 2}
        found = await client.post(f"{OWN}/search", json={"vector": [0, 5, 0.1], "top_k": 1})
        (hit,) = found.json()["hits"]
        assert (hit["id"], hit["text"], hit["part"]["whole"]) == ("y", "", True)
        assert hit["score"] == pytest.approx(1, abs=1e-3)
        words = await client.post(f"{OWN}/search", json={"query": "笔纸", "mode": "lexical"})
        assert [hit["id"] for hit in words.json()["hits"]] == ["x"]
        body = {"query": "笔纸", "mode": "hybrid", "vector": [1, 0, 0]}
        both = await client.post(f"{OWN}/search", json=body)
        assert both.json()["hits"][0]["id"] == "x"
        for mode in ("dense", "hybrid"):
            asked = await client.post(f"{OWN}/search", json={"query": "笔纸", "mode": mode})
            check_refused(asked, 409, "other_model", "my-model", '"vector"', "lexical")

    run(test, toy_model)


def test_documents_that_bring_no_vector_or_another_one_are_refused(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await make(client)
        for document, words in (
            ({"id": "a", "vector": [1, 0]}, "has 2 numbers, and those of the collection have 3"),
            ({"id": "a", "vector": [0, 0, 0]}, "length outside"),
            ({"id": "a", "vector": [1e300, 0, 0]}, "not finite"),
            ({"id": "a", "vector": [1e-20, 0, 0]}, "length outside"),
            ({"id": "a", "vector": "AAA"}, "not base64"),
            ({"id": "a", "vector": "AAAA"}, "3 bytes"),
            ({"id": "a", "vectors": [[1, 0, 0], [0, 1, 0]]}, 'give "parts"'),
            ({"id": "a", "text": "墨池", "vectors": [[1, 0, 0]], "parts": [[0, 3]]}, "its 2"),
            ({"id": "a", "text": "墨池", "vectors": [[1, 0, 0]], "parts": [[1, 1]]}, "not empty"),
            ({"id": "a", "text": "墨池", "parts": [[0, 1]]}, 'no "vectors"'),
            ({"id": "a", "vector": [1, 0, 0], "parts": [[0, 1]]}, "give"),
        ):
            refused = await add(client, document)
            check_refused(refused, 400, "invalid_request", SHORT, words)
        refused = await add(client, {"vector": [1, 0, 0]})
        check_refused(refused, 400, "empty_input", "needs an id")
        refused = await add(client, {"id": "a", "text": "墨池"})
        check_refused(refused, 409, "other_model", "give each document")
        refused = await add(client, {"id": "a", "vector": [1, 0, 0]}, embedder="other")
        check_refused(refused, 400, "invalid_request", "'other'", "'my-model'")
        assert (await client.get(f"{OWN}/stats")).json()["documents"] == 0
        for more in ({"dimension": None}, {"embedder": None}, {"embedder": "a b"}):
            refused = await client.post("/collections", json={**MADE, "name": "b", **more})
            check_refused(refused, 400, "invalid_request")
        refused = await client.post(
            "/collections", json={**MADE, "name": "b", "chunks": {"size": 9}}
        )
        check_refused(refused, 400, "invalid_request", "chunks")

    run(test, toy_model)


def test_parts_are_found_each_by_its_own_vector(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await make(client)
        document = {
            "id": "long",
            "text": "墨池笔纸风花雪鸟",
            "vectors": [[1, 0, 0], [0, 1, 0]],
            "parts": [[0, 4], [4, 8]],
        }
        assert (await add(client, document)).json()["stored"] == 1
        found = await client.post(f"{OWN}/search", json={"vector": [0.2, 1, 0], "top_k": 5})
        (hit,) = found.json()["hits"]
        assert hit["text"] == "风花雪鸟"
        assert hit["part"] == {"begin": 4, "end": 8, "whole": False}

    run(test, toy_model)


def test_a_document_is_written_again_only_where_it_or_its_vectors_differ(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await make(client)
        one = {"id": "x", "text": "墨池", "vector": [0.1, 0.9, 0.2]}
        stored = [
            (await add(client, each)).json()["stored"]
            for each in (one, one, {**one, "vector": [0, 1, 0]}, {**one, "metadata": {"n": 1}})
        ]
        assert stored == [1, 0, 1, 1]

    run(test, toy_model)


def test_vectors_for_a_served_model_need_its_name_and_must_be_its_own(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        text, other = "墨池笔纸", "风花雪鸟鱼虫"
        made = (await client.post("/embed", json={"texts": [text, other]})).json()["vectors"]
        document = {"id": "x", "text": text, "vector": made[0]}
        name = (await client.get("/stats")).json()["model"]
        refused = await add(client, document, path="")
        check_refused(refused, 400, "invalid_request", name, "say so")
        refused = await add(client, document, path="", embedder="text-embedding-3-small")
        check_refused(refused, 400, "invalid_request", "two embedders", name)
        far = {**document, "vector": (-np.array(made[0])).tolist()}
        refused = await add(client, far, path="", embedder=name)
        check_refused(refused, 400, "invalid_request", "cosine", "'x'")
        refused = await add(client, {"id": "x", "vector": made[0]}, path="", embedder=name)
        check_refused(refused, 400, "empty_input")
        documents = [document, {"id": "y", "text": other}]
        added = await add(client, *documents, path="", embedder=name)
        assert added.json() == {"ids": ["x", "y"], "stored": 2}
        for id, vector in (("x", made[0]), ("y", made[1])):
            found = await client.post("/search", json={"vector": vector, "top_k": 1})
            assert found.json()["hits"][0]["id"] == id

    run(test, toy_model)


def test_vectors_that_a_collection_gave_are_taken_back_whatever_stands_above_its_parts(
    toy_model: Model,
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        name = (await client.get("/stats")).json()["model"]
        chunks = {"size": 16, "overlap": 0}
        for each in ("cut", "copy"):
            await client.post("/collections", json={"name": each, "chunks": chunks})
        text = "# 墨池\n\n" + "笔纸风花。" * 5 + "\n\n## 山水\n\n" + "雪鸟鱼虫。" * 6
        document = {"id": "x", "text": text, "title": "天地"}
        await add(client, document, path="/collections/cut")
        ask = {"ids": ["x"], "include_vectors": True}
        got = (await client.post("/collections/cut/documents/get", json=ask)).json()["documents"]
        assert len(got[0]["parts"]) > 2
        added = await add(client, *got, path="/collections/copy", embedder=name)
        assert added.json() == {"ids": ["x"], "stored": 1}
        # The text alone is what others embed.
        alone = (await client.post("/embed", json={"texts": ["雪鸟鱼虫"]})).json()["vectors"][0]
        document = {"id": "y", "text": "雪鸟鱼虫", "title": "天地玄黄宇宙洪荒", "vector": alone}
        added = await add(client, document, path="/collections/copy", embedder=name)
        assert added.json()["stored"] == 1

    run(test, toy_model)


async def reindexed(client: httpx.AsyncClient) -> Any:
    """Reindex with the served model, and return the stats afterwards."""
    assert (await client.post(f"{OWN}/reindex", json={})).status_code == 202
    while (stats := (await client.get(f"{OWN}/stats")).json())["reindexing"] is not None:
        await asyncio.sleep(0.01)
    return stats


def test_a_collection_of_given_vectors_can_be_reindexed_with_a_served_model(
    toy_model: Model,
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await make(client)
        textless = {"id": "y", "vector": [0, 1, 0]}
        await add(client, {"id": "x", "text": "墨池笔纸", "vector": [1, 0, 0]}, textless)
        stats = await reindexed(client)
        assert stats["model"] is None
        assert "empty" in stats["reindex_error"]
        assert stats["documents"] == 2
        await client.delete(f"{OWN}/documents/y")
        stats = await reindexed(client)
        assert stats["model"] is not None, stats
        found = await client.post(f"{OWN}/search", json={"query": "墨池笔纸"})
        assert found.json()["hits"][0]["id"] == "x"

    run(test, toy_model)
