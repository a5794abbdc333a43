"""An operation: one method on one path, with its handler, its types and its dialect."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from starlette.types import Scope

from server.api.replies import Reply
from server.auth.gate import Needs
from server.collections.live_collection import LiveCollection
from server.collections.registry import DEFAULT, CollectionRegistry
from server.errors import ServerError
from server.inference.registry import ModelRegistry
from server.store.filter_tree import Filter, parse


class Call(NamedTuple):
    """A request as a handler sees it, with what it may work on."""

    scope: Scope
    body: bytes
    models: ModelRegistry
    collections: CollectionRegistry


def collection_name(call: Call) -> str:
    """Return the name of the collection in the path, or of the default one."""
    return str(call.scope["path_params"].get("collection", DEFAULT))


def collection_of(call: Call) -> LiveCollection:
    """Return the collection that the path names; raises CollectionNotFound."""
    return call.collections.get(collection_name(call))


def checked_filter(given: dict[str, Any] | None) -> Filter | None:
    """Return the tree of a filter, or None where it keeps everything; raises InvalidRequest."""
    return parse(given) if given else None


Handler = Callable[[Call], Awaitable[Reply]]
ErrorReply = Callable[[ServerError], Reply]


class Dialect(NamedTuple):
    """The form of another server's requests and replies, or this server's own.

    error_reply: makes the reply for an error. error: the type of that reply's body.
    """

    name: str
    error_reply: ErrorReply
    error: Any


class Operation(NamedTuple):
    """One method on one path.

    needs: the scope that a key must have; "key" for any key, "nothing" for requests without a key.
    request, response: possible types of the JSON body; empty where there is no body.
    errors: types of error bodies besides the dialect's own.
    query: names of the parameters after the "?".
    status: of a successful reply, or of the refusal where every request is refused.
    plain: media type of a reply that is text instead of JSON.
    any_type: accept JSON with any content-type. Only for requests that store nothing, because a page of
    any web site may send such a request without permission.
    """

    dialect: Dialect
    method: str
    path: str
    handler: Handler
    summary: str
    needs: Needs
    request: Sequence[Any] = ()
    response: Sequence[Any] = ()
    errors: Sequence[Any] = ()
    query: Sequence[str] = ()
    status: int = 200
    plain: str = ""
    any_type: bool = False
