"""What GET /stats says of a collection."""

from dataclasses import dataclass

from server.store.records import Info
from server.store.vector_index import IndexStats


@dataclass(frozen=True, slots=True)
class Description:
    """A collection's description and sizes, all of one moment.

    agreement: see `LiveCollection.agreement`. bytes_on_disk: of all its files.
    recall: at 10 neighbours, as last measured; None while all vectors are compared. changed: time of the last
    write, None where that is not known.
    """

    info: Info
    documents: int
    chunks: int
    index: IndexStats
    bytes_on_disk: int
    agreement: float | None
    recall: float | None = None
    changed: str | None = None
