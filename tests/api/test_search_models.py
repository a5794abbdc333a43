"""Searches where two models are served: scores of different models are never mixed."""

import asyncio
from typing import Any

import httpx
import numpy as np
import pytest

from server.collections.live_collection import LiveCollection
from server.inference.model import Model
from server.types import Vectors
from tests.api.test_collections import check_refused
from tests.support.clients import run
from tests.support.fakes import PATIENCE_S
from tests.support.many_vectors import export_toy
from tests.support.toys import write_toy_checkpoint

Client = httpx.AsyncClient
TEXTS = {"x": "墨池 search", "y": "天气 server", "z": "风花 search 天气", "w": "笔纸"}
QUERY = "search 天气"


@pytest.fixture(scope="module")
def second_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Another model whose vectors are as wide as those of the toy model."""
    folder = tmp_path_factory.mktemp("second")
    return export_toy(write_toy_checkpoint(folder / "second", pooling="mean"))


NAMES = ("toy", "second")


async def filled(client: Client) -> None:
    """Make a collection of each model, and two of given vectors."""
    documents = [{"id": id, "text": text} for id, text in TEXTS.items()]
    made_by: dict[str, dict[str, Any]] = {
        "first": {"model": NAMES[0]},
        "second": {"model": NAMES[1]},
        "own": {"embedder": "own", "dimension": 32},
        "foreign": {"embedder": "foreign", "dimension": 32},
    }
    for name, made in made_by.items():
        reply = await client.post("/collections", json={"name": name, **made})
        assert reply.status_code == 201, reply.text
        some: list[dict[str, Any]] = documents
        if "embedder" in made:
            some = [each | {"vector": unit_row(n)} for n, each in enumerate(documents)]
        reply = await client.post(f"/collections/{name}/documents", json={"documents": some})
        assert reply.status_code == 200, reply.text


def unit_row(place: int) -> list[float]:
    return [float(n == place) for n in range(32)]


async def cosines(client: Client, model: str, query: str = QUERY) -> dict[str, float]:
    """Return the cosine of each text and the query, both embedded by this model."""
    ask = {"model": model, "texts": [query], "input_type": "query"}
    (of_query,) = (await client.post("/embed", json=ask)).json()["vectors"]
    ask = {"model": model, "texts": list(TEXTS.values())}
    rows = np.array((await client.post("/embed", json=ask)).json()["vectors"])
    return dict(zip(TEXTS, (rows @ np.array(of_query)).tolist(), strict=True))


async def hits(client: Client, path: str = "", **body: Any) -> dict[Any, float]:
    reply = await client.post(f"{path}/search", json=body)
    assert reply.status_code == 200, reply.text
    return {
        (hit["collection"], hit["id"]) if "collection" in hit else hit["id"]: hit["score"]
        for hit in reply.json()["hits"]
    }


def test_each_collection_is_searched_with_its_own_model(
    toy_model: Model, second_model: Model
) -> None:
    async def test(client: Client) -> None:
        await filled(client)
        expected = [await cosines(client, name) for name in NAMES]
        assert expected[0] != pytest.approx(expected[1], abs=0.01)
        # One after the other and at once: a query's vector is kept for each model.
        for _ in range(2):
            found = await asyncio.gather(
                *(hits(client, f"/collections/{name}", query=QUERY) for name in ("first", "second"))
            )
            for one, other in zip(found, expected, strict=True):
                assert one == pytest.approx(other, abs=1e-3)
        one_of_them = await hits(client, query=QUERY, collections=["second"])
        assert one_of_them == pytest.approx(
            {("second", id): score for id, score in expected[1].items()}, abs=1e-3
        )

    run(test, toy_model, others=[second_model])


def test_scores_of_different_models_are_never_mixed(
    toy_model: Model, second_model: Model, toy_scorer: Model
) -> None:
    async def test(client: Client) -> None:
        await filled(client)
        await client.put("/aliases/live", json={"collection": "second"})
        for names in (
            ["first", "second"],
            ["first", "live"],
            ["second", "own"],
            ["own", "foreign"],
        ):
            for body in (
                {"query": QUERY},
                {"query": QUERY, "mode": "hybrid"},
                {"vector": unit_row(0)},
                {"query": QUERY, "vector": unit_row(0), "mode": "hybrid"},
                {"query": QUERY, "rerank": {}},
            ):
                refused = await client.post("/search", json={**body, "collections": names})
                words = ("different models", *map(repr, names), "lexical")
                check_refused(refused, 400, "invalid_request", *words)
            # Words have no model, and the reranker reads texts.
            plain: dict[str, Any] = {"query": QUERY, "mode": "lexical", "collections": names}
            shares = await hits(client, **plain)
            for name in names:
                alone = await hits(client, **{**plain, "collections": [name]})
                assert {key: shares[key] for key in alone} == pytest.approx(alone)
            again = await hits(client, **plain, rerank={})
            assert again.keys() == shares.keys()
        # A text cannot be embedded for a collection of given vectors, alone or with itself.
        for path, more in (("/collections/own", {}), ("", {"collections": ["own"]})):
            refused = await client.post(f"{path}/search", json={"query": QUERY, **more})
            check_refused(refused, 409, "other_model", "'own'", '"vector"')
        found = await hits(client, vector=unit_row(2), collections=["own"])
        assert found["own", "z"] == pytest.approx(1, abs=1e-3)
        assert (await client.post("/collections/second/reindex", json={"model": "toy"})).is_success
        while (await client.get("/collections/second/stats")).json()["reindexing"] is not None:
            await asyncio.sleep(0.01)
        both = await hits(client, query=QUERY, collections=["first", "second"])
        alone = await hits(client, "/collections/first", query=QUERY)
        for id, score in alone.items():
            assert both["first", id] == both["second", id] == pytest.approx(score, abs=1e-3)

    run(test, toy_model, others=[second_model, toy_scorer])


@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_a_search_during_which_the_model_changes_is_of_one_model(
    toy_model: Model, second_model: Model, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = LiveCollection.vectors_of
    swapped = asyncio.Event()

    async def test(client: Client) -> None:
        await filled(client)

        async def embed_and_swap(live: LiveCollection, texts: list[str]) -> Vectors:
            vectors = await embed(live, texts)
            if not swapped.is_set() and live.name == "first":
                swapped.set()
                reply = await client.post("/collections/first/reindex", json={"model": NAMES[1]})
                assert reply.status_code == 202, reply.text
                async with asyncio.timeout(PATIENCE_S):
                    while live.info.fingerprint == toy_model.manifest.fingerprint:
                        await asyncio.sleep(0.01)
            return vectors

        monkeypatch.setattr(LiveCollection, "vectors_of", embed_and_swap)
        found = await hits(client, "/collections/first", query=QUERY, mode=mode)
        assert swapped.is_set()
        assert found == pytest.approx(
            await hits(client, "/collections/second", query=QUERY, mode=mode), abs=1e-3
        )
        # Beside another collection there is nothing to compare with any more.
        swapped.clear()
        reply = await client.post("/collections/first/reindex", json={"model": NAMES[0]})
        assert reply.status_code == 202
        while (await client.get("/collections/first/stats")).json()["reindexing"] is not None:
            await asyncio.sleep(0.01)
        await client.post("/collections", json={"name": "third", "model": NAMES[0]})
        body = {"query": QUERY, "mode": mode, "collections": ["first", "third"]}
        refused = await client.post("/search", json=body)
        assert swapped.is_set()
        check_refused(refused, 400, "invalid_request", "different models", "'third'")

    run(test, toy_model, others=[second_model])
