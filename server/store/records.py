"""Values of documents and collections that other rooms import.

A long document is stored as several chunks, each with a label and a vector. The code says chunk.
The names `part` and `parts` of HTTP fields, metrics, messages, tables and columns mean the same; they
stay, because users and stored files rely on them.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from server.types import Labels

MAX_ID = 512  # characters
# Titles are lines. What is longer belongs into the text.
MAX_TITLE = 2_000
# Characters of the paths of all values of metadata: of one document, and of all documents of a write. 10,000
# documents with 30 values each under paths of 20 characters have 6 million.
MAX_PATHS, MAX_ALL_PATHS = 1 << 16, 1 << 24
# What is seen of a text: all but white space, control characters, and what Unicode lets programs not show
# (Default_Ignorable_Code_Point), with the blank of Braille and the marks of annotations.
VISIBLE = re.compile(
    "[^\\s\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
# The key of a collection's note of the kinds of CPU that computed its vectors.
COMPUTED_BY = "computed_by"
# The fingerprint of a collection whose vectors come from elsewhere is this and the embedder's name. A served
# model's fingerprint is hexadecimal, so the two never meet.
GIVEN = "embedder:"


def is_blank(text: str) -> bool:
    """Return whether a text has no visible character, so that no reader would call it a text."""
    return VISIBLE.search(text) is None


class Span(NamedTuple):
    """Characters (code points) of a document, half open."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class ChunkRules:
    """Rules by which documents are chunked.

    size: most tokens of a chunk, special tokens not counted; at least 1. overlap: most tokens at the
    end of a chunk that the next one repeats; 0 <= overlap < size.
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
    """A text to store and find; `metadata` is any JSON object."""

    id: str
    text: str
    title: str | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)

    def is_same(self, other: "Document | None") -> bool:
        """Return whether both are stored alike. Python's 1 equals true, and JSON's does not."""
        return self == other and _sorted(self.metadata) == _sorted(other.metadata)

    def fields(self) -> dict[str, object]:
        """Return the fields by name, the metadata as it is: it may be nested too deeply to be copied."""
        return {
            "id": self.id,
            "text": self.text,
            "title": self.title,
            "metadata": self.metadata,
        }


@dataclass(frozen=True, slots=True)
class Chunk:
    """The chunk of a label: `text`, which is the characters `span` of a document.

    whole: the chunk is the whole document.
    """

    id: str
    text: str
    title: str | None
    metadata: Mapping[str, object]
    span: Span
    whole: bool


@dataclass(frozen=True, slots=True)
class Info:
    """The description of a collection, written into its database when that is created.

    fingerprint, dimension: of the model whose vectors it holds. chunks: how its documents are
    chunked, None where they are not.
    """

    name: str
    fingerprint: str
    dimension: int
    chunks: ChunkRules | None = None

    @property
    def embedder(self) -> str | None:
        """The name of what made its vectors elsewhere; None where a model of this server makes them."""
        return self.fingerprint.removeprefix(GIVEN) if self.fingerprint.startswith(GIVEN) else None

    @property
    def in_parts(self) -> bool:
        """Whether a document may have several chunks."""
        return self.chunks is not None or self.embedder is not None


@dataclass(frozen=True, slots=True)
class Change:
    """Labels that a write added and removed, both int64.

    added: (B,), in the order of the documents' chunks. removed: of the versions that were replaced;
    where one id came twice, also the labels just given to the first of the two.
    """

    added: Labels
    removed: Labels


class Listed(NamedTuple):
    """A line of the list of collections.

    documents: None where its vector database does not say it. model: the id of the model whose vectors it holds;
    where that is not known, its fingerprint.
    """

    name: str
    documents: int | None
    model: str


@dataclass(frozen=True, slots=True)
class CollectionStats:
    """Sizes of one collection, for its metrics; bytes of files, but index_bytes and column_bytes are memory.

    snapshot_s: when it was written, seconds since 1970. behind: chunks that the snapshot lacks or has
    too many, which the next start must repair. recall: at 10 neighbours, None while all are compared.
    """

    chunks: int
    index_bytes: int
    database_bytes: int
    wal_bytes: int
    snapshot_bytes: int
    snapshot_s: float | None
    behind: int
    recall: float | None
    column_bytes: int = 0


def _sorted(metadata: Mapping[str, object]) -> str:
    return json.dumps(metadata, sort_keys=True) if metadata else ""


def titled(title: str | None, text: str) -> str:
    """Return a chunk's text with its document's title before it, as it is embedded and indexed."""
    return f"{title}\n{text}" if title else text


def text_id(text: str) -> str:
    """Return 80 bits of SHA-256; among ten million texts, two share an id with chance 4e-11."""
    return hashlib.sha256(text.encode()).hexdigest()[:20]
