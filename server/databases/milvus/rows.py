"""Documents as rows of the collection of chunks, and back."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from server.databases.database import Entry, Row
from server.databases.milvus import pieces, words
from server.databases.milvus.marks import Marks, marks, size
from server.databases.milvus.schema import MOST_BOUNDS, MOST_MARKS, PLACEHOLDER
from server.errors import DatabaseRefused, shown
from server.store.records import Chunk, Document, Span

Stored = dict[str, Any]

# Fields of a row that hold long texts: what a search returns; of a document's first row, the whole document where
# its chunk is not that; and the terms with their counts.
CHUNK, DOCUMENT, TERMS = "chunk", "document", "terms"
OF_CHUNK = ["label", CHUNK, "chunk_pieces"]
OF_DOCUMENT = [*OF_CHUNK, "number", DOCUMENT, "document_pieces"]
LONG = (CHUNK, DOCUMENT, TERMS)
OF_VERSION = ["label", "number", "owner", *(f"{field}_pieces" for field in LONG)]
OF_ROW = ["label", "number", "digest", TERMS, "terms_pieces", "vector"]


@dataclass(frozen=True, slots=True)
class Written:
    """What is stored of a document: its rows, and the pieces that are too long for them."""

    rows: list[Stored]
    pieces: list[Stored]


def owner(id: str) -> str:
    """Return the hash by which the rows of a document are found."""
    return hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def written(entry: Entry) -> Written:
    """Return the rows of a document; raises DatabaseRefused for one that Milvus cannot hold."""
    document = entry.document
    read = _checked(document, marks(document))
    rows: list[Stored] = []
    further: list[Stored] = []
    for row in entry.rows:
        begin, end = row.span
        whole = (begin, end) == (0, len(document.text))
        stored: Stored = {
            "label": row.label,
            "number": entry.number,
            "head": row.label == entry.number,
            "owner": owner(document.id),
            "digest": entry.digest,
            **read.marks,
            "bounds": read.bounds,
            "vector": row.vector.astype(np.float32, copy=False).tolist(),
            "words": words.written(row.words),
        }
        text = document.text[begin:end]
        chunk = [document.id, text, document.title, document.metadata, begin, end, whole]
        apart = row.label == entry.number and not whole
        values = {
            CHUNK: pieces.packed(chunk),
            DOCUMENT: pieces.packed(list(document.fields().values())) if apart else "",
            TERMS: pieces.packed(row.words),
        }
        for field, value in values.items():
            cut = pieces.cut(value)
            stored[field], stored[f"{field}_pieces"] = cut[0], len(cut)
            further += (
                {"key": key, "piece": piece, "placeholder": list(PLACEHOLDER)}
                for key, piece in zip(pieces.keys(row.label, field, len(cut)), cut[1:], strict=True)
            )
        rows.append(stored)
    return Written(rows, further)


def piece_keys(row: Mapping[str, Any], *fields: str) -> list[str]:
    """Return the keys of the further pieces of these fields of a stored row."""
    return [
        key for field in fields for key in pieces.keys(row["label"], field, row[f"{field}_pieces"])
    ]


def chunk(row: Mapping[str, Any], others: Mapping[str, str]) -> Chunk:
    """Return the chunk of a stored row. others: pieces by their keys."""
    id, text, title, metadata, begin, end, whole = _value(row, CHUNK, others)
    return Chunk(id, text, title, metadata, Span(begin, end), whole)


def document(row: Mapping[str, Any], others: Mapping[str, str]) -> Document:
    """Return the document of its first row."""
    if row[DOCUMENT]:
        return Document(*_value(row, DOCUMENT, others))
    found = chunk(row, others)
    return Document(found.id, found.text, found.title, found.metadata)


def row(stored: Mapping[str, Any], others: Mapping[str, str]) -> Row:
    """Return a stored row as it was given; it has the fields of OF_CHUNK and OF_ROW."""
    return Row(
        label=stored["label"],
        span=chunk(stored, others).span,
        vector=np.asarray(stored["vector"], dtype=np.float32),
        words=Counter(_value(stored, TERMS, others)),
    )


def _value(row: Mapping[str, Any], field: str, others: Mapping[str, str]) -> Any:
    label, n_pieces = row["label"], row[f"{field}_pieces"]
    return json.loads(pieces.joined(row[field], label, field, n_pieces, others))


def _checked(document: Document, read: Marks) -> Marks:
    if max(map(len, read.marks.values())) > MOST_MARKS:
        total = sum(map(len, read.marks.values()))
        raise DatabaseRefused(
            f"the metadata of document {shown(document.id)} has {total} different values, fields and kinds, and"
            f" Milvus takes about {len(read.marks) * MOST_MARKS} of one document; store fewer of them as metadata"
        )
    if size(read.bounds) > MOST_BOUNDS:
        raise DatabaseRefused(
            f"the metadata of document {shown(document.id)} takes {size(read.bounds)} bytes where filters compare"
            f" it, and Milvus takes at most {MOST_BOUNDS} of one document; store long values in the text"
        )
    return read


def n_bytes(row: Stored) -> int:
    """Return about how many bytes a row takes in a request."""
    total = 100
    for value in row.values():
        if isinstance(value, str):
            total += len(value) * (1 if value.isascii() else 4)
        elif isinstance(value, list):
            total += len(value) * (34 if value and isinstance(value[0], str) else 4)
        elif isinstance(value, dict):
            total += size(value)
    return total
