"""Search with a reranker: candidates of a search are put in order by a model that reads each with the query."""

from typing import Any

import httpx
import numpy as np
import pytest

from server.inference.model import Model
from server.store.records import titled
from tests.support.clients import run
from tests.support.dialects import check_error
from tests.support.scorers import expected_scores

QUERY = "天气"
DOCUMENTS: list[dict[str, Any]] = [
    {"id": "a", "text": "search server", "metadata": {"n": 1}},
    {"id": "b", "text": "墨池笔纸砚书", "metadata": {"n": 2}},
    {"id": "c", "text": "a b c", "title": "花", "metadata": {"n": 3}},
    {"id": "d", "text": "天气晴", "metadata": {"n": 4}},
    {"id": "e", "text": "风" * 40, "metadata": {"n": 5}},
]


def relevance(scorer: Model, query: str) -> dict[str, float]:
    """Return the relevance of each document, by its id."""
    texts = [titled(each.get("title"), each["text"]) for each in DOCUMENTS]
    ids = scorer.tokenizer.encode_pairs([(query, text) for text in texts]).ids
    scores = 1 / (1 + np.exp(-expected_scores(list(ids))[:, 0]))
    return {each["id"]: float(score) for each, score in zip(DOCUMENTS, scores, strict=True)}


async def searched(client: httpx.AsyncClient, **body: Any) -> Any:
    reply = await client.post("/search", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def filled(client: httpx.AsyncClient) -> None:
    assert (await client.post("/documents", json={"documents": DOCUMENTS})).status_code == 200


def best(scores: dict[str, float]) -> list[str]:
    return sorted(scores, key=lambda id: -scores[id])


@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_hits_are_ordered_by_the_reranker(toy_model: Model, toy_scorer: Model, mode: str) -> None:
    expected = relevance(toy_scorer, QUERY)

    async def test(client: httpx.AsyncClient) -> None:
        await filled(client)
        plain = (await searched(client, query=QUERY, mode=mode))["hits"]
        assert not any("rerank_score" in hit for hit in plain)
        hits = (await searched(client, query=QUERY, mode=mode, rerank={}))["hits"]
        assert [hit["id"] for hit in hits] == best(expected) != [hit["id"] for hit in plain]
        scores = {hit["id"]: hit["score"] for hit in plain}
        for hit in hits:
            assert hit["rerank_score"] == pytest.approx(expected[hit["id"]], abs=1e-6)
            assert hit["score"] == pytest.approx(scores[hit["id"]], abs=1e-6)
        two = (await searched(client, query=QUERY, mode=mode, top_k=2, rerank={}))["hits"]
        assert two == hits[:2]

    run(test, toy_model, others=[toy_scorer])


def test_only_candidates_are_reranked(toy_model: Model, toy_scorer: Model) -> None:
    expected = relevance(toy_scorer, QUERY)

    async def test(client: httpx.AsyncClient) -> None:
        await filled(client)
        plain = [hit["id"] for hit in (await searched(client, query=QUERY, top_k=3))["hits"]]
        asked = {"query": QUERY, "top_k": 2, "rerank": {"top_n": 3, "model": "toy-scorer"}}
        hits = (await searched(client, **asked))["hits"]
        assert [hit["id"] for hit in hits] == [id for id in best(expected) if id in plain][:2]
        # Candidates pass the filter.
        filter = {"n": {"$gte": 4}}
        kept = (await searched(client, query=QUERY, filter=filter, rerank={}))["hits"]
        assert [hit["id"] for hit in kept] == [id for id in best(expected) if id in "de"]

    run(test, toy_model, others=[toy_scorer])


def test_either_score_can_leave_hits_out(toy_model: Model, toy_scorer: Model) -> None:
    expected = relevance(toy_scorer, QUERY)

    async def test(client: httpx.AsyncClient) -> None:
        await filled(client)
        third = sorted(expected.values())[-3]
        asked = {"query": QUERY, "rerank": {"min_score": third - 1e-5}}
        assert [hit["id"] for hit in (await searched(client, **asked))["hits"]] == best(expected)[
            :3
        ]
        plain = (await searched(client, query=QUERY))["hits"]
        least = plain[1]["score"] - 1e-5
        hits = (await searched(client, query=QUERY, min_score=least, rerank={}))["hits"]
        assert {hit["id"] for hit in hits} == {hit["id"] for hit in plain[:2]}

    run(test, toy_model, others=[toy_scorer])


def test_several_queries_are_reranked_each_by_itself(toy_model: Model, toy_scorer: Model) -> None:
    queries = [QUERY, "search", "墨"]

    async def test(client: httpx.AsyncClient) -> None:
        empty = await searched(client, queries=queries, rerank={})
        assert empty == {"results": [{"hits": []}] * 3}
        await filled(client)
        found = await searched(client, queries=queries, rerank={}, highlight=True)
        for query, result in zip(queries, found["results"], strict=True):
            assert [hit["id"] for hit in result["hits"]] == best(relevance(toy_scorer, query))
            assert all("highlights" in hit for hit in result["hits"])
        vector = [1.0] * toy_model.manifest.dimension
        hybrid = await searched(client, query=QUERY, vector=vector, mode="hybrid", rerank={})
        assert [hit["id"] for hit in hybrid["hits"]] == best(relevance(toy_scorer, QUERY))

    run(test, toy_model, others=[toy_scorer])


def test_cut_candidates_are_counted(toy_model: Model, toy_scorer: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await filled(client)
        plain = await client.post("/search", json={"query": QUERY})
        assert "x-truncated" not in plain.headers
        reply = await client.post("/search", json={"query": QUERY, "rerank": {}})
        assert reply.headers["x-truncated"] == "1"

    run(test, toy_model, others=[toy_scorer])


WRONG: list[tuple[dict[str, Any], int, str]] = [
    ({"query": "a", "rerank": {"top_n": 0}}, 400, "rerank.top_n 0 is outside 1 to 200"),
    ({"query": "a", "rerank": {"top_n": 201}}, 400, "rerank.top_n 201"),
    ({"query": "a", "rerank": {"topn": 5}}, 400, "topn"),
    ({"query": "a", "rerank": {"min_score": 50}}, 400, "rerank.min_score 50 is outside 0 to 1"),
    ({"query": "a", "rerank": {"min_score": -0.5}}, 400, "rerank.min_score -0.5"),
    ({"query": "a", "rerank": True}, 400, "rerank"),
    ({"query": "a", "top_k": 6, "rerank": {"top_n": 5}}, 400, "top_k 6 is more than the 5"),
    ({"query": "a", "top_k": 201, "rerank": {}}, 400, "top_k 201 is more than the 200"),
    ({"vector": [1.0] * 32, "rerank": {}}, 400, '"rerank" needs "query"'),
    ({"queries": ["a"] * 20, "rerank": {"top_n": 11}}, 400, "are 220 pairs to score, at most 200"),
    ({"query": "a", "rerank": {"model": "toy"}}, 404, "'toy' gives dense vectors"),
    ({"query": "a", "rerank": {"model": "gpt"}}, 404, "'gpt' does not exist"),
]


def test_wrong_requests_get_the_reason(toy_model: Model, toy_scorer: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for body, status, said in WRONG:
            reply = await client.post("/search", json=body)
            assert said in check_error("native", reply, status), body
        assert (await searched(client, query="a", top_k=200, rerank={}))["hits"] == []

    run(test, toy_model, others=[toy_scorer], max_texts=200)


def test_without_a_reranker_nothing_is_searched(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await filled(client)
        reply = await client.post("/search", json={"query": QUERY, "rerank": {}})
        message = check_error("native", reply, 404, "task_not_served")
        assert "no reranker is loaded" in message and "--model" in message
        assert "inkwell_searches_total 0.0" in (await client.get("/metrics")).text

    run(test, toy_model)
