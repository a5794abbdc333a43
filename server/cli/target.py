"""The collection that a command works on, in this process or on a server."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from server.errors import BadSettings, StartupError
from server.messages.message import Message
from server.store.reading.parts import Parts
from server.store.records import ChunkRules, Document, Info
from server.store.search import Hit, Mode

# How to chunk documents. None: not at all. UNSAID: as the collection does; a new collection has default
# chunks.
UNSAID: Literal["unsaid"] = "unsaid"
Chunks = ChunkRules | Literal["unsaid"] | None


@dataclass(frozen=True, slots=True)
class Rerank:
    """How to rerank. model: the first of scores where it is empty. top_n: candidates; None for the usual number."""

    model: str = ""
    top_n: int | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A query, with how to search for it. options: further keys of POST /search."""

    text: str
    top_k: int = 3
    mode: Mode = "dense"
    filter: Mapping[str, object] | None = None
    rerank: Rerank | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_without_text(self) -> bool:
        """Whether the options say what to find, so that it needs no text."""
        return any(name in self.options for name in ("like", "vector", "sort"))


@dataclass(frozen=True, slots=True)
class Found:
    """The hits of one query, best first, and what the filter could not find because of its type.

    hits: of all groups, where they are grouped. reply: the whole reply of the search, with groups and counts.
    """

    hits: Sequence[Hit]
    warnings: Sequence[str] = ()
    reply: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Documents, oldest first. next: what comes after them, empty at the end. warnings: as of Found."""

    documents: Sequence[Document]
    next: str
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Matching:
    """How many documents a filter keeps. warnings: as of Found."""

    number: int
    warnings: Sequence[str] = ()


class TooLargeForServer(StartupError):
    """Raised where a server takes no body of this size, or not so much in one request."""


class Target(Protocol):
    """A collection: of the data folder in this process, or on a server."""

    @property
    def name(self) -> str: ...

    async def prepare(self, chunks: Chunks) -> None:
        """Create the collection if it is missing; raises BadSettings if it cuts in another way."""

    async def add(self, documents: Sequence[Document]) -> int:
        """Store documents, all or none; return how many were new or changed."""

    async def search(self, question: Question) -> Found: ...

    async def count(self) -> int:
        """Return the number of documents; 0 for a default collection that does not exist yet."""

    def pages(self) -> AsyncIterator[list[Document]]:
        """Yield all documents, oldest first."""

    async def reindex(self, chunks: Chunks, show: Callable[[int, int], None]) -> None:
        """Embed all documents again; `show` gets how many of how many are done."""


class CollectionTarget(Target, Protocol):
    """A target with what commands on single documents and whole collections need, too."""

    def named(self, name: str) -> "CollectionTarget":
        """Return another collection of the same place, which need not exist."""

    async def names(self) -> Sequence[str]:
        """Return the names of all collections."""

    async def page(self, after: str, limit: int, filter: Mapping[str, object] | None) -> Page:
        """Return some documents that the filter keeps, those after `next` of the page before."""

    async def get(self, id: str) -> Document | None: ...

    async def matching(self, filter: Mapping[str, object]) -> Matching:
        """Count the documents that a filter keeps."""

    async def delete(self, ids: Sequence[str]) -> int:
        """Delete the documents of these ids; return how many there were."""

    async def delete_where(self, filter: Mapping[str, object]) -> int:
        """Delete the documents that a filter keeps; return how many; refuses one that keeps all."""

    async def has_reranker(self) -> bool:
        """Return whether a model that scores pairs is there."""

    async def prepare_given(self, embedder: str, dimension: int | None) -> Info:
        """Create the collection for this embedder if it is missing; return its description."""

    async def add_given(
        self, documents: Sequence[Document], parts: dict[str, Parts], embedder: str
    ) -> int:
        """Store documents with the vectors that the embedder made; return how many changed."""

    async def with_parts(self, ids: Sequence[str]) -> Sequence[tuple[Document, Parts | None]]:
        """Return the documents of these ids that exist, each with its chunks and their vectors."""

    async def remove(self) -> None:
        """Remove the collection with all its documents."""

    async def rename(self, name: str, *, keep_alias: bool) -> None:
        """Give the collection another name; keep_alias: whether the old one leads to it."""

    async def aliases(self) -> Mapping[str, str]:
        """Return the name of a collection by its alias."""

    async def set_alias(self, alias: str) -> None:
        """Let an alias lead to the collection."""

    async def forget_alias(self, alias: str) -> None:
        """Delete an alias; its collection stays."""

    async def words(self) -> dict[str, Any]:
        """Return the synonyms and stop words, as GET /words does."""

    async def set_words(self, given: dict[str, Any]) -> None:
        """Replace the synonyms and stop words, as PUT /words does."""


def cut_otherwise(name: str, found: ChunkRules | None, asked: ChunkRules | None) -> BadSettings:
    """Return the error for a collection whose documents are cut in another way than asked."""
    tokens = asked.size if asked else 0
    return BadSettings(
        "the documents of collection {name} are {found}, not {wanted}; leave out --chunk-tokens, "
        "or cut them again: reindex --collection {name} --chunk-tokens {tokens}",
        name=name,
        found=_cut(found),
        wanted=_cut(asked),
        tokens=tokens,
    )


def _cut(rules: ChunkRules | None) -> Message:
    if rules is None:
        return Message("whole")
    return Message(
        "cut into chunks of {size} tokens that overlap by {overlap}",
        size=rules.size,
        overlap=rules.overlap,
    )
