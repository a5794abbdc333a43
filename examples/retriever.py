"""The retriever of a RAG program: store a folder, find what answers a question, print a prompt with sources.

    python examples/retriever.py FOLDER "question"

It reads the .txt and .md files below FOLDER. The server cuts them into chunks, searches by meaning and by words,
and reranks the hits where it serves a reranker. The prompt is for the language model of your choice:

    python examples/retriever.py docs "How do I make a backup?" | ollama run qwen3
"""

import sys
from pathlib import Path
from typing import Any

from inkwell import ask, create_collection

COLLECTION = "retriever"
SUFFIXES = (".txt", ".md")
# Documents in one request, and hits in the prompt.
BATCH, TOP_K = 100, 5
PROMPT = """Answer the question from the numbered passages alone, in the language of the question.
Name the passages that you use, as [1]. If they do not contain the answer, say so.

{passages}

Question: {question}
"""


def index(folder: Path) -> int:
    """Store the files of a folder under their paths; return how many were new or changed."""
    create_collection(COLLECTION)
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
    documents = [
        {"id": str(path.relative_to(folder)), "text": text}
        for path in files
        if (text := path.read_text(encoding="utf-8", errors="replace")).strip()
    ]
    stored = 0
    for begin in range(0, len(documents), BATCH):
        some = documents[begin : begin + BATCH]
        stored += ask("POST", f"/collections/{COLLECTION}/documents", {"documents": some})["stored"]
    return stored


def retrieve(question: str) -> list[dict[str, Any]]:
    """Return the best chunks: by meaning and words, then as a reranker orders them, if one is served."""
    search: dict[str, Any] = {"query": question, "mode": "hybrid", "top_k": TOP_K}
    if any(model["task"] == "score" for model in ask("GET", "/info")["models"]):
        search["rerank"] = {}
    return list(ask("POST", f"/collections/{COLLECTION}/search", search)["hits"])


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    folder, question = Path(sys.argv[1]), sys.argv[2]
    if not folder.is_dir():
        raise SystemExit(f"{folder} is no folder")
    print(f"{index(folder)} files new or changed", file=sys.stderr)
    hits = retrieve(question)
    if not hits:
        raise SystemExit("nothing was found: no file of the folder is .txt or .md")
    passages = [f"[{n}] {hit['id']}\n{hit['text'].strip()}" for n, hit in enumerate(hits, 1)]
    print(PROMPT.format(passages="\n\n".join(passages), question=question))


if __name__ == "__main__":
    main()
