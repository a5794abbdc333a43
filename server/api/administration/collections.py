"""Collections, in the native format: create, list, describe, reindex, remove.

Every path under /collections/NAME/ exists without that prefix too, for the collection "default".
"""

from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from server.api.body import decoded
from server.api.native_errors import NATIVE
from server.api.operation import (
    CollectionCall,
    CollectionOperation,
    collection_name,
    readable_of,
    writable_of,
)
from server.api.replies import Reply, json_body
from server.collections.administration.permitted import Collections
from server.collections.chunk_embedding import default_chunks, longest_chunk
from server.collections.chunking import MIN_SIZE
from server.collections.external.collection import ExternalCollection
from server.collections.external.kinds import Readable
from server.collections.writing.given import info_of_given
from server.errors import (
    CollectionNotFound,
    DatabaseAway,
    DatabaseBusy,
    DatabaseRefused,
    InvalidRequest,
    OtherModel,
    Overloaded,
)
from server.inference.engine import Engine
from server.store.collection_name import normal
from server.store.records import ChunkRules, Info

DESCRIBED = "The collection, its size and its index"
on = partial(CollectionOperation, NATIVE)


class Chunks(msgspec.Struct, forbid_unknown_fields=True):
    """Rules for chunks: tokens of a chunk, and tokens that it repeats of the one before."""

    size: int
    overlap: int = 0


class CreateRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A collection to create.

    chunks: left out, default chunks; null, documents are not chunked. model: whose vectors it will
    hold; left out, the first model's. embedder, dimension: instead, for vectors that come with the
    documents: what makes them, and how many numbers they have. database: the name of the vector database that
    keeps its documents; left out, this server does.
    """

    name: str
    model: str = ""
    embedder: str | None = None
    dimension: int | None = None
    database: str | None = None
    chunks: Chunks | msgspec.UnsetType | None = msgspec.UNSET


class ReindexRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Options for reindexing a collection.

    chunks: left out, as before. model: left out, the one whose vectors it holds if that is served,
    else the first.
    """

    model: str = ""
    chunks: Chunks | msgspec.UnsetType | None = msgspec.UNSET


class Progress(msgspec.Struct):
    done: int
    total: int


class Elsewhere(msgspec.Struct):
    """The vector database that keeps a collection, and what waits for it.

    name: as the settings have it. up: whether the last call was answered. waiting, waiting_bytes: writes that are
    safe on this server and not in the database yet. oldest_s: how long the first of them has waited, null where
    none waits. refused: what the database said of a write that it refuses, behind which the others wait; null
    while all is well. set_aside: refused writes that an administrator has set aside.
    """

    name: str
    up: bool
    waiting: int
    waiting_bytes: int
    oldest_s: float | None
    refused: str | None
    set_aside: int


class Stats(msgspec.Struct):
    """A collection, its size and its index.

    documents: null while the vector database that has them does not answer. parts: chunks; null for a collection
    in a vector database, and so is what this server then does not have: agreement, recall and changed. The index
    is empty then, and database says the rest. model: the served model whose vectors it holds, null where none is.
    agreement: least cosine of self-test vectors between the machines that wrote it and this one; 1 is the same
    arithmetic, null is not known. index: its kind, parameters, size, memory of a vector, and recall@10 as measured when
    it was built. recall: as last measured, null while all vectors are compared. changed: time of the last
    write, null where it was not noted. reindex_error: why the last reindexing failed.
    """

    name: str
    documents: int | None
    parts: int | None
    dimension: int
    fingerprint: str
    model: str | None
    agreement: float | None
    chunks: Chunks | None
    index: dict[str, Any]
    recall: float | None
    bytes: int
    changed: str | None
    reindexing: Progress | None
    reindex_error: str | None
    database: Elsewhere | msgspec.UnsetType = msgspec.UNSET


class Listed(msgspec.Struct):
    """A line of the list. documents: null while the vector database that has them does not answer."""

    name: str
    documents: int | None


class CollectionList(msgspec.Struct):
    """The list of all collections.

    damaged: names of those that cannot be opened; requests to them are refused.
    """

    collections: list[Listed]
    damaged: list[str]


class RemovedCollection(msgspec.Struct):
    removed: str


def operations() -> list[CollectionOperation]:
    """Return the operations on collections as such; those inside one are in `inside`."""
    many, one = "/collections", "/collections/{collection}"
    return [
        on("GET", many, list_collections, "List collections", "search", response=(CollectionList,)),
        on(
            "POST",
            many,
            create,
            "Create a collection",
            "write",
            (CreateRequest,),
            (Stats,),
            status=201,
        ),
        on("GET", one, stats, DESCRIBED, "search", response=(Stats,)),
        on(
            "DELETE",
            one,
            remove,
            "Delete a collection with all its documents",
            "admin",
            response=(RemovedCollection,),
        ),
    ]


def inside() -> list[CollectionOperation]:
    """Return the operations that describe and reindex one collection."""
    return [
        on("GET", "/stats", stats, DESCRIBED, "search", response=(Stats,)),
        on(
            "POST",
            "/reindex",
            reindex,
            "Embed its documents again",
            "admin",
            (ReindexRequest,),
            (Stats,),
            status=202,
        ),
    ]


