"""Several documents by their ids, with the vectors of their chunks on request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from server.collections import read_cost
from server.collections.empty_collection import EmptyCollection
from server.collections.external.collection import ExternalCollection
from server.collections.external.kinds import Readable
from server.store.collection import Collection
from server.store.reading.parts import Parts, parts_of
from server.store.reading.whole import whole_documents
from server.store.records import Document


@dataclass(frozen=True, slots=True)
class Found:
    """Documents by id in the order that was asked for. parts: their chunks; empty where not asked for."""

    documents: Mapping[str, Document] = field(default_factory=dict)
    parts: Mapping[str, Parts] = field(default_factory=dict)


async def documents_by_ids(
    collection: Readable, ids: Sequence[str], number_bytes: int = 0
) -> Found:
    """Return the documents of these ids that exist, all of one moment.

    number_bytes: bytes of each number of a vector in the reply; 0 where no vectors are asked for.
    Raises RequestTooLarge where they have more bytes than a reply.
    """
    if isinstance(collection, EmptyCollection):
        return Found()
    if isinstance(collection, ExternalCollection):
        return await _elsewhere(collection, ids, with_vectors=number_bytes > 0)
    rows, hit_s = len(collection.collection.index), collection.hit_time.seconds
    cost_s = read_cost.of_page(len(ids), None, rows, hit_s * (2 if number_bytes else 1))
    return await collection.admitted(
        cost_s, lambda: _found(collection.collection, ids, number_bytes)
    )


def _found(collection: Collection, ids: Sequence[str], number_bytes: int) -> Found:
    documents = collection.documents
    with documents.snapshot():
        found = whole_documents(documents, ids)
        parts = parts_of(documents, list(found), number_bytes) if number_bytes else {}
        return Found(found, parts)


async def _elsewhere(
    collection: ExternalCollection, ids: Sequence[str], *, with_vectors: bool
) -> Found:
    if not with_vectors:
        return Found(await collection.documents(ids))
    found = await collection.parts(ids)
    documents = {id: document for id, (document, _) in found.items()}
    return Found(documents, {id: parts for id, (_, parts) in found.items()})
