"""Every client of a reranker gets the order and the scores that the server computes."""

import json
from typing import Any

import cohere
import httpx
import litellm
import pytest
import voyageai
from cohere.core.api_error import ApiError
from langchain_nvidia_ai_endpoints import NVIDIARerank

from processes import post
from snippets import SECTIONS, run

TEXTS = ["今天天气很好，适合出去郊游。", "The weather is fine today."]
MORE = [*TEXTS, "search server", "风"]
QUERY = "今天适合做什么？"
RERANKING = [title for title in SECTIONS if title.endswith("reranking")]


def ranked(url: str, texts: list[str]) -> list[tuple[int, float]]:
    """Return places and relevances in TEI's form, which all others must equal."""
    body = json.dumps({"query": QUERY, "texts": texts}).encode()
    status, _, reply = post(url, "/rerank", body)
    assert status == 200, reply
    return [(each["index"], each["score"]) for each in json.loads(reply)]


def assert_same(found: list[tuple[int, float]], expected: list[tuple[int, float]]) -> None:
    assert [place for place, _ in found] == [place for place, _ in expected]
    assert [score for _, score in found] == pytest.approx(
        [score for _, score in expected], abs=1e-6
    )


@pytest.mark.parametrize("title", RERANKING)
def test_the_documented_code_gets_the_order(title: str, reranking_url: str) -> None:
    expected = [place for place, _ in ranked(reranking_url, TEXTS)]
    assert run(title, reranking_url)["best"] == expected


@pytest.mark.parametrize("kind", [cohere.Client, cohere.ClientV2])
def test_cohere_gets_scores_and_the_best(kind: Any, reranking_url: str) -> None:
    client = kind(base_url=reranking_url, api_key="none")
    reply = client.rerank(model="reranker", query=QUERY, documents=MORE, top_n=3)
    found = [(each.index, each.relevance_score) for each in reply.results]
    assert_same(found, ranked(reranking_url, MORE)[:3])
    assert reply.meta.api_version.version in ("1", "2") and reply.id


def test_cohere_gets_documents(reranking_url: str) -> None:
    client = cohere.Client(base_url=reranking_url, api_key="none")
    reply = client.rerank(model="reranker", query=QUERY, documents=MORE, return_documents=True)
    assert {each.index: each.document.text for each in reply.results} == dict(enumerate(MORE))


def test_voyage_gets_scores_and_the_best(reranking_url: str) -> None:
    client = voyageai.Client(api_key="none", base_url=f"{reranking_url}/v1")
    reply = client.rerank(QUERY, MORE, model="reranker", top_k=2)
    found = [(each.index, each.relevance_score) for each in reply.results]
    assert_same(found, ranked(reranking_url, MORE)[:2])
    assert [each.document for each in reply.results] == [MORE[place] for place, _ in found]
    assert reply.total_tokens > 0


@pytest.mark.parametrize("provider", ["cohere", "jina_ai", "hosted_vllm", "voyage"])
def test_litellm_gets_scores_as_every_provider(provider: str, reranking_url: str) -> None:
    base = f"{reranking_url}/v1" if provider in ("voyage",) else reranking_url
    reply = litellm.rerank(
        model=f"{provider}/reranker", api_base=base, api_key="none", query=QUERY, documents=MORE
    )
    found = [(each["index"], each["relevance_score"]) for each in reply.results]
    assert_same(found, ranked(reranking_url, MORE))


def test_nvidia_gets_logits_in_the_same_order(reranking_url: str) -> None:
    from langchain_core.documents import Document

    client = NVIDIARerank(base_url=f"{reranking_url}/v1", model="reranker", api_key="none", top_n=3)
    documents = [Document(text, metadata={"place": place}) for place, text in enumerate(MORE)]
    found = client.compress_documents(documents, QUERY)
    expected = ranked(reranking_url, MORE)[:3]
    assert [each.metadata["place"] for each in found] == [place for place, _ in expected]
    logits = [each.metadata["relevance_score"] for each in found]
    assert logits == sorted(logits, reverse=True)


def test_an_unknown_reranker_is_reported(reranking_url: str) -> None:
    with pytest.raises(ApiError, match="'rerank-v3.5' does not exist here"):
        cohere.ClientV2(base_url=reranking_url, api_key="none").rerank(
            model="rerank-v3.5", query=QUERY, documents=TEXTS
        )


def test_vllm_gets_scores(reranking_url: str) -> None:
    body = {"model": "reranker", "text_1": QUERY, "text_2": MORE}
    data = httpx.post(f"{reranking_url}/v1/score", json=body).json()["data"]
    found = sorted(((each["index"], each["score"]) for each in data), key=lambda each: -each[1])
    assert_same(found, ranked(reranking_url, MORE))
