"""The outbox of a collection in a vector database, in the native format: what waits, and what was refused."""

from functools import partial
from typing import Any

import msgspec
from starlette.datastructures import QueryParams

from server.api.body import decoded
from server.api.decoding import check_parameters, whole_number
from server.api.native_errors import NATIVE
from server.api.operation import CollectionCall, CollectionOperation, readable_of
from server.api.replies import Reply, json_body
from server.collections.external.collection import ExternalCollection
from server.collections.external.kinds import Readable

OPTIONS = ("limit",)
MOST = 1_000


class Refused(msgspec.Struct):
    """A write that was set aside. document: null for a removal. reason: what the database said."""

    id: str
    document: dict[str, Any] | None
    reason: str


class OutboxState(msgspec.Struct):
    """What waits for the vector database; nothing does in a collection of this server.

    waiting, bytes: acknowledged writes that it does not have. oldest_s: how long the first has waited. refused: what
    the database said of the write at the head, behind which the others wait; null while all is well. set_aside:
    writes that were set aside, oldest first.
    """

    waiting: int
    bytes: int
    oldest_s: float | None
    refused: str | None
    set_aside: list[Refused]


class OutboxAction(msgspec.Struct, forbid_unknown_fields=True):
    """An action on the outbox has no options."""


class WasSetAside(msgspec.Struct):
    """id: of the document whose write was set aside; null where none was refused."""

    id: str | None


class Forgotten(msgspec.Struct):
    """forgotten: writes that were set aside, and are deleted now."""

    forgotten: int


def inside() -> list[CollectionOperation]:
    """Return the operations on the outbox of one collection."""
    on = partial(CollectionOperation, NATIVE)
    aside = "/outbox/set-aside"
    return [
        on(
            *("GET", "/outbox", state, "What waits for the vector database", "admin"),
            response=(OutboxState,),
            query=OPTIONS,
        ),
        on(
            *("POST", "/outbox/retry", retry, "Try a refused write again", "admin"),
            *((OutboxAction,), (OutboxState,)),
        ),
        on(
            *("POST", aside, set_aside, "Set a refused write aside", "admin"),
            *((OutboxAction,), (WasSetAside,)),
        ),
        on(
            *("DELETE", aside, forget, "Delete the writes that were set aside", "admin"),
            response=(Forgotten,),
        ),
    ]


async def state(call: CollectionCall) -> Reply:
    """Report what waits, and the writes that were set aside, whole, so that they can be sent again."""
    options = QueryParams(call.scope["query_string"])
    check_parameters(options, OPTIONS)
    limit = whole_number(options, "limit", default=100, low=0, high=MOST)
    return Reply(json_body(await _state(readable_of(call), limit)))


async def retry(call: CollectionCall) -> Reply:
    """Try the refused write again, at once, and report what waits."""
    await decoded(call.body, OutboxAction)
    collection = readable_of(call)
    if isinstance(collection, ExternalCollection):
        await collection.retry()
    return Reply(json_body(await _state(collection, 0)))


async def set_aside(call: CollectionCall) -> Reply:
    """Set the refused write at the head aside, and send what waits behind it. It is kept until it is deleted."""
    await decoded(call.body, OutboxAction)
    collection = readable_of(call)
    id = await collection.set_aside() if isinstance(collection, ExternalCollection) else None
    return Reply(json_body(WasSetAside(id)))


async def forget(call: CollectionCall) -> Reply:
    collection = readable_of(call)
    number = await collection.forget_aside() if isinstance(collection, ExternalCollection) else 0
    return Reply(json_body(Forgotten(number)))


async def _state(collection: Readable, limit: int) -> OutboxState:
    if not isinstance(collection, ExternalCollection):
        # Its writes are stored when they are acknowledged.
        return OutboxState(0, 0, None, None, [])
    found = await collection.description()
    aside = await collection.writes_aside(limit) if limit and found.set_aside else []
    refused = [
        Refused(each.id, None if each.document is None else each.document.fields(), each.reason)
        for each in aside
    ]
    return OutboxState(*found.waiting[:2], found.waiting.oldest_s, found.refused, refused)
