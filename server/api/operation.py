"""What is on one path: who answers, in whose shapes, and what is said about it in OpenAPI."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from server.api.endpoint import ErrorReply, Handler
from server.auth.gate import Needs


class Dialect(NamedTuple):
    """error: the type of the body that `error_reply` makes."""

    name: str
    error_reply: ErrorReply
    error: Any


class Operation(NamedTuple):
    """A route of a dialect.

    needs: the scope of the key that may ask for it; "key" for any key, "nothing" for nobody's.
    request, response: types of the JSON bodies, any of them; none where there is no body. errors:
    types of error bodies besides the dialect's own. query: names of parameters after the "?".
    status: of the reply when all is well, or of the refusal where every request gets one. plain: the
    reply is text of this media type instead of JSON. any_type: the body is JSON whatever its
    content-type says; only where a request stores nothing, for a web page may send such a one unasked.
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
