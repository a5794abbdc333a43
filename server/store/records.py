"""Values of documents and collections that others import: what is stored, and what is known of it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from server.store import Labels

MAX_ID = 512  # characters


class Span(NamedTuple):
    """Characters (code points) of a document, half open."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class ChunkRules:
    """size: tokens of a chunk at most, special tokens not counted; at least 1.

    overlap: tokens at the end of a chunk that the next one repeats, at most; 0 <= overlap < size.
    """

    size: int
    overlap: int

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.size:
            raise ValueError(
                f"an overlap of {self.overlap} is outside 0 to size - 1, {self.size - 1}"
            )


@dataclass(frozen=True, slots=True)
class Document:
    """What the caller stores; `metadata` is any JSON object."""

    id: str
    text: str
    title: str | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """What a label stands for: characters `span` of a document's text, which `text` are."""

    id: str
    text: str
    title: str | None
    metadata: Mapping[str, object]
    span: Span
    whole: bool


@dataclass(frozen=True, slots=True)
class Info:
    """Written into a database when it is made.

    fingerprint, dimension: of the model whose vectors it holds. chunks: how long documents are cut,
    None where they are not.
    """

    name: str
    fingerprint: str
    dimension: int
    chunks: ChunkRules | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """Labels that a write made and unmade, both int64.

    added: (B,), in the order of the documents' parts. removed: of the versions that were replaced;
    where one id came twice, also the labels just given to the first of the two.
    """

    added: Labels
    removed: Labels


class Listed(NamedTuple):
    """model: whose vectors they are, its id where that is known, or else its fingerprint."""

    name: str
    documents: int
    model: str


@dataclass(frozen=True, slots=True)
class CollectionStats:
    """Of one collection. Bytes are of files, but for index_bytes, which is memory.

    snapshot_s: when it was written, seconds since 1970. behind: parts that the snapshot lacks or has too
    many, which a start would have to make good. recall: at 10 neighbours, None while all are compared.
    """

    parts: int
    index_bytes: int
    database_bytes: int
    wal_bytes: int
    snapshot_bytes: int
    snapshot_s: float | None
    behind: int
    recall: float | None


def text_id(text: str) -> str:
    """80 bits of SHA-256: among ten million texts, two share an id with chance 4e-11."""
    return hashlib.sha256(text.encode()).hexdigest()[:20]
