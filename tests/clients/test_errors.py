"""Every client turns a refusal into its own exception, with the server's sentence in it."""

from pathlib import Path

import cohere
import llama_index.core
import ollama
import openai
import pytest
from cohere.core.api_error import ApiError
from huggingface_hub.errors import HfHubHTTPError
from langchain_openai import OpenAIEmbeddings

from singles import MODEL, SINGLES
from snippets import node, run

EMPTY = "text 0 is empty"


@pytest.mark.parametrize(
    "title", ["openai", "LangChain, OpenAIEmbeddings", "LlamaIndex, OpenAILikeEmbedding"]
)
def test_an_empty_text_is_a_bad_request_in_clients_of_openai(title: str, url: str) -> None:
    found = run(title, url)
    with pytest.raises(openai.BadRequestError, match=EMPTY) as raised:
        SINGLES[title](found, "")
    assert raised.value.code == "empty_input"
    assert raised.value.type == "invalid_request_error"


def test_an_unknown_model_is_not_found_in_openai(url: str) -> None:
    embed = run("openai", url)["embed"]
    with pytest.raises(openai.NotFoundError, match=f"'other' does not exist .*{MODEL}") as raised:
        embed("other", ["天"])
    assert raised.value.code == "model_not_found"
    assert raised.value.param == "model"


def test_an_empty_text_is_a_bad_request_in_openai_for_javascript(url: str) -> None:
    more = """
try {
  await embed("bge-small-zh-v1.5", "");
} catch (error) {
  const { status, code, message } = error;
  const ours = error instanceof OpenAI.BadRequestError;
  console.log(JSON.stringify({ ours, status, code, message }));
}"""
    found = node("openai for JavaScript", url, more)
    assert found.pop("message").endswith(EMPTY)
    assert found == {"ours": True, "status": 400, "code": "empty_input"}


@pytest.mark.parametrize("title", ["huggingface_hub", "LangChain, HuggingFaceEndpointEmbeddings"])
def test_an_empty_text_is_an_http_error_in_clients_of_hugging_face(title: str, url: str) -> None:
    found = run(title, url)
    with pytest.raises(HfHubHTTPError, match=EMPTY) as raised:
        SINGLES[title](found, "")
    assert raised.value.response.status_code == 400


def test_what_tei_cannot_do_here_is_an_http_error_in_huggingface_hub(url: str) -> None:
    client = run("huggingface_hub", url)["client"]
    with pytest.raises(HfHubHTTPError, match="'poem' is not known") as raised:
        client.feature_extraction("天", prompt_name="poem")
    assert raised.value.response.status_code == 422
    # The model normalises all the same.
    found = client.feature_extraction("天", normalize=False)
    assert (found == client.feature_extraction("天")).all()


def test_llama_index_for_tei_does_not_take_a_refusal_for_a_vector(url: str) -> None:
    found = run("LlamaIndex, TextEmbeddingsInference", url)
    with pytest.raises(KeyError):
        SINGLES["LlamaIndex, TextEmbeddingsInference"](found, "")


def test_an_unknown_model_is_a_response_error_in_ollama(url: str) -> None:
    embed = run("ollama", url)["embed"]
    with pytest.raises(ollama.ResponseError, match="model 'other' not found") as raised:
        embed("other", ["天"])
    assert raised.value.status_code == 404


def test_cohere_says_that_no_reranker_is_loaded(url: str) -> None:
    with pytest.raises(ApiError, match="no reranker is loaded"):
        run("cohere, reranking", url)
    client = cohere.ClientV2(base_url=url, api_key="none")
    with pytest.raises(ApiError, match="no reranker is loaded"):
        client.rerank(model="reranker", query="天", documents=["地"])


def test_langchain_says_what_to_set_when_it_sends_token_ids(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # LangChain would download the vocabulary; LlamaIndex brings a copy.
    folder = Path(llama_index.core.__file__).parent / "_static" / "tiktoken_cache"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
    documents = OpenAIEmbeddings(model=MODEL, base_url=f"{url}/v1", api_key="none")
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        documents.embed_documents(["今天天气很好，适合出去郊游。"])
