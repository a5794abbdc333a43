"""An operation: one method on one path, with its handler, its types and its dialect."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

import msgspec
from starlette.types import Scope

from server.api.replies import WAITING, ErrorReply, Headers, Reply
from server.api.streaming.body_stream import BodyStream
from server.auth.gate import HOLDER, REACHED, Needs
from server.collections.administration.permitted import Collections, PermittedCollections
from server.collections.external.collection import ExternalCollection
from server.collections.external.kinds import Local, Readable, Writable
from server.collections.live_collection import LiveCollection
from server.collections.registry import DEFAULT, CollectionRegistry
from server.inference.registry import ModelRegistry
from server.store.collection_name import normal
from server.store.filters.tree import Filter, fixed, parse


class WorkerState(TypedDict):
    """The app's state in every process; a worker has nothing else."""

    models: ModelRegistry


class State(WorkerState):
    """The app's state in the first process, which owns the data folder."""

    collections: CollectionRegistry


class Call(msgspec.Struct, frozen=True):
    """A request as a handler sees it, in any process: it may work on the models."""

    scope: Scope
    body: bytes
    models: ModelRegistry


class CollectionCall(Call, frozen=True):
    """A request in the first process, which may also work on the collections that its key may use."""

    collections: Collections


def worker_call(scope: Scope, body: bytes, state: WorkerState) -> Call:
    return Call(scope, body, state["models"])


def collection_call(scope: Scope, body: bytes, state: State) -> CollectionCall:
    return CollectionCall(scope, body, state["models"], permitted(scope, state["collections"]))


def permitted(scope: Scope, registry: CollectionRegistry) -> Collections:
    """Return the collections that the request may use; all of them without keys and audit."""
    reached = scope.get(REACHED)
    if reached is None:
        return registry
    holder = scope.get(HOLDER)
    if holder is None:
        return PermittedCollections(registry, lambda _: True, "", reached)
    return PermittedCollections(registry, holder.key.may_use, holder.key.name, reached)


def collection_name(call: Call) -> str:
    """Return the name of the collection in the path, or of the default one."""
    return normal(str(call.scope["path_params"].get("collection", DEFAULT)))


def collection_of(call: CollectionCall) -> Local:
    """Return the collection that the path names, for reading; raises CollectionNotFound.

    Raises InvalidRequest for one in a vector database: what is possible there takes `readable_of`.
    """
    return call.collections.get(collection_name(call))


def readable_of(call: CollectionCall) -> Readable:
    """Return the collection that the path names, wherever its documents are; raises CollectionNotFound."""
    return call.collections.readable(collection_name(call))


async def accepting_of(call: CollectionCall) -> Writable:
    """Return the collection that the path names, for documents, wherever they are; see `writable_of`."""
    return await call.collections.accepting(collection_name(call))


async def writable_of(call: CollectionCall) -> LiveCollection:
    """Return the collection that the path names, for writing; the default one is created if missing."""
    return await call.collections.writable(collection_name(call))


def checked_filter(given: dict[str, Any] | None) -> Filter | None:
    """Return the tree of a filter, or None where it keeps everything; raises InvalidRequest."""
    filter = parse(given) if given is not None else None
    return None if filter is None or fixed(filter) else filter


def waiting_of(collection: Readable) -> Headers:
    """Return the header that says how many writes wait for a vector database; none where none does."""
    if not isinstance(collection, ExternalCollection) or not (writes := collection.waiting.writes):
        return []
    return [(WAITING, b"%d" % writes)]


async def warnings_of(collection: Readable, filter: Filter | None) -> list[str] | msgspec.UnsetType:
    """Return what a reply says of a filter whose conditions nothing can meet; unset where all is well."""
    return await collection.warnings(filter) or msgspec.UNSET


# The kind of call that a handler takes. One that takes any call also takes a CollectionCall.
C_contra = TypeVar("C_contra", bound=Call, contravariant=True)
Handler = Callable[[Call], Awaitable[Reply]]


class Dialect(NamedTuple):
    """The form of another server's requests and replies, or this server's own.

    error_reply: makes the reply for an error. error: the type of that reply's body.
    """

    name: str
    error_reply: ErrorReply
    error: Any


class OperationOn(NamedTuple, Generic[C_contra]):
    """One method on one path, whose handler takes calls of one kind.

    needs: the scope that a key must have; "key" for any key, "nothing" for requests without a key.
    request, response: possible types of the JSON body; empty where there is no body.
    errors: types of error bodies besides the dialect's own.
    query: names of the parameters after the "?".
    status: of a successful reply, or of the refusal where every request is refused.
    plain: media type of a reply that is text instead of JSON.
    is_file: the body is a file and not JSON.
    stream: takes bodies of `stream_types` as they arrive; the handler takes the others whole.
    any_type: accept JSON with any content-type. Only for requests that store nothing, because a page of
    any web site may send such a request without permission.
    """

    dialect: Dialect
    method: str
    path: str
    handler: Callable[[C_contra], Awaitable[Reply]]
    summary: str
    needs: Needs
    request: Sequence[Any] = ()
    response: Sequence[Any] = ()
    errors: Sequence[Any] = ()
    query: Sequence[str] = ()
    status: int = 200
    plain: str = ""
    any_type: bool = False
    is_file: bool = False
    stream: Callable[[C_contra, BodyStream], Awaitable[Reply]] | None = None
    stream_types: Sequence[bytes] = ()


# An operation that any process can do, and one that needs the first.
Operation = OperationOn[Call]
CollectionOperation = OperationOn[CollectionCall]
