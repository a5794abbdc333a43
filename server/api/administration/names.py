"""Names of collections, in the native format: aliases, and renaming."""

from functools import partial

import msgspec

from server.api.administration.collections import Stats, stats_of
from server.api.body import decoded
from server.api.native_errors import NATIVE
from server.api.operation import CollectionCall, CollectionOperation, collection_name
from server.api.replies import Reply, json_body
from server.errors import CollectionNotFound
from server.store.collection_name import normal


class AliasRequest(msgspec.Struct, forbid_unknown_fields=True):
    """collection: own name of the collection that the alias leads to from now on."""

    collection: str


class RenameRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Another name for a collection.

    name: the new one. keep_alias: whether the old name becomes an alias of the collection.
    """

    name: str
    keep_alias: bool = False


class Alias(msgspec.Struct):
    alias: str
    collection: str


class AliasList(msgspec.Struct):
    aliases: list[Alias]


class RemovedAlias(msgspec.Struct):
    removed: str


def operations() -> list[CollectionOperation]:
    """Return the operations on aliases."""
    many, one = "/aliases", "/aliases/{alias}"
    on = partial(CollectionOperation, NATIVE)
    return [
        on("GET", many, list_aliases, "List aliases", "search", response=(AliasList,)),
        on("GET", one, get_alias, "One alias", "search", response=(Alias,)),
        on("PUT", one, set_alias, "Set an alias", "admin", (AliasRequest,), (Alias,)),
        on("DELETE", one, forget, "Delete an alias", "admin", response=(RemovedAlias,)),
    ]


def inside() -> list[CollectionOperation]:
    """Return the operation that renames one collection."""
    return [
        CollectionOperation(
            NATIVE,
            "POST",
            "/rename",
            rename,
            "Rename a collection",
            "admin",
            (RenameRequest,),
            (Stats,),
        )
    ]


async def list_aliases(call: CollectionCall) -> Reply:
    found = [Alias(alias, to) for alias, to in sorted(call.collections.aliases.items())]
    return Reply(json_body(AliasList(found)))


async def get_alias(call: CollectionCall) -> Reply:
    alias = _alias(call)
    collection = call.collections.aliases.get(alias)
    if collection is None:
        raise CollectionNotFound(f"there is no alias {alias!r}")
    return Reply(json_body(Alias(alias, collection)))


async def set_alias(call: CollectionCall) -> Reply:
    request, alias = await decoded(call.body, AliasRequest), _alias(call)
    collection = normal(request.collection)
    await call.collections.set_alias(alias, collection)
    return Reply(json_body(Alias(alias, collection)))


async def forget(call: CollectionCall) -> Reply:
    alias = _alias(call)
    await call.collections.forget_alias(alias)
    return Reply(json_body(RemovedAlias(alias)))


async def rename(call: CollectionCall) -> Reply:
    request = await decoded(call.body, RenameRequest)
    renamed = await call.collections.rename(
        collection_name(call), normal(request.name), keep_alias=request.keep_alias
    )
    return Reply(json_body(await stats_of(call.collections, renamed)))


def _alias(call: CollectionCall) -> str:
    return normal(str(call.scope["path_params"]["alias"]))
