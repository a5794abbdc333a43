"""GET /key: what the key of a request may do, so that a page can hide what it may not."""

import msgspec

from server.api.native_errors import NATIVE
from server.api.operation import Call, Operation
from server.api.replies import Reply, json_body
from server.auth.gate import HOLDER
from server.auth.keys import SCOPES


class KeyReply(msgspec.Struct):
    """What a request with this key may do.

    needed: whether the server asks for keys. name: null where it does not. scopes: all of them where it does not.
    collections: those that it may use, by name or by the beginning of names before a star; null for all.
    """

    needed: bool
    name: str | None
    scopes: list[str]
    collections: list[str] | None = None


def operations() -> list[Operation]:
    about = "What the key of this request may do"
    return [Operation(NATIVE, "GET", "/key", key, about, "key", response=(KeyReply,))]


async def key(call: Call) -> Reply:
    """Describe the key. Without a key, a server that asks for one answers 401."""
    holder = call.scope.get(HOLDER)
    if holder is None:
        return Reply(json_body(KeyReply(False, None, list(SCOPES))))
    key = holder.key
    some = None if key.collections is None else list(key.collections)
    return Reply(json_body(KeyReply(True, key.name, list(key.scopes), some)))
