"""The command `import` with vectors: documents are stored with what an embedder made of them."""

from collections.abc import Callable, Sequence
from typing import cast

from server.cli.exchange.vector_lines import VectorLines, WithParts
from server.cli.ingest import Indexed, index_documents
from server.cli.target import CollectionTarget
from server.errors import BadSettings
from server.messages.terminal import Terminal
from server.store.records import Document


async def import_given(
    target: CollectionTarget,
    given: VectorLines,
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


def no_dimension() -> BadSettings:
    """Return the error for a collection that cannot be made: no vector shows its dimension."""
    return BadSettings(
        "no line has a vector that shows how many numbers the collection's vectors have; give a file with "
        "vectors, --vectors FILE.npy, or create the collection over HTTP first"
    )
