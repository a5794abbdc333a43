"""The seam between this server and a vector database that keeps collections elsewhere.

How this works. A database keeps everything that it takes to answer: of each document its chunks, with
vectors, words, texts and metadata. What is written goes through an outbox here first, so that nothing
acknowledged is lost while the database is away, and it is written again after every doubt. So all that a
database must do is idempotent: `put` of the same entries twice leaves what it leaves once.

Each chunk has a label, which is its key in the database. Labels only grow and are never used again. A
document that is replaced gets new labels, and the rows under its older ones are removed. So of two versions of
a document the one with the greater labels counts, and documents are listed in the order of their labels.

Calls block, and come from any thread. A database that cannot be reached or does not answer in time raises
`DatabaseAway`, and one that says that it cannot do this now `DatabaseBusy`; one that answers with a refusal raises
`DatabaseRefused`, and trying again changes nothing.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from server.store.filters.tree import Filter
from server.store.records import Chunk, Document, Info, Span
from server.types import Vectors


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A chunk as a database stores it.

    label: its key. vector: float32 (D,). words: the terms of its text and title, as `store.lexical.indexed`
    has them, each with how often it is there.
    """

    label: int
    span: Span
    vector: Vectors
    words: Mapping[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A document as a database stores it: its rows, by ascending label; at least one.

    digest: of everything that was stored, by which an unchanged document is recognised.
    """

    document: Document
    digest: str
    rows: Sequence[Row]

    @property
    def number(self) -> int:
        """The label of its first row, by which documents are listed."""
        return self.rows[0].label


@dataclass(frozen=True, slots=True, eq=False)
class FoundRow:
    """A chunk that a search found; score: a cosine, BM25, or what the database fused of both."""

    label: int
    score: float
    chunk: Chunk


@dataclass(frozen=True, slots=True)
class Abilities:
    """What differs between databases, for users: documented, and tested by the same suite.

    conditions: the types of conditions in `store.filters.tree` that it evaluates; a filter with another one
    is refused. own_words: whether it ranks by words itself; else rows are ranked here, by SQL. own_fusion:
    whether it fuses both searches itself. whole_documents: whether a document is replaced whole, so that no
    search sees chunks of two versions.
    """

    conditions: frozenset[type]
    own_words: bool
    own_fusion: bool
    whole_documents: bool


class VectorDatabase(Protocol):
    """A connection to a database; made by `address.opened`.

    info.name is the name of the collection in the database, with letters that every database takes
    (`naming.database_name`). Methods that take an `info` expect that `create` was called for it.
    """

    abilities: Abilities

    def ping(self) -> str:
        """Return the database's product and version; raises DatabaseAway."""

    def create(self, info: Info) -> None:
        """Make an empty collection of this name, where there is none.

        One that is there and was made for the same fingerprint, dimension and chunks stays as it is. Raises
        DatabaseRefused for any other, also for one that another program made.
        """

    def info(self, name: str) -> Info | None:
        """Return what `create` was given for a collection; None where there is none, or not by `create`."""

    def names(self) -> list[str]:
        """Return the names of the collections that `create` made."""

    def drop(self, name: str) -> None:
        """Remove a collection and all in it; does nothing where there is none."""

    def put(self, info: Info, entries: Sequence[Entry]) -> None:
        """Store documents, each id once, in place of their older versions; seen by every later call."""

    def delete(self, info: Info, ids: Collection[str]) -> None:
        """Remove the documents of these ids; those that are not there are skipped."""

    def digests(self, info: Info, ids: Sequence[str]) -> dict[str, str]:
        """Return the digests of the stored documents among these."""

    def documents(self, info: Info, ids: Sequence[str]) -> dict[str, Document]:
        """Return the stored documents among these, whole, by id."""

    def entries(self, info: Info, after: int, limit: int) -> list[Entry]:
        """Return documents with greater numbers than `after`, by number, with all of their rows.

        At most `limit` of them; fewer only where there are no more.
        """

    def page(
        self, info: Info, after: int, limit: int, filter: Filter | None
    ) -> list[tuple[int, Document]]:
        """Return documents with greater numbers than `after` that the filter keeps, by number, with it."""

    def count(self, info: Info, filter: Filter | None) -> int:
        """Return how many documents there are, or how many the filter keeps; exactly."""

    def nearest(self, info: Info, vector: Vectors, k: int, filter: Filter | None) -> list[FoundRow]:
        """Return the `k` chunks with the greatest cosine, best first. vector: float32 (D,), unit length."""

    def by_words(
        self, info: Info, words: Sequence[str], k: int, filter: Filter | None
    ) -> list[FoundRow]:
        """Return the `k` chunks with the greatest BM25 of these terms, best first; only such that have one."""

    def by_both(
        self, info: Info, vector: Vectors, words: Sequence[str], k: int, filter: Filter | None
    ) -> list[FoundRow]:
        """Return the `k` best chunks by the reciprocal ranks of both searches, best first."""

    def close(self) -> None: ...
