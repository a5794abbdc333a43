"""Writes to a collection in a vector database, as rows of the outbox: how they are made, and read again."""

import json
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from server.databases.database import Entry, Row
from server.store.passages.words import ChunkWords
from server.store.records import Document, Span
from server.store.schema import document_row
from server.store.sqlite.stored_text import stored, unpacked
from server.store.words.units import first_single
from server.types import Vectors

# label: of the first chunk, the others follow; NULL for a deletion. aside: why the write is not sent any more.
# What is long comes last: SQLite reads a row up to the last column that is asked for.
TABLE = (
    """CREATE TABLE writes (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL,
        label INTEGER,
        bytes INTEGER NOT NULL,
        at INTEGER NOT NULL,
        aside TEXT,
        checksum INTEGER,
        digest TEXT,
        title TEXT,
        metadata TEXT,
        text ANY,
        spans BLOB,
        vectors BLOB
    ) STRICT""",
    "CREATE INDEX writes_of_id ON writes (id)",
)
COLUMNS = "number, id, label, bytes, checksum, digest, title, metadata, text, spans, vectors"
INSERT = (
    "INSERT INTO writes (at, id, label, bytes, checksum, digest, title, metadata, text, spans, vectors)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
# What a row takes in the file beside its contents, about.
ROW_BYTES = 100

Columns = tuple[Any, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Put:
    """A document to store, with its chunks. vectors: float32 (B, D), one for each span."""

    document: Document
    digest: str
    spans: Sequence[Span]
    vectors: Vectors


@dataclass(frozen=True, slots=True)
class Delete:
    """A document to remove."""

    id: str


Write = Put | Delete


class PreparedWrite(NamedTuple):
    """A write as columns, from the id on. chunks: how many labels it needs. bytes: in the file, about."""

    id: str
    chunks: int
    bytes: int
    rest: Columns


class Damaged(ValueError):
    """Raised for a row that is not what was written."""


def prepared(write: Write) -> PreparedWrite:
    """Return a write as columns; raises InvalidRequest for what cannot be stored."""
    if isinstance(write, Delete):
        return PreparedWrite(write.id, 0, ROW_BYTES + len(write.id.encode()), (None,) * 7)
    id, text, title, metadata = document_row(write.document)
    spans = np.array(write.spans, dtype="<i8").tobytes()
    vectors = np.ascontiguousarray(write.vectors, dtype="<f4").tobytes()
    checksum = _checksum(id, write.digest, text, title, metadata, spans, vectors)
    kept = stored(text)
    texts = (id, title or "", metadata, kept)
    size = sum(len(each.encode() if isinstance(each, str) else each) for each in texts)
    rest = (checksum, write.digest, title, metadata, kept, spans, vectors)
    return PreparedWrite(id, len(write.spans), ROW_BYTES + size + len(spans) + len(vectors), rest)


def document_of(row: Columns) -> Document | None:
    """Return the document that a row of COLUMNS stores, None for a deletion; raises Damaged."""
    _, id, label, _, checksum, digest, title, metadata, kept, spans, vectors = row
    if label is None:
        return None
    try:
        text = unpacked(kept)
        found = _checksum(id, digest, text, title, metadata, spans, vectors)
    except (ValueError, TypeError) as error:
        raise Damaged(id) from error
    if found != checksum:
        raise Damaged(id)
    return Document(id, text, title, json.loads(metadata))


def entry_of(row: Columns) -> Entry | None:
    """Return the document of a row with its chunks, None for a deletion; raises Damaged."""
    document = document_of(row)
    if document is None:
        return None
    _, _, label, _, _, digest, _, _, _, spans, vectors = row
    places = np.frombuffer(spans, dtype="<i8").reshape(-1, 2).tolist()
    matrix = np.frombuffer(vectors, dtype="<f4").astype(np.float32).reshape(len(places), -1)
    words = ChunkWords(document.title, document.text)
    rows = [
        Row(label + place, Span(*span), vector, _counted(words.of(*span).split()))
        for place, (span, vector) in enumerate(zip(places, matrix, strict=True))
    ]
    return Entry(document, digest, rows)


def _counted(terms: Sequence[str]) -> Counter[str]:
    """Return how often each term is there, and each character that begins one.

    A query of a single character asks for every term that begins with it. FTS5 finds them by their beginning; the
    databases here compare whole terms.
    """
    found = Counter(terms)
    found.update(single for each in terms if (single := first_single(each)) is not None)
    return found


def _checksum(
    id: str, digest: str, text: str, title: str | None, metadata: str, spans: bytes, vectors: bytes
) -> int:
    whole = "\0".join((id, digest, "" if title is None else "+" + title, metadata, text))
    return zlib.crc32(vectors, zlib.crc32(spans, zlib.crc32(whole.encode())))
