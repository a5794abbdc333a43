"""LangChain on this server, in two ways: its vectors in LangChain's own store, and its search as a retriever.

    pip install langchain-openai
    python examples/langchain_search.py

The first way only computes vectors here. The second also stores and searches here: by meaning and by words, with
filters, and without loading all vectors into your program.
"""

from pathlib import Path

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import OpenAIEmbeddings

from inkwell import KEY, URL, ask, create_collection

MODEL = "bge-small-zh-v1.5"
COLLECTION = "langchain"


class Embeddings(OpenAIEmbeddings):
    """Vectors of this server; a query gets the model's instruction, a document does not."""

    def embed_query(self, text: str, **kwargs: object) -> list[float]:
        return self.model_copy(update={"model": f"{MODEL}:query"}).embed_documents([text])[0]


def embeddings() -> Embeddings:
    # Without check_embedding_ctx_length=False LangChain sends token ids of OpenAI's vocabulary, which tiktoken
    # downloads from a public host.
    return Embeddings(
        model=MODEL,
        base_url=f"{URL}/v1",
        api_key=KEY or "none",
        check_embedding_ctx_length=False,
    )


class Retriever(BaseRetriever):
    """Searches a collection of the server."""

    collection: str = COLLECTION
    top_k: int = 3

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        search = {"query": query, "mode": "hybrid", "top_k": self.top_k}
        hits = ask("POST", f"/collections/{self.collection}/search", search)["hits"]
        return [
            Document(hit["text"], id=hit["id"], metadata={**hit["metadata"], "score": hit["score"]})
            for hit in hits
        ]


def main() -> None:
    lines = Path(__file__).with_name("docs.txt").read_text(encoding="utf-8").splitlines()
    question = "AI 能做哪些事?"

    store = InMemoryVectorStore.from_texts(lines, embeddings())
    for document in store.similarity_search(question, k=1):
        print("vectors of the server:", document.page_content)

    create_collection(COLLECTION)
    documents = [{"text": line} for line in lines]
    ask("POST", f"/collections/{COLLECTION}/documents", {"documents": documents})
    for document in Retriever(top_k=1).invoke(question):
        print("search of the server:", document.page_content)


if __name__ == "__main__":
    main()
