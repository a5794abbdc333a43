"""The command `import` with vectors: documents are stored with what an embedder made of them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, cast

from server.cli.exchange.vector_lines import WithParts
from server.cli.ingest import Indexed, index_documents
from server.cli.target import CollectionTarget
from server.errors import BadSettings
from server.messages.terminal import Terminal
from server.store.records import Document, Info


class Given(Protocol):
    """Documents that bring their vectors. dimension: of them, None where none shows it."""

    @property
    def dimension(self) -> int | None: ...

    def documents(self, info: Info) -> Iterator[tuple[WithParts, int]]:
        """Yield each document, with how much was read so far. info: of the collection."""


class NoDimension(BadSettings):
    """Raised for a collection that cannot be made: no model has the name, and no vector shows a dimension."""


async def import_given(
    target: CollectionTarget,
    given: Given,
    embedder: str,
    n_bytes: int,
    *,
    clock: Callable[[], float],
    terminal: Terminal,
) -> Indexed:
    """Store the documents of lines with their vectors."""
    info = await target.prepare_given(embedder, given.dimension)

    async def store(documents: Sequence[Document]) -> int:
        some = cast(Sequence[WithParts], documents)
        # Where an id comes twice, the last counts.
        parts = {each.id: each.parts for each in some}
        own = {id: found for id, found in parts.items() if found is not None}
        return await target.add_given([each.plain for each in some], own, embedder)

    return await index_documents(
        target, given.documents(info), n_bytes, clock=clock, terminal=terminal, store=store
    )


def no_dimension() -> NoDimension:
    """Return the error for a collection that cannot be made: no vector shows its dimension."""
    return NoDimension(
        "no line has a vector that shows how many numbers the collection's vectors have; give a file with "
        "vectors, --vectors FILE.npy, or create the collection over HTTP first"
    )
