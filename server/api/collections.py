"""Collections: made, listed, described, embedded anew, removed; in the native shapes.

Every path under /collections/NAME/ exists without that prefix too, for the collection "default".
"""

from typing import Any

import msgspec

from server.api.http import Call, Reply, collection_of, decode, json_body, shelf_of
from server.chunking import MIN_SIZE, ChunkRules
from server.errors import InvalidRequest
from server.library import Library
from server.shelf import Shelf


class Chunks(msgspec.Struct):
    """How long documents are cut: tokens of a part, and tokens repeated from the part before."""

    size: int
    overlap: int = 0


class CreateRequest(msgspec.Struct):
    """chunks: left out, parts as long as the model reads; null, documents are not cut."""

    name: str
    chunks: Chunks | msgspec.UnsetType | None = msgspec.UNSET


class ReindexRequest(msgspec.Struct):
    """chunks: left out, as they were."""

    chunks: Chunks | msgspec.UnsetType | None = msgspec.UNSET


class Progress(msgspec.Struct):
    done: int
    total: int


class Stats(msgspec.Struct):
    """index: its kind, parameters, size, memory a vector, and measured recall@10."""

    name: str
    documents: int
    parts: int
    dimension: int
    fingerprint: str
    chunks: Chunks | None
    index: dict[str, Any]
    bytes: int
    reindexing: Progress | None


class Listed(msgspec.Struct):
    name: str
    documents: int


class CollectionList(msgspec.Struct):
    collections: list[Listed]


class RemovedCollection(msgspec.Struct):
    removed: str


async def list_collections(call: Call) -> Reply:
    shelves = [call.library.shelf(name) for name in call.library.names]
    found = [Listed(shelf.collection.name, await shelf.read(shelf.count)) for shelf in shelves]
    return Reply(json_body(CollectionList(found)))


async def create(call: Call) -> Reply:
    request = decode(call.body, CreateRequest)
    shelf = call.library.create(request.name, _rules(request.chunks, call.library))
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
    rules = shelf.collection.info.chunks
    if request.chunks is not msgspec.UNSET:
        rules = _rules(request.chunks, call.library)
    call.library.reindex(shelf.collection.name, rules)
    return Reply(json_body(await _stats(call.library, shelf)), status=202)


def _rules(given: Chunks | msgspec.UnsetType | None, library: Library) -> ChunkRules | None:
    whole = library.whole_reading()
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


async def _stats(library: Library, shelf: Shelf) -> Stats:
    info = shelf.collection.info
    running = library.reindexing.get(info.name)
    return Stats(
        name=info.name,
        documents=await shelf.read(shelf.count),
        parts=len(shelf.collection.index),
        dimension=info.dimension,
        fingerprint=info.fingerprint,
        chunks=None if info.chunks is None else Chunks(info.chunks.size, info.chunks.overlap),
        index=msgspec.to_builtins(shelf.collection.index.stats()),
        bytes=await shelf.read(shelf.collection.bytes_on_disk),
        reindexing=None if running is None else Progress(running.done, running.total),
    )
