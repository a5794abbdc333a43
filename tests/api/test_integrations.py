"""Requests of the products in docs/en/how-to/integrations, as their sources write them: path, headers and body.

Clients that are packages run in tests/clients. These are products that cannot: here are their requests, with the
answers read as the product reads them.
"""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from server.inference.model import Model
from tests.support.fakes import PATIENCE_S
from tests.support.processes import ROOT, serving

TEXTS = ["今天天气很好，适合出去郊游。", "The weather is fine today."]
QUERY = "今天适合做什么？"
MODEL, RERANKER = "toy", "toy-scorer"
JSON = {"content-type": "application/json"}
# Clients without a key of their own send some text as one.
KEY = {**JSON, "authorization": "Bearer none"}
SAME = 1e-5


@pytest.fixture(scope="module")
def client(
    toy_artifact: Path, scorer_artifact: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """Speaks to a server with a model of vectors and a reranker."""
    folder = tmp_path_factory.mktemp("server")
    with (
        serving(toy_artifact, folder, "--model", str(scorer_artifact)) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE_S, trust_env=False) as client,
    ):
        yield client


def post(client: httpx.Client, path: str, body: dict[str, Any], headers: dict[str, str]) -> Any:
    reply = client.post(path, json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    return reply.json()


def assert_vectors(found: list[list[float]], model: Model, texts: list[str]) -> None:
    np.testing.assert_allclose(np.array(found), model.embed(texts), atol=SAME)


def as_query(model: Model, text: str = QUERY) -> list[str]:
    return [model.manifest.text.query_instruction + text]


# Each with the headers, and the keys of the body besides model and input.
EMBEDDINGS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "Dify without a key": ({**JSON, "authorization": ""}, {}),
    "Dify": (KEY, {"encoding_format": "float"}),
    "RAGFlow": (KEY, {"encoding_format": "float", "drop_params": True}),
    "FastGPT": (KEY, {"encoding_format": "float"}),
    "New API": (KEY, {"encoding_format": "float", "user": "1"}),
    "Open WebUI": (KEY, {"input_type": "document"}),
    "MaxKB": (KEY, {"encoding_format": "float"}),
    "Haystack": (KEY, {"encoding_format": "float"}),
}


@pytest.mark.parametrize("product", EMBEDDINGS)
def test_documents_of_products_with_openais_form(
    product: str, client: httpx.Client, toy_model: Model
) -> None:
    headers, more = EMBEDDINGS[product]
    reply = post(client, "/v1/embeddings", {"model": MODEL, "input": TEXTS, **more}, headers)
    data = sorted(reply["data"], key=lambda each: each["index"])
    assert_vectors([each["embedding"] for each in data], toy_model, TEXTS)
    assert reply["usage"]["total_tokens"] == reply["usage"]["prompt_tokens"] > 0


@pytest.mark.parametrize("product", ["AnythingLLM", "n8n", "LibreChat", "LangChain", "LlamaIndex"])
def test_products_on_openais_packages_get_base64(
    product: str, client: httpx.Client, toy_model: Model
) -> None:
    """These packages ask for base64 by themselves, and decode it."""
    body = {"model": MODEL, "input": TEXTS, "encoding_format": "base64"}
    data = post(client, "/v1/embeddings", body, KEY)["data"]
    found = [np.frombuffer(base64.b64decode(each["embedding"]), np.float32) for each in data]
    assert_vectors([row.tolist() for row in found], toy_model, TEXTS)


@pytest.mark.parametrize("format", [{}, {"encoding_format": "base64"}])
def test_spring_ais_client(format: dict[str, str], client: httpx.Client, toy_model: Model) -> None:
    headers = {**KEY, "user-agent": "OpenAI/Java", "x-stainless-lang": "java"}
    reply = post(client, "/v1/embeddings", {"input": TEXTS, "model": MODEL, **format}, headers)
    assert len(reply["data"]) == 2 and reply["model"] == MODEL


# How each product marks a question, where it can.
QUESTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "FastGPT, queryConfig": (MODEL, {"input": [QUERY], "input_type": "query"}),
    "Open WebUI, the field of the prefix": (MODEL, {"input": [QUERY], "input_type": "query"}),
    "n8n, the second node": (f"{MODEL}:query", {"input": QUERY}),
    "LangChain, LlamaIndex, Haystack, Spring AI": (f"{MODEL}:query", {"input": [QUERY]}),
    "AnythingLLM, the query prefix": (MODEL, {"input": ["搜索：" + QUERY]}),
    "Dify, the query prefix": (MODEL, {"input": ["搜索： " + QUERY]}),
}


@pytest.mark.parametrize("product", QUESTIONS)
def test_questions_get_the_instruction(
    product: str, client: httpx.Client, toy_model: Model
) -> None:
    model, body = QUESTIONS[product]
    body = {"model": model, "encoding_format": "float", **body}
    (found,) = post(client, "/v1/embeddings", body, KEY)["data"]
    assert_vectors([found["embedding"]], toy_model, as_query(toy_model))


