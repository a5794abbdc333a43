"""Reranking in the form of Cohere and Jina: requests are checked, then refused, because there is no reranker."""

from typing import Any

import httpx
import pytest

from server.inference.model import Model
from tests.support.clients import ask, run

PATHS = ("/rerank", "/v1/rerank", "/v2/rerank")
by_path = pytest.mark.parametrize("path", PATHS)


def refusal(response: httpx.Response, status: int) -> str:
    """Check a refusal; return its message, which Cohere's clients read as `message` and Jina's as `detail`."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"message", "detail"}
    assert body["message"] == body["detail"]
    assert body["message"] and not body["message"].endswith(".")
    return str(body["message"])


@by_path
def test_missing_reranker_is_reported(toy_model: Model, path: str) -> None:
    bodies: list[dict[str, Any]] = [
        {"query": "天气", "documents": ["晴", "雨"]},
        {"query": "weather", "documents": [{"text": "sunny"}, "rain"], "top_n": 1},
        {
            "model": "rerank-v3.5",
            "query": "天气",
            "documents": ["晴"],
            "top_n": None,
            "return_documents": True,
            "max_tokens_per_doc": 4096,
        },
    ]

    async def test(client: httpx.AsyncClient) -> None:
        for body in bodies:
            assert "no reranker is loaded" in refusal(await client.post(path, json=body), 404)

    run(test, toy_model)


@by_path
def test_wrong_requests_get_the_reason(toy_model: Model, path: str) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"documents": ["a"]}, "query"),
        ({"query": 5, "documents": ["a"]}, "query"),
        ({"query": "", "documents": ["a"]}, "query is empty"),
        ({"query": "a", "documents": []}, "list is empty"),
        ({"query": "a", "documents": ["b", ""]}, "text 1 is empty"),
        ({"query": "a", "documents": [{"text": ""}]}, "text 0 is empty"),
        ({"query": "a", "documents": [{"title": "b"}]}, "text"),
        ({"query": "a", "documents": "b"}, "documents"),
        ({"query": "a", "documents": ["b"], "top_n": 0}, "top_n"),
        ({"query": "a", "documents": ["b"], "return_documents": "yes"}, "return_documents"),
        ({"query": "a", "documents": ["b"] * 9}, "8 are allowed"),
        ({"query": "a"}, "documents"),
        ({}, "documents" if path == "/rerank" else "query"),
    ]

    async def test(client: httpx.AsyncClient) -> None:
        for body, said in wrong:
            assert said in refusal(await client.post(path, json=body), 400), body

    run(test, toy_model, max_texts=8)


@by_path
def test_what_no_handler_sees_has_the_same_shape(toy_model: Model, path: str) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        refusal(await client.get(path), 405)
        refusal(await client.post(path, content=b"{}"), 415)
        headers = {"content-type": "application/json"}
        refusal(await client.post(path, content=b"{", headers=headers), 400)
        refusal(await client.post(path, json={"query": "a" * 5000}), 413)

    run(test, toy_model, max_body_bytes=4000)


RANKING = {"query": {"text": "天气"}, "passages": [{"text": "晴"}, {"text": "雨"}]}
OTHERS: list[tuple[str, dict[str, Any], int, str]] = [
    ("/v1/ranking", RANKING, 404, "no reranker is loaded"),
    ("/v1/ranking", {**RANKING, "model": "nv-rerank", "truncate": "END"}, 404, "no reranker"),
    ("/v1/ranking", {**RANKING, "truncate": "MIDDLE"}, 400, "'NONE'"),
    ("/v1/ranking", {**RANKING, "query": "天气"}, 400, "$.query"),
    ("/v1/ranking", {**RANKING, "passages": [{"text": "晴"}, {}]}, 400, "$.passages[1]"),
    ("/v1/ranking", {**RANKING, "passages": []}, 400, "list is empty"),
    ("/v1/score", {"text_1": "天气", "text_2": ["晴", "雨"]}, 404, "no reranker is loaded"),
    ("/score", {"text_1": ["天气", "地"], "text_2": ["晴", "雨"]}, 404, "no reranker is loaded"),
    ("/score", {"text_1": ["天气", "地"], "text_2": ["晴"]}, 400, "text_1 has 2 texts"),
    ("/score", {"text_1": [], "text_2": []}, 400, "list is empty"),
    ("/score", {"text_1": "a", "text_2": ["b", ""]}, 400, "text 1 is empty"),
    ("/score", {"text_1": ["a", ""], "text_2": ["b", "c"]}, 400, "text 1 is empty"),
    ("/score", {"text_1": "a"}, 400, "text_2"),
]


def test_rankings_and_scores_are_checked_and_refused(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for path, body, status, said in OTHERS:
            assert said in refusal(await client.post(path, json=body), status), (path, body)

    run(test, toy_model)


def test_form_follows_from_the_key_of_the_body(toy_model: Model) -> None:
    tei = ask(toy_model, "POST", "/rerank", {"query": "天气", "texts": ["晴"]})
    assert (tei.status_code, tei.json()["error_type"]) == (424, "Backend")
    assert "no reranker is loaded" in tei.json()["error"]
    both = {"query": "天气", "texts": ["晴"], "documents": ["晴"]}
    said = refusal(ask(toy_model, "POST", "/rerank", both), 400)
    assert '"documents"' in said and '"texts"' in said
    # On other paths TEI's key is unknown and ignored.
    refusal(ask(toy_model, "POST", "/v1/rerank", both), 404)


def test_paths_are_described_with_their_bodies(toy_model: Model) -> None:
    page = ask(toy_model, "GET", "/openapi.json").json()
    for path in PATHS:
        described = page["paths"][path]["post"]
        assert described["requestBody"]["content"]["application/json"]["schema"]
        assert described["responses"]["404"]["content"]["application/json"]["schema"]
    shared = page["paths"]["/rerank"]["post"]["requestBody"]["content"]["application/json"]
    assert len(shared["schema"]["anyOf"]) == 2
