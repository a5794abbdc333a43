"""A full queue: clients that promise to try again do and succeed, the others say that it was full."""

from collections.abc import Iterator

import ollama
import pytest
from huggingface_hub.errors import HfHubHTTPError
from openai import OpenAI, RateLimitError
from pydantic import ValidationError

from processes import embedded
from refusing import Doorway, doorway
from singles import MODEL
from snippets import run
from test_vectors import QUERY, TEXTS, assert_same


@pytest.fixture
def door(busy_url: str, url: str) -> Iterator[Doorway]:
    with doorway(busy_url, url) as opened:
        yield opened


@pytest.mark.parametrize(
    "title",
    [
        "openai",
        "openai for JavaScript",
        "LangChain, OpenAIEmbeddings",
        "LlamaIndex, OpenAILikeEmbedding",
    ],
)
def test_a_refused_client_tries_again_and_succeeds(title: str, door: Doorway, url: str) -> None:
    found = run(title, door.url)
    assert_same(found["vectors"], embedded(url, TEXTS))
    assert_same([found["query"]], embedded(url, [QUERY], "query"))
    assert door.statuses == [429, 200, 200]
    assert door.waited_s >= door.retry_after_s >= 1


def test_openai_raises_its_own_error_when_it_may_not_try_again(door: Doorway) -> None:
    client = OpenAI(base_url=f"{door.url}/v1", api_key="none", max_retries=0)
    with pytest.raises(RateLimitError, match="try again later") as raised:
        client.embeddings.create(model=MODEL, input=TEXTS)
    assert raised.value.code == "overloaded"
    assert raised.value.type == "rate_limit_error"
    assert raised.value.response.headers["retry-after"] == str(door.retry_after_s)


@pytest.mark.parametrize("title", ["huggingface_hub", "LangChain, HuggingFaceEndpointEmbeddings"])
def test_clients_of_hugging_face_raise_at_once(title: str, door: Doorway) -> None:
    with pytest.raises(HfHubHTTPError, match="try again later") as raised:
        run(title, door.url)
    assert raised.value.response.status_code == 429
    assert door.statuses == [429]


def test_ollama_raises_at_once(door: Doorway) -> None:
    with pytest.raises(ollama.ResponseError, match="try again later") as raised:
        run("ollama", door.url)
    assert raised.value.status_code == 429
    assert door.statuses == [429]


def test_llama_index_for_tei_does_not_take_a_refusal_for_vectors(door: Doorway) -> None:
    with pytest.raises(ValidationError):
        run("LlamaIndex, TextEmbeddingsInference", door.url)
    assert door.statuses == [429]
