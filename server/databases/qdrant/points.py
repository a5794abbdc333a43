"""The points in which Qdrant keeps the rows of documents, and documents and chunks as they are read back.

A row is a point whose id is its label. The first row of a document also holds what is asked of documents: the
digest and the whole text. It is written last, so that a document is there when all of its rows are.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from qdrant_client import models

from server.databases.database import Entry, Row
from server.databases.qdrant.conditions import CHUNK, REST, WHOLE
from server.databases.qdrant.facts import facts_of
from server.databases.qdrant.words import weights
from server.store.records import Chunk, Document, Span

DENSE, SPARSE = "dense", "words"
# Fields of a point besides those of `facts` and `conditions`.
DOCUMENT, NUMBER, FIRST, DIGEST = "doc", "number", "first", "digest"
OF_CHUNKS = ["id", "title", "metadata", "span", CHUNK, WHOLE]
OF_DOCUMENTS = ["id", "title", "metadata", NUMBER, CHUNK, REST]
OF_ROWS = [*OF_DOCUMENTS, "span", "counts", WHOLE, FIRST, DIGEST]
KEYWORD, INTEGER, BOOL = "keyword", "integer", "bool"
# All that queries and filters select by. Fields of metadata need none of their own: see `facts`.
INDEXES: Mapping[str, str] = {
    DOCUMENT: KEYWORD,
    NUMBER: INTEGER,
    FIRST: BOOL,
    "facts": KEYWORD,
    "order[].k": KEYWORD,
    "texts[].k": KEYWORD,
}


def document_key(id: str) -> str:
    """Return what a document's rows are selected by: 128 bits of SHA-256, as an id may be long."""
    return hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def points_of(entry: Entry) -> Iterator[models.PointStruct]:
    """Yield the points of a document, the first row last."""
    document = entry.document
    facts, order, texts = facts_of(document.id, document.title, document.metadata)
    shared = {
        DOCUMENT: document_key(document.id),
        NUMBER: entry.number,
        "id": document.id,
        "title": document.title,
        "metadata": json.dumps(document.metadata, ensure_ascii=False, allow_nan=False),
        "facts": facts,
        "order": order,
        "texts": texts,
    }
    for row in reversed(entry.rows):
        begin, end = row.span
        text = document.text[begin:end]
        whole = len(text) == len(document.text)
        payload = {
            **shared,
            "span": [begin, end],
            CHUNK: text,
            WHOLE: whole,
            "counts": json.dumps(dict(row.words), ensure_ascii=False),
        }
        if row.label == entry.number:
            payload |= {FIRST: True, DIGEST: entry.digest}
            if not whole:
                payload[REST] = document.text
        vector: dict[str, Any] = {DENSE: row.vector.tolist()}
        if row.words:
            vector[SPARSE] = models.SparseVector(**weights(row.words))
        yield models.PointStruct(id=row.label, vector=vector, payload=payload)


def n_bytes(point: models.PointStruct) -> int:
    """Return about how many bytes of JSON a point is, seldom less."""
    payload: dict[str, Any] = point.payload
    texts = sum(len(payload.get(key) or "") for key in (CHUNK, REST, "metadata", "counts", "title"))
    # Up to 6 for a character that JSON escapes or UTF-8 spreads; a number of a vector has about 20.
    fields = sum(len(payload[key]) for key in ("facts", "order", "texts"))
    n_numbers: int = len(point.vector[DENSE]) + 2 * payload["counts"].count(",")
    return 4 * texts + 300 * fields + 20 * n_numbers + 1_000


def chunk_of(payload: Mapping[str, Any]) -> Chunk:
    return Chunk(
        payload["id"],
        payload[CHUNK],
        payload["title"],
        json.loads(payload["metadata"]),
        Span(*payload["span"]),
        payload[WHOLE],
    )


def document_of(payload: Mapping[str, Any]) -> Document:
    """Return the document of a first row."""
    text = payload.get(REST, payload[CHUNK])
    return Document(payload["id"], text, payload["title"], json.loads(payload["metadata"]))


def entry_of(points: Sequence[Any]) -> Entry:
    """Return a document with its rows, from its points by ascending id."""
    first = points[0].payload
    rows = [
        Row(
            point.id,
            Span(*point.payload["span"]),
            np.asarray(point.vector[DENSE], dtype=np.float32),
            json.loads(point.payload["counts"]),
        )
        for point in points
    ]
    return Entry(document_of(first), first[DIGEST], rows)
