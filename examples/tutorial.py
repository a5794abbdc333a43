"""The program that tutorials build, on this server: store the lines of docs.txt and search them.

    python examples/tutorial.py [docs.txt]

The tutorial loads sentence-transformers, encodes docs.txt into FAISS at every start, and asks at a prompt.
Here the server has the model and keeps the vectors, so this starts at once, and again without encoding.
"""

import sys
from pathlib import Path

from inkwell import ask, create_collection

COLLECTION = "tutorial"


def main() -> None:
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("docs.txt")
    # model.encode(docs) and index.add(vectors): the server embeds and stores what is new.
    documents = [
        {"text": line.strip()}
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]
    create_collection(COLLECTION)
    stored = ask("POST", f"/collections/{COLLECTION}/documents", {"documents": documents})["stored"]
    print(f"{len(documents)} documents, {stored} of them new")
    while True:
        try:
            query = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            break
        # model.encode([query]) and index.search(vector, 3).
        if query:
            search = {"query": query, "top_k": 3}
            for hit in ask("POST", f"/collections/{COLLECTION}/search", search)["hits"]:
                print(f"{hit['score']:.3f} {hit['text']}")


if __name__ == "__main__":
    main()