async def list_collections(call: CollectionCall) -> Reply:
    found = []
    for name in call.collections.names:
        # One that is removed meanwhile is left out.
        with suppress(CollectionNotFound):
            collection = call.collections.listed(name)
            found.append(Listed(name, await _count(collection)))
    return Reply(json_body(CollectionList(found, call.collections.damaged)))


async def _count(collection: Readable) -> int | None:
    """Return the number of documents; None where a vector database does not say it."""
    try:
        return await collection.count()
    except (DatabaseAway, DatabaseBusy, DatabaseRefused, Overloaded, OtherModel):
        if not isinstance(collection, ExternalCollection):
            raise
        return None


async def create(call: CollectionCall) -> Reply:
    request = await decoded(call.body, CreateRequest)
    info, collections = _info(call, request), call.collections
    made: Readable = (
        await collections.create_from(info)
        if request.database is None
        else await collections.create_external(info, request.database)
    )
    return Reply(json_body(await stats_of(collections, made)), status=201)


async def remove(call: CollectionCall) -> Reply:
    name = collection_name(call)
    await call.collections.remove(name)
    return Reply(json_body(RemovedCollection(name)))


async def stats(call: CollectionCall) -> Reply:
    return Reply(json_body(await stats_of(call.collections, readable_of(call))))


async def reindex(call: CollectionCall) -> Reply:
    """Begin to reindex and answer at once; the collection's stats report the progress."""
    request = await decoded(call.body, ReindexRequest)
    collection = await writable_of(call)
    engine = call.models.choose(request.model).engine
    if not request.model:
        engine = call.models.with_vectors(collection.info.fingerprint) or engine
    rules = collection.info.chunks
    if request.chunks is not msgspec.UNSET:
        rules = _rules(request.chunks, engine)
    await call.collections.reindex(collection.name, rules, engine)
    return Reply(json_body(await stats_of(call.collections, collection)), status=202)


def _info(call: CollectionCall, request: CreateRequest) -> Info:
    """Return the description of a collection to create."""
    if request.embedder is not None or request.dimension is not None:
        return _of_given(request)
    engine = call.models.choose(request.model).engine
    manifest = engine.manifest
    rules = _rules(request.chunks, engine)
    return Info(normal(request.name), manifest.fingerprint, manifest.dimension, rules)


def _of_given(request: CreateRequest) -> Info:
    """Return the description of a collection whose vectors come with its documents."""
    if request.embedder is None or request.dimension is None:
        raise InvalidRequest(
            '"embedder" and "dimension" go together: for a collection whose vectors you give',
            param="embedder" if request.embedder is None else "dimension",
        )
    if request.model or request.chunks not in (msgspec.UNSET, None):
        raise InvalidRequest(
            'a collection of given vectors has no "model" and no "chunks": give each document its'
            ' "vector", or "vectors" with "parts"',
            param="model" if request.model else "chunks",
        )
    return info_of_given(normal(request.name), request.embedder, request.dimension)


def _rules(given: Chunks | msgspec.UnsetType | None, engine: Engine) -> ChunkRules | None:
    longest = longest_chunk(engine)
    if given is msgspec.UNSET:
        return default_chunks(engine)
    if given is None:
        return None
    if not MIN_SIZE <= given.size <= longest:
        raise InvalidRequest(
            f"chunks.size {given.size} is outside {MIN_SIZE} to {longest}, which the model reads",
            param="chunks",
        )
    if not 0 <= given.overlap <= given.size // 2:
        raise InvalidRequest(
            f"chunks.overlap {given.overlap} is outside 0 to {given.size // 2}, half of chunks.size",
            param="chunks",
        )
    return ChunkRules(given.size, given.overlap)


async def stats_of(registry: Collections, collection: Readable) -> Stats:
    if isinstance(collection, ExternalCollection):
        return await _stats_elsewhere(registry, collection)
    found = await collection.description()
    info = found.info
    engine = registry.models.with_vectors(info.fingerprint)
    running = registry.reindexing.get(info.name)
    return Stats(
        name=info.name,
        documents=found.documents,
        parts=found.chunks,
        dimension=info.dimension,
        fingerprint=info.fingerprint,
        model=None if engine is None else engine.model.name,
        agreement=None if found.agreement is None else round(found.agreement, 6),
        chunks=None if info.chunks is None else Chunks(info.chunks.size, info.chunks.overlap),
        index=msgspec.to_builtins(found.index),
        recall=found.recall,
        bytes=found.bytes_on_disk,
        changed=found.changed,
        reindexing=None if running is None else Progress(running.done, running.total),
        reindex_error=registry.unfinished.get(info.name),
    )


async def _stats_elsewhere(registry: Collections, collection: ExternalCollection) -> Stats:
    found, info = await collection.description(), collection.info
    engine = registry.models.with_vectors(info.fingerprint)
    waiting = found.waiting
    return Stats(
        name=info.name,
        documents=await _count(collection),
        parts=None,
        dimension=info.dimension,
        fingerprint=info.fingerprint,
        model=None if engine is None else engine.model.name,
        agreement=None,
        chunks=None if info.chunks is None else Chunks(info.chunks.size, info.chunks.overlap),
        index={},
        recall=None,
        bytes=found.bytes_on_disk,
        changed=None,
        reindexing=None,
        reindex_error=None,
        database=Elsewhere(
            collection.database,
            not collection.connection.is_away,
            waiting.writes,
            waiting.bytes,
            waiting.oldest_s,
            found.refused,
            found.set_aside,
        ),
    )
