"""Collections: made, listed, described, embedded anew, removed; in the native shapes.

Every path under /collections/NAME/ exists without that prefix too, for the collection "default".
"""

from contextlib import suppress
from typing import Any

import msgspec

from server.api.body import decode
from server.api.native_errors import NATIVE
from server.api.operation import Call, Operation, collection_of, shelf_of
from server.api.replies import Reply, json_body
from server.collections.chunking import MIN_SIZE
from server.collections.live_collection import LiveCollection
from server.collections.registry import CollectionRegistry, whole_reading
from server.errors import CollectionNotFound, InvalidRequest
from server.inference.engine import Engine
from server.store.records import ChunkRules

DESCRIBED = "The collection, its size and its index"


class Chunks(msgspec.Struct):
    """How long documents are cut: tokens of a part, and tokens repeated from the part before."""

    size: int
    overlap: int = 0


class CreateRequest(msgspec.Struct):
    """chunks: left out, parts as long as the model reads; null, documents are not cut.

    model: whose vectors it will hold; left out, the first model's.
    """

    name: str
    model: str = ""
    chunks: Chunks | msgspec.UnsetType | None = msgspec.UNSET


class ReindexRequest(msgspec.Struct):
    """chunks: left out, as they were. model: left out, the one whose vectors it holds, if it is
    served, and else the first.
    """

    model: str = ""
    chunks: Chunks | msgspec.UnsetType | None = msgspec.UNSET


class Progress(msgspec.Struct):
    done: int
    total: int


class Stats(msgspec.Struct):
    """index: its kind, parameters, size, memory a vector, and measured recall@10.

    agreement: least cosine of self-test vectors between the machines that wrote it and this one; 1
    is the same arithmetic, null is not known. reindex_error: why the last reindexing ended before
    its time.
    """

    name: str
    documents: int
    parts: int
    dimension: int
    fingerprint: str
    agreement: float | None
    chunks: Chunks | None
    index: dict[str, Any]
    bytes: int
    reindexing: Progress | None
    reindex_error: str | None


class Listed(msgspec.Struct):
    name: str
    documents: int


class CollectionList(msgspec.Struct):
    """damaged: names of those that cannot be opened; what is asked of them is refused."""

    collections: list[Listed]
    damaged: list[str]


class RemovedCollection(msgspec.Struct):
    removed: str


def operations() -> list[Operation]:
    """All of them; those of one collection are in `inside`."""
    one = "/collections/{collection}"
    return [
        Operation(
            NATIVE,
            "GET",
            "/collections",
            list_collections,
            "List collections",
            needs="search",
            response=(CollectionList,),
        ),
        Operation(
            NATIVE,
            "POST",
            "/collections",
            create,
            "Make a collection",
            needs="write",
            request=(CreateRequest,),
            response=(Stats,),
            status=201,
        ),
        Operation(NATIVE, "GET", one, stats, DESCRIBED, "search", response=(Stats,)),
        Operation(
            NATIVE,
            "DELETE",
            one,
            remove,
            "Delete a collection and all in it",
            needs="admin",
            response=(RemovedCollection,),
        ),
    ]


def inside() -> list[Operation]:
    return [
        Operation(NATIVE, "GET", "/stats", stats, DESCRIBED, "search", response=(Stats,)),
        Operation(
            NATIVE,
            "POST",
            "/reindex",
            reindex,
            "Embed its documents anew",
            needs="admin",
            request=(ReindexRequest,),
            response=(Stats,),
            status=202,
        ),
    ]


async def list_collections(call: Call) -> Reply:
    found = []
    for shelf in [call.library.shelf(name) for name in call.library.names]:
        # One that is removed meanwhile is left out.
        with suppress(CollectionNotFound):
            found.append(Listed(shelf.collection.name, await shelf.read(shelf.count)))
    return Reply(json_body(CollectionList(found, call.library.damaged)))


async def create(call: Call) -> Reply:
    request = decode(call.body, CreateRequest)
    engine = call.models.choose(request.model).engine
    shelf = call.library.create(request.name, _rules(request.chunks, engine), engine)
    return Reply(json_body(await _stats(call.library, shelf)), status=201)


async def remove(call: Call) -> Reply:
    name = collection_of(call)
    await call.library.remove(name)
    return Reply(json_body(RemovedCollection(name)))


async def stats(call: Call) -> Reply:
    return Reply(json_body(await _stats(call.library, shelf_of(call))))


async def reindex(call: Call) -> Reply:
    """Answers at once; the collection's stats tell how far it is."""
    request = decode(call.body, ReindexRequest)
    shelf = shelf_of(call)
    engine = call.models.choose(request.model).engine
    if not request.model:
        engine = call.models.with_vectors(shelf.collection.info.fingerprint) or engine
    rules = shelf.collection.info.chunks
    if request.chunks is not msgspec.UNSET:
        rules = _rules(request.chunks, engine)
    call.library.reindex(shelf.collection.name, rules, engine)
    return Reply(json_body(await _stats(call.library, shelf)), status=202)


def _rules(given: Chunks | msgspec.UnsetType | None, engine: Engine) -> ChunkRules | None:
    whole = whole_reading(engine)
    if given is msgspec.UNSET:
        return whole
    if given is None:
        return None
    if not MIN_SIZE <= given.size <= whole.size:
        raise InvalidRequest(
            f"chunks.size {given.size} is outside {MIN_SIZE} to {whole.size}, which the model reads",
            param="chunks",
        )
    if not 0 <= given.overlap <= given.size // 2:
        raise InvalidRequest(
            f"chunks.overlap {given.overlap} is outside 0 to {given.size // 2}, half of chunks.size",
            param="chunks",
        )
    return ChunkRules(given.size, given.overlap)


async def _stats(library: CollectionRegistry, shelf: LiveCollection) -> Stats:
    collection = None
    # Again where a reindexing ended meanwhile: what is said must be of one collection, and nothing
    # is awaited after the loop.
    while collection is not shelf.collection:
        collection = shelf.collection
        agreement = await shelf.read(shelf.agreement)
        documents = await shelf.read(shelf.count)
        size = await shelf.read(lambda: shelf.collection.bytes_on_disk())
    info = shelf.collection.info
    running = library.reindexing.get(info.name)
    return Stats(
        name=info.name,
        documents=documents,
        parts=len(shelf.collection.index),
        dimension=info.dimension,
        fingerprint=info.fingerprint,
        agreement=None if agreement is None else round(agreement, 6),
        chunks=None if info.chunks is None else Chunks(info.chunks.size, info.chunks.overlap),
        index=msgspec.to_builtins(shelf.collection.index.stats()),
        bytes=size,
        reindexing=None if running is None else Progress(running.done, running.total),
        reindex_error=library.unfinished.get(info.name),
    )
