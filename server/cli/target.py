"""What commands work on: a collection, in this process or of a server that runs elsewhere."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from server.errors import BadSettings
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
    (english, chinese), (wanted, wanted_chinese) = _cut(found), _cut(asked)
    tokens = asked.size if asked else 0
    return BadSettings(
        f"the documents of collection {name} are {english}, not {wanted}; leave out --chunk-tokens,"
        f" or cut them anew: reindex --collection {name} --chunk-tokens {tokens}",
        f"集合 {name} 的文档{chinese}，而不是{wanted_chinese}；请去掉 --chunk-tokens，"
        f"或重新切分：reindex --collection {name} --chunk-tokens {tokens}",
    )


def _cut(rules: ChunkRules | None) -> tuple[str, str]:
    if rules is None:
        return "not cut", "不切分"
    return (
        f"cut into parts of {rules.size} tokens that overlap by {rules.overlap}",
        f"切分为 {rules.size} 个 token 的片段、重叠 {rules.overlap} 个",
    )
