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
    """

    needed: bool
    name: str | None
    scopes: list[str]


def operations() -> list[Operation]:
    about = "What the key of this request may do"
    return [Operation(NATIVE, "GET", "/key", key, about, "key", response=(KeyReply,))]


async def key(call: Call) -> Reply:
    """Describe the key. Without a key, a server that asks for one answers 401."""
    holder = call.scope.get(HOLDER)
    if holder is None:
        return Reply(json_body(KeyReply(False, None, list(SCOPES))))
    return Reply(json_body(KeyReply(True, holder.key.name, list(holder.key.scopes))))
