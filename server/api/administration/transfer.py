"""The transfer of a collection into another store, in the native format: begun, looked at, and stopped."""

from functools import partial

import msgspec

from server.api.body import decoded
from server.api.native_errors import NATIVE
from server.api.operation import CollectionCall, CollectionOperation, collection_name
from server.api.replies import Reply, json_body
from server.collections.transferring.transfer import Order, State, Transfer
from server.errors import CollectionNotFound
from server.store.collection_name import normal


class TransferRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A collection to copy into another store, with its chunks and vectors as they are.

    to: the name of the copy; it is created, or is there and made alike. database: the name of the vector database
    that keeps it; left out, this server does. prune: whether to remove what else the copy has. alias: that
    leads to the copy once it is whole; it may exist.
    """

    to: str
    database: str | None = None
    prune: bool = False
    alias: str | None = None


class TransferState(msgspec.Struct):
    """A transfer, of documents.

    state: "waiting" is for a database that does not answer, and goes on by itself. done: copied, of `total` in the
    collection. written: those that the copy did not have alike. removed: from the copy. others: what else the
    copy has. compared: with their vectors, at the end. why: it waits or failed; null while all is well.
    """

    collection: str
    to: str
    alias: str | None
    state: State
    done: int
    total: int
    written: int
    removed: int
    others: int
    compared: int
    why: str | None


def inside() -> list[CollectionOperation]:
    """Return the operations on the transfer of one collection."""
    path, states = "/transfer", (TransferState,)
    on = partial(CollectionOperation, NATIVE)
    return [
        on(
            *(
                "POST",
                path,
                begin,
                "Copy it into another store",
                "admin",
                (TransferRequest,),
                states,
            ),
            status=202,
        ),
        on("GET", path, state, "How far its transfer is", "admin", response=states),
        on("DELETE", path, stop, "Stop its transfer", "admin", response=states),
    ]


async def begin(call: CollectionCall) -> Reply:
    """Begin to copy and answer at once. The same request again returns how far it is, or goes on after a kill."""
    name = collection_name(call)
    # A key without the right gets no other refusal.
    call.collections.transfers_of(name)
    request = await decoded(call.body, TransferRequest)
    to = normal(request.to)
    alias = None if request.alias is None else normal(request.alias)
    transfers = call.collections.transfers_of(name, to, *([] if alias is None else [alias]))
    order = Order(request.prune, alias)
    return _said(await transfers.begin(name, to, request.database, order), status=202)


async def state(call: CollectionCall) -> Reply:
    return _said(_last(call))


async def stop(call: CollectionCall) -> Reply:
    """Stop copying, if it has not ended; the same transfer begun again goes on from there."""
    found = _last(call)
    await call.collections.transfers_of(found.source.name).stop(found.source.name)
    return _said(found)


def _last(call: CollectionCall) -> Transfer:
    name = collection_name(call)
    own = call.collections.readable(name).name
    found = call.collections.transfers_of(name).last(own)
    if found is None:
        raise CollectionNotFound(
            f"collection {own!r} has not been transferred since this server started"
        )
    return found


def _said(transfer: Transfer, status: int = 200) -> Reply:
    found = TransferState(
        transfer.source.name,
        transfer.target.name,
        transfer.order.alias,
        transfer.state,
        transfer.done,
        transfer.total,
        transfer.written,
        transfer.removed,
        transfer.others,
        transfer.compared,
        transfer.why,
    )
    return Reply(json_body(found), status=status)
