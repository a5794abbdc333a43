"""LlamaIndex on this server, in two ways: its vectors in LlamaIndex's own index, and its search as a retriever.

pip install llama-index-core llama-index-embeddings-openai-like
python examples/llamaindex_search.py
"""

from pathlib import Path

from llama_index.core import VectorStoreIndex
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.embeddings.openai_like import OpenAILikeEmbedding

from inkwell import KEY, URL, ask, create_collection

MODEL = "bge-small-zh-v1.5"
COLLECTION = "llamaindex"


def embedding(model: str) -> OpenAILikeEmbedding:
    return OpenAILikeEmbedding(model_name=model, api_base=f"{URL}/v1", api_key=KEY or "none")


class Retriever(BaseRetriever):
    """Searches a collection of the server."""

    def __init__(self, collection: str = COLLECTION, top_k: int = 3) -> None:
        self._collection, self._top_k = collection, top_k
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        search = {"query": query_bundle.query_str, "mode": "hybrid", "top_k": self._top_k}
        hits = ask("POST", f"/collections/{self._collection}/search", search)["hits"]
        return [
            NodeWithScore(
                node=TextNode(id_=hit["id"], text=hit["text"], metadata=hit["metadata"]),
                score=hit["score"],
            )
            for hit in hits
        ]


def main() -> None:
    lines = Path(__file__).with_name("docs.txt").read_text(encoding="utf-8").splitlines()
    question = "AI 能做哪些事?"

    # Documents with one model name, queries with the other, which adds the model's instruction.
    nodes = [TextNode(text=line) for line in lines]
    index = VectorStoreIndex(nodes, embed_model=embedding(MODEL))
    of_vectors = index.as_retriever(similarity_top_k=1, embed_model=embedding(f"{MODEL}:query"))
    for found in of_vectors.retrieve(question):
        print("vectors of the server:", found.text)

    create_collection(COLLECTION)
    documents = [{"text": line} for line in lines]
    ask("POST", f"/collections/{COLLECTION}/documents", {"documents": documents})
    for found in Retriever(top_k=1).retrieve(question):
        print("search of the server:", found.text)


if __name__ == "__main__":
    main()