def test_ragflows_other_providers(client: httpx.Client, toy_model: Model) -> None:
    # HuggingFace: a list for documents, a string for a question, and no key.
    assert_vectors(post(client, "/embed", {"inputs": TEXTS}, JSON), toy_model, TEXTS)
    assert_vectors(post(client, "/embed", {"inputs": QUERY}, JSON), toy_model, [QUERY])
    ollama = {"truncate": True, "options": {"use_mmap": True}, "keep_alive": -1}
    found = post(client, "/api/embed", {"model": MODEL, "input": TEXTS, **ollama}, JSON)
    assert_vectors(found["embeddings"], toy_model, TEXTS)
    assert found["prompt_eval_count"] > 0


def test_weaviates_modules(client: httpx.Client, toy_model: Model) -> None:
    """Weaviate sends no content-type, and asks whether the server is ready first."""
    assert client.get("/.well-known/ready").status_code < 300
    assert client.get("/meta").json()["model"] == MODEL
    for task, texts in (("passage", [QUERY]), ("query", as_query(toy_model))):
        config = {"pooling_strategy": "masked_mean", "task_type": task}
        body = {"text": QUERY, "dims": 0, "vector": None, "error": "", "config": config}
        reply = client.post("/vectors", content=httpx.Request("POST", "", json=body).content)
        assert reply.status_code == 200, reply.text
        assert_vectors([reply.json()["vector"]], toy_model, texts)


RERANKS: dict[str, tuple[str, dict[str, Any]]] = {
    "Dify": ("/v1/rerank", {"top_n": 2}),
    "RAGFlow, OpenAI-API-Compatible": ("/v1/rerank", {"top_n": 2}),
    "RAGFlow, LocalAI": ("/rerank", {"top_n": 2}),
    "RAGFlow, Xinference": ("/v1/rerank", {"return_documents": "true", "return_len": "true"}),
    "FastGPT": ("/v1/rerank", {}),
    "New API": ("/v1/rerank", {"top_n": 2, "return_documents": False}),
    "Open WebUI": ("/v1/rerank", {"top_n": 2}),
    "MaxKB, Xinference": ("/v1/rerank", {"top_n": 2, "return_documents": True}),
    "Weaviate, reranker-cohere": ("/v2/rerank", {"return_documents": False}),
}


@pytest.mark.parametrize("product", RERANKS)
def test_rerankers_of_products(product: str, client: httpx.Client) -> None:
    path, more = RERANKS[product]
    body = {"model": RERANKER, "query": QUERY, "documents": TEXTS, **more}
    results = post(client, path, body, KEY)["results"]
    assert sorted(each["index"] for each in results) == [0, 1]
    scores = [each["relevance_score"] for each in results]
    assert scores == sorted(scores, reverse=True) and all(0 <= score <= 1 for score in scores)
    if more.get("return_documents") in (True, "true"):
        assert [each["document"]["text"] for each in results] == [
            TEXTS[each["index"]] for each in results
        ]


def test_ragflows_huggingface_reranker(client: httpx.Client) -> None:
    body = {"query": QUERY, "texts": TEXTS, "raw_scores": False, "truncate": True}
    results = post(client, "/rerank", body, JSON)
    assert sorted(each["index"] for each in results) == [0, 1]
    assert all(0 <= each["score"] <= 1 for each in results)


def test_traps_are_answered_in_a_form_that_the_product_shows(client: httpx.Client) -> None:
    """The pages name these: a gateway's test of a channel, token ids, and a name of OpenAI's."""
    chat = client.post("/v1/chat/completions", json={"model": MODEL, "messages": []}, headers=KEY)
    ids = {"model": MODEL, "input": [[1, 2, 3]]}
    tokens = client.post("/v1/embeddings", json=ids, headers=KEY)
    named = {"model": "text-embedding-ada-002", "input": TEXTS}
    unknown = client.post("/v1/embeddings", json=named, headers=KEY)
    large = {"model": MODEL, "input": TEXTS, "dimensions": 1536}
    dimensions = client.post("/v1/embeddings", json=large, headers=KEY)
    said = [(reply.status_code, reply.json()["error"]["message"]) for reply in (chat, tokens)]
    assert said[0] == (404, "no such path: /v1/chat/completions")
    assert said[1][0] == 400 and "check_embedding_ctx_length=False" in said[1][1]
    assert unknown.status_code == 404 and MODEL in unknown.json()["error"]["message"]
    assert dimensions.status_code == 400
    # Weaviate's reranker-transformers has a form of its own, which is refused.
    body = {"query": QUERY, "documents": TEXTS, "property": ""}
    content = httpx.Request("POST", "", json=body).content
    assert client.post("/rerank", content=content).status_code == 415


def test_n8n_lists_only_names_with_embed(client: httpx.Client) -> None:
    listed = [each["id"] for each in client.get("/v1/models", headers=KEY).json()["data"]]
    assert listed[:2] == [MODEL, f"{MODEL}:query"]
    assert [name for name in listed if "embed" in name] == []


# --- pages -------------------------------------------------------------------------------------------

PAGES = sorted(ROOT.glob("docs/en/how-to/integrations/*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_names_its_route_and_the_source_that_was_read(page: Path) -> None:
    text = page.read_text("utf-8")
    if page.stem != "overview":
        assert "`POST /" in text, "the route that the product calls"
        assert "Read: " in text, "the version of the source"
        assert "overview.md" in text
