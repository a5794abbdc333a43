"""Metadata that is changed alone, and documents read by their ids."""

import base64
import re
from typing import Any

import httpx
import numpy as np
import pytest

from server.api.documents import request as limits
from server.collections.writing import metadata
from server.collections.writing.merge_patch import merged
from server.inference.model import Model
from tests.api.test_collections import check_refused, fill, found, vector_of
from tests.support.clients import run


def test_merge_patch_is_that_of_the_standard() -> None:
    """The examples of RFC 7396, appendix A."""
    for target, patch, expected in (
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ):
        assert merged(target, patch) == expected


async def changed(client: httpx.AsyncClient, **body: Any) -> Any:
    response = await client.patch("/documents", json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def embedded(client: httpx.AsyncClient) -> float:
    page = (await client.get("/metrics")).text
    return float(re.findall(r"^inkwell_texts_total (.*)$", page, re.MULTILINE)[0])


def test_metadata_of_one_document_is_changed_and_nothing_is_embedded(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await fill(client)
        texts = await embedded(client)
        patch = {"metadata": {"n": None, "kind": "new", "by": {"name": "x"}}}
        response = await client.patch("/documents/b", json=patch)
        assert response.json() == {
            "id": "b",
            "text": "风花雪鸟鱼虫",
            "title": None,
            "metadata": {"kind": "new", "by": {"name": "x"}},
        }
        assert await embedded(client) == texts
        vector = await vector_of(client, "风花雪鸟鱼虫")
        body: dict[str, Any] = {"vector": vector, "min_score": 0.9999}
        for filter, ids in (
            ({"kind": "new"}, ["b"]),
            ({"by.name": "x"}, ["b"]),
            ({"kind": "odd"}, []),
        ):
            assert await found(client, {**body, "filter": filter}) == ids
        (hit,) = (await client.post("/search", json=body)).json()["hits"]
        assert hit["metadata"] == {"kind": "new", "by": {"name": "x"}}
        assert await found(client, {"query": "风花雪鸟鱼虫", "mode": "lexical"}) == ["b"]
        stats = (await client.get("/stats")).json()
        assert (stats["documents"], stats["parts"]) == (3, 3)

    run(test, toy_model)


def test_a_hit_that_was_shown_before_has_the_new_metadata(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await fill(client)
        body = {"query": "墨池", "top_k": 3}
        for n in range(3):
            await changed(client, ids=["a", "b", "c"], metadata={"round": n})
            hits = (await client.post("/search", json=body)).json()["hits"]
            assert [hit["metadata"]["round"] for hit in hits] == [n] * 3

    run(test, toy_model)


def test_several_documents_are_changed_by_ids_by_filter_or_each_by_its_own(
    toy_model: Model,
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await fill(client)
        said = await changed(client, ids=["a", "z", "c"], metadata={"kind": "even", "more": 1})
        assert said == {"changed": 2, "missing": ["z"]}
        assert await changed(client, ids=["a"], metadata={"more": 1}) == {
            "changed": 0,
            "missing": [],
        }
        said = await changed(client, ids=["a"], metadata={"more": True})
        assert said["changed"] == 1, "1 is not true"
        said = await changed(client, filter={"kind": "odd"}, metadata={"kind": "none"})
        assert said == {"changed": 1, "missing": []}
        said = await changed(client, filter={"kind": 3}, metadata={"kind": "none"})
        assert said["changed"] == 0
        assert "kind" in said["warnings"][0]
        each = [{"id": "a", "metadata": {"n": 7}}, {"id": "b", "metadata": {"n": 8}}]
        assert (await changed(client, documents=each))["changed"] == 2
        listed = (await client.get("/documents")).json()["documents"]
        assert {one["id"]: one["metadata"] for one in listed} == {
            "a": {"n": 7, "kind": "even", "more": True},
            "b": {"n": 8, "kind": "none"},
            "c": {"n": 2, "kind": "even", "more": 1},
        }

    run(test, toy_model)


def test_a_change_that_is_refused_changes_nothing(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "MAX_DOCUMENTS", 1)
    monkeypatch.setattr(limits, "MAX_DOCUMENTS", 3)

    async def test(client: httpx.AsyncClient) -> None:
        await fill(client)
        deep: dict[str, Any] = {}
        for _ in range(40):
            deep = {"a": deep}
        for body, code, word in (
            ({"metadata": {}}, "invalid_request", "exactly one"),
            ({"ids": ["a"]}, "invalid_request", "metadata"),
            ({"ids": ["a"], "filter": {"n": 1}, "metadata": {}}, "invalid_request", "exactly"),
            ({"filter": {}, "metadata": {"a": 1}}, "invalid_request", "keeps every document"),
            ({"ids": ["a"], "metadata": {"a": deep}}, "invalid_request", "levels"),
            ({"ids": ["a"], "metadata": {"k" * 300: 1}}, "invalid_request", "256"),
            ({"ids": ["a"], "metadata": {}, "title": "x"}, "invalid_request", "title"),
            ({"documents": [{"id": "a", "metadata": {}}], "metadata": {}}, "invalid_request", ""),
            ({"ids": [str(n) for n in range(4)], "metadata": {}}, "request_too_large", "3"),
            ({"filter": {"n": {"$gte": 0}}, "metadata": {"a": 1}}, "request_too_large", "3"),
        ):
            refused = await client.patch("/documents", json=body)
            check_refused(refused, 413 if code == "request_too_large" else 400, code, word)
        large = {f"key{n}": n for n in range(4095)}
        assert (await client.patch("/documents/a", json={"metadata": large})).status_code == 400
        refused = await client.patch("/documents/z", json={"metadata": {}})
        check_refused(refused, 404, "document_not_found")
        refused = await client.patch("/documents/a", json={"metadata": None})
        check_refused(refused, 400, "invalid_request")
        listed = (await client.get("/documents")).json()["documents"]
        assert [one["metadata"]["n"] for one in listed] == [0, 1, 2]
        refused = await client.patch(
            "/collections/none/documents", json={"ids": [], "metadata": {}}
        )
        check_refused(refused, 404, "collection_not_found")

    run(test, toy_model)


def test_a_change_of_the_default_collection_before_its_first_write_finds_nothing(
    toy_model: Model,
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        said = await changed(client, ids=["a"], metadata={"n": 1})
        assert said == {"changed": 0, "missing": ["a"]}
        assert (await changed(client, filter={"n": 1}, metadata={}))["changed"] == 0
        got = await client.post("/documents/get", json={"ids": ["a", "a"]})
        assert got.json() == {"documents": [], "missing": ["a"]}

    run(test, toy_model)


def test_chunks_keep_their_places_and_vectors(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        made = {"name": "cut", "chunks": {"size": 12, "overlap": 0}}
        assert (await client.post("/collections", json=made)).status_code == 201
        text = "墨池笔纸。" * 12
        await client.post(
            "/collections/cut/documents", json={"documents": [{"id": "a", "text": text}]}
        )
        ask = {"ids": ["a"], "include_vectors": True}
        before = (await client.post("/collections/cut/documents/get", json=ask)).json()
        (one,) = before["documents"]
        assert len(one["vectors"]) == len(one["parts"]) > 2
        assert "vector" not in one
        await client.patch("/collections/cut/documents/a", json={"metadata": {"n": 1}})
        (other,) = (await client.post("/collections/cut/documents/get", json=ask)).json()[
            "documents"
        ]
        assert other == {**one, "metadata": {"n": 1}}

    run(test, toy_model)


def test_documents_come_in_the_order_of_their_ids_with_their_vectors(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await fill(client)
        got = (await client.post("/documents/get", json={"ids": ["c", "x", "a", "c"]})).json()
        assert [one["id"] for one in got["documents"]] == ["c", "a"]
        assert got["missing"] == ["x"]
        assert "vector" not in got["documents"][0]
        body = {"ids": ["a"], "include_vectors": True}
        (one,) = (await client.post("/documents/get", json=body)).json()["documents"]
        given = await vector_of(client, "墨池笔纸")
        assert one["vector"] == pytest.approx(given, abs=5e-4), "float16"
        body = {**body, "encoding_format": "base64"}
        (short,) = (await client.post("/documents/get", json=body)).json()["documents"]
        numbers = np.frombuffer(base64.b64decode(short["vector"]), dtype="<f4")
        assert numbers.tolist() == one["vector"]
        # What was read can be stored again, elsewhere, with the model's name.
        name = (await client.get("/stats")).json()["model"]
        await client.post("/collections", json={"name": "copy"})
        copied = {"documents": [short], "embedder": name}
        assert (await client.post("/collections/copy/documents", json=copied)).status_code == 200
        many = [str(n) for n in range(limits.MAX_PAGE + 1)]
        refused = await client.post("/documents/get", json={"ids": many})
        check_refused(refused, 413, "request_too_large", str(limits.MAX_PAGE))

    run(test, toy_model)


def test_a_reply_of_many_vectors_is_bounded(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await fill(client, **{str(n): "墨池" + "笔" * n for n in range(200)})
        body = {"ids": [str(n) for n in range(200)], "include_vectors": True}
        refused = await client.post("/documents/get", json=body)
        check_refused(refused, 413, "request_too_large", "max-reply-bytes")

    run(test, toy_model, max_reply_bytes=1 << 16)
