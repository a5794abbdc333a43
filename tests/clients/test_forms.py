"""The other ways in which clients ask: each gets the vectors of its kind of text, or the reason why not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cohere
import litellm
import llama_index.core
import openai
import pytest
from chromadb.utils.embedding_functions import JinaEmbeddingFunction
from langchain_nvidia_ai_endpoints import NVIDIAEmbeddings
from langchain_openai import AzureOpenAIEmbeddings, OpenAIEmbeddings
from tokenizers import Tokenizer
from xinference_client import RESTfulClient

from processes import MODEL as ARTIFACT
from processes import embedded, post, serving
from singles import MODEL
from test_vectors import QUERY, TEXTS, assert_same

# LlamaIndex brings OpenAI's vocabulary, which LangChain would download.
CACHE = Path(llama_index.core.__file__).parent / "_static" / "tiktoken_cache"
CL100K = CACHE / "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"


def kinds(url: str) -> tuple[Any, Any]:
    """Return the vectors of the texts as documents, and those of the query."""
    return embedded(url, TEXTS), embedded(url, [QUERY], "query")


def test_coheres_second_version_has_float_and_base64(url: str) -> None:
    client = cohere.ClientV2(base_url=url, api_key="none")
    documents, query = kinds(url)
    found = client.embed(
        texts=TEXTS, model=MODEL, input_type="search_document", embedding_types=["float"]
    )
    assert_same(found.embeddings.float_ or [], documents)
    assert found.meta is not None and found.texts == TEXTS
    found = client.embed(
        texts=[QUERY], model=MODEL, input_type="search_query", embedding_types=["float", "base64"]
    )
    assert_same(found.embeddings.float_ or [], query)
    assert found.embeddings.base64 is not None
    with pytest.raises(cohere.core.api_error.ApiError, match="search_document"):
        client.embed(texts=TEXTS, model=MODEL, input_type="image")


@pytest.mark.parametrize(
    ("provider", "path", "document", "query"),
    [
        ("cohere", "/v1/embed", {"input_type": "search_document"}, {"input_type": "search_query"}),
        ("cohere", "/v2/embed", {"input_type": "search_document"}, {"input_type": "search_query"}),
        ("voyage", "/v1/embeddings", {"input_type": "document"}, {"input_type": "query"}),
        ("jina_ai", "/v1/embeddings", {"task": "retrieval.passage"}, {"task": "retrieval.query"}),
        ("nvidia_nim", "/v1", {"input_type": "passage"}, {"input_type": "query"}),
    ],
)
def test_litellm_asks_as_each_provider_does(
    provider: str, path: str, document: dict[str, str], query: dict[str, str], url: str
) -> None:
    def embed(texts: list[str], extra: dict[str, str]) -> list[list[float]]:
        reply = litellm.embedding(
            model=f"{provider}/{MODEL}", input=texts, api_base=url + path, api_key="none", **extra
        )
        return [each["embedding"] for each in reply.data]

    documents, queries = kinds(url)
    assert_same(embed(TEXTS, document), documents)
    assert_same(embed([QUERY], query), queries)


def test_chroma_asks_as_jina_does(url: str) -> None:
    def ask(task: str) -> JinaEmbeddingFunction:
        found = JinaEmbeddingFunction(
            api_key="none", model_name=MODEL, task=task, truncate=True, dimensions=512
        )
        # It takes no address.
        found._api_url = f"{url}/v1/embeddings"
        return found

    documents, query = kinds(url)
    assert_same(ask("retrieval.passage")(TEXTS), documents)
    assert_same(ask("retrieval.query")([QUERY]), query)
    with pytest.raises(RuntimeError, match="'retrieval.poem' is not known"):
        ask("retrieval.poem")(TEXTS)


def test_refusals_reach_the_callers_of_nvidia_and_xinference(url: str) -> None:
    client = NVIDIAEmbeddings(model="other", base_url=f"{url}/v1", api_key="none")
    with pytest.raises(Exception, match="'other' does not exist here"):
        client.embed_query(QUERY)
    model = RESTfulClient(url).get_model(MODEL)
    with pytest.raises(RuntimeError, match="text 0 is empty"):
        model.create_embedding("")
    with pytest.raises(RuntimeError, match="'other' does not exist here"):
        RESTfulClient(url).get_model("other")


def test_azures_clients_name_the_model_in_the_path(url: str) -> None:
    def client(deployment: str) -> openai.AzureOpenAI:
        return openai.AzureOpenAI(
            azure_endpoint=url,
            azure_deployment=deployment,
            api_version="2024-10-21",
            api_key="none",
        )

    documents, query = kinds(url)
    found = client(MODEL).embeddings.create(model="text-embedding-3-small", input=TEXTS)
    assert_same([each.embedding for each in found.data], documents)
    found = client(f"{MODEL}:query").embeddings.create(model="any", input=[QUERY])
    assert_same([each.embedding for each in found.data], query)
    newer = openai.OpenAI(base_url=f"{url}/openai/v1/", api_key="none")
    found = newer.embeddings.create(model=MODEL, input=TEXTS)
    assert_same([each.embedding for each in found.data], documents)


@pytest.fixture(scope="module")
def decoding() -> Iterator[str]:
    """The address of a server that takes ids of cl100k_base."""
    with serving("--token-ids", f"cl100k_base={CL100K}", "--model-alias", "*") as address:
        yield address


def test_langchains_default_gives_the_vectors_of_the_texts(
    decoding: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(CACHE))
    texts = [*TEXTS, "🚀 naïve Ünïcödé 漢字 <|endoftext|>", "日" * 300]
    # The name by which LangChain chooses the vocabulary.
    common: dict[str, Any] = {"model": "text-embedding-3-small", "api_key": "none"}
    plain = OpenAIEmbeddings(base_url=f"{decoding}/v1", **common)
    assert_same(plain.embed_documents(texts), embedded(url, texts))
    azure = AzureOpenAIEmbeddings(
        azure_endpoint=decoding, api_version="2024-10-21", azure_deployment=MODEL, **common
    )
    assert_same(azure.embed_documents(texts), embedded(url, texts))


def test_ids_of_the_served_vocabulary_give_the_vectors_of_the_texts(url: str) -> None:

    tokenizer = Tokenizer.from_file(str(ARTIFACT / "tokenizer.json"))
    tokenizer.no_truncation()
    texts = [*TEXTS, "GB/T 7714-2015: 3.14% (naive)", "unaffable"]
    ids = [each.ids for each in tokenizer.encode_batch([text.lower() for text in texts])]
    with serving("--token-ids", "model") as served:
        status, _, reply = post(served, "/v1/embeddings", json.dumps({"input": ids}).encode())
    assert status == 200, reply
    found = [each["embedding"] for each in json.loads(reply)["data"]]
    assert_same(found, embedded(url, texts))
