"""A server that asks for keys: clients send theirs as they always do, and say when it is not good."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cohere
import ollama
import openai
import pytest
from cohere.core.api_error import ApiError
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from processes import ROOT, serving
from singles import MODEL

TEXT = "今天天气很好，适合出去郊游。"


class Locked(NamedTuple):
    """A server's address and keys: one that may embed, one that may do something else only."""

    url: str
    good: str
    other: str


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    file = tmp_path_factory.mktemp("keys") / "keys"
    good, other = new_key(file, "app", "embed"), new_key(file, "scraper", "metrics")
    with serving("--keys", str(file)) as url:
        yield Locked(url, good, other)


def new_key(file: Path, name: str, scopes: str) -> str:
    """Return what the command shows."""
    python = ROOT / ".venv" / "bin" / "python"
    arguments = ["key", "new", name, "--scopes", scopes, "--keys", str(file)]
    done = subprocess.run(
        [python, "-m", "server", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_openai_is_let_in_with_a_key(locked: Locked) -> None:
    client = openai.OpenAI(base_url=f"{locked.url}/v1", api_key=locked.good)
    reply = client.embeddings.create(model=MODEL, input=[TEXT])
    assert len(reply.data[0].embedding) == 512
    assert [each.id for each in client.models.list()][0] == MODEL


def test_openai_says_that_a_key_is_wrong_or_may_not(locked: Locked) -> None:
    client = openai.OpenAI(base_url=f"{locked.url}/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.AuthenticationError, match="the key is not one of") as wrong:
        client.embeddings.create(model=MODEL, input=[TEXT])
    assert wrong.value.code == "unauthorized" and wrong.value.request_id
    client = client.with_options(api_key=locked.other)
    with pytest.raises(openai.PermissionDeniedError, match="needs the scope embed") as lacking:
        client.embeddings.create(model=MODEL, input=[TEXT])
    assert lacking.value.code == "forbidden"


def test_ollama_is_let_in_with_a_header(locked: Locked) -> None:
    headers = {"authorization": f"Bearer {locked.good}"}
    found = ollama.Client(host=locked.url, headers=headers).embed(model=MODEL, input=TEXT)
    assert len(found.embeddings[0]) == 512
    with pytest.raises(ollama.ResponseError, match="asks for a key") as refused:
        ollama.Client(host=locked.url, headers={"authorization": ""}).embed(model=MODEL, input=TEXT)
    assert refused.value.status_code == 401


def test_huggingface_hub_is_let_in_with_a_token(locked: Locked) -> None:
    client = InferenceClient(base_url=f"{locked.url}/embed", token=locked.good)
    assert client.feature_extraction(TEXT).shape == (1, 512)
    with pytest.raises(HfHubHTTPError) as refused:
        InferenceClient(base_url=f"{locked.url}/embed", token="none").feature_extraction(TEXT)
    assert refused.value.response.status_code == 401


def test_cohere_sends_its_key_too(locked: Locked) -> None:
    for key, said in ((locked.good, "no reranker is loaded"), ("none", "not one of this server's")):
        with pytest.raises(ApiError, match=said):
            cohere.ClientV2(base_url=locked.url, api_key=key).rerank(
                model="reranker", query="天", documents=["地"]
            )


def test_large_request_without_a_key_is_told_why(locked: Locked) -> None:
    """Its connection is closed before it has sent everything."""
    client = openai.OpenAI(base_url=f"{locked.url}/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        client.embeddings.create(model=MODEL, input=["天" * 4000] * 2000)
