"""Packages as products configure them: what docs/en/how-to/integrations says of them is so."""

import cohere
import pytest
from haystack import Document
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.utils import Secret
from langchain_openai import OpenAIEmbeddings
from llama_index.embeddings.openai import OpenAIEmbedding
from xinference_client import RESTfulClient

from processes import embedded
from singles import MODEL
from test_vectors import QUERY, TEXTS, assert_same


def test_haystacks_embedders_for_openai(url: str) -> None:
    server = {"api_key": Secret.from_token("none"), "api_base_url": f"{url}/v1"}
    documents = OpenAIDocumentEmbedder(
        model=MODEL, batch_size=32, progress_bar=False, raise_on_failure=True, **server
    )
    found = documents.run([Document(content=text) for text in TEXTS])["documents"]
    assert_same([each.embedding for each in found], embedded(url, TEXTS))
    query = OpenAITextEmbedder(model=f"{MODEL}:query", **server).run(QUERY)["embedding"]
    assert_same([query], embedded(url, [QUERY], "query"))


def test_langchain_as_librechats_rag_api_configures_it(url: str) -> None:
    embeddings = OpenAIEmbeddings(
        model=MODEL,
        api_key="none",
        openai_api_base=f"{url}/v1",
        openai_proxy=None,
        chunk_size=200,
        check_embedding_ctx_length=False,
    )
    assert_same(embeddings.embed_documents(TEXTS), embedded(url, TEXTS))
    assert_same([embeddings.embed_query(QUERY)], embedded(url, [QUERY]))


def test_llamaindexs_class_for_openai_refuses_the_name_by_itself(url: str) -> None:
    with pytest.raises(ValueError, match="not a valid OpenAIEmbeddingModelType"):
        OpenAIEmbedding(model=MODEL, api_base=f"{url}/v1", api_key="none")


def test_maxkbs_rerankers(reranking_url: str) -> None:
    """Xinference's client gets the documents that MaxKB reads; Cohere's second version has none."""
    model = RESTfulClient(reranking_url, None).get_model("reranker")
    results = model.rerank(TEXTS, QUERY, 2, return_documents=True)["results"]
    assert {each["document"]["text"] for each in results} <= set(TEXTS)
    assert all(0 <= each["relevance_score"] <= 1 for each in results)
    client = cohere.ClientV2("none", base_url=reranking_url)
    ranking = client.rerank(model="reranker", query=QUERY, documents=TEXTS)
    assert all(getattr(each, "document", None) is None for each in ranking.results)
