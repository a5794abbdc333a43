"""What commands work on: a collection, in this process or of a server that runs elsewhere."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from server.errors import BadSettings
from server.messages.message import Message
from server.store.records import ChunkRules, Document
from server.store.search import Hit, Mode

# How documents are to be cut. None: not at all. UNSAID: as they are, or in a new collection into
# parts as long as the model reads.
UNSAID: Literal["unsaid"] = "unsaid"
Chunks = ChunkRules | Literal["unsaid"] | None


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    top_k: int = 3
    mode: Mode = "dense"
    filter: Mapping[str, object] | None = None


class Target(Protocol):
    """A collection: of the data folder in this process, or of a server that runs elsewhere."""

    @property
    def name(self) -> str: ...

    async def prepare(self, chunks: Chunks) -> None:
        """Make the collection if it is missing; raises BadSettings if its documents are cut otherwise."""

    async def add(self, documents: Sequence[Document]) -> int:
        """Store documents, all or none; returns how many were not stored just so already."""

    async def search(self, question: Question) -> list[Hit]: ...

    async def count(self) -> int:
        """Documents; 0 for a default collection that is not there yet."""

    def pages(self) -> AsyncIterator[list[Document]]:
        """All documents, oldest first."""

    async def reindex(self, chunks: Chunks, show: Callable[[int, int], None]) -> None:
        """Embed all documents anew; `show` is told how many of how many are done."""


def cut_otherwise(name: str, found: ChunkRules | None, asked: ChunkRules | None) -> BadSettings:
    """What to raise where a collection's documents are cut in another way than asked."""
    tokens = asked.size if asked else 0
    return BadSettings(
        "the documents of collection {name} are {found}, not {wanted}; leave out "
        "--chunk-tokens, or cut them anew: reindex --collection {name} --chunk-tokens "
        "{tokens}",
        name=name,
        found=_cut(found),
        wanted=_cut(asked),
        tokens=tokens,
    )


def _cut(rules: ChunkRules | None) -> Message:
    if rules is None:
        return Message("not cut")
    return Message(
        "cut into parts of {size} tokens that overlap by {overlap}",
        size=rules.size,
        overlap=rules.overlap,
    )
