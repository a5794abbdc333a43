"""Replies: status, headers and body of an answer, and how it is sent.

One table gives each error its status. A dialect with other statuses has a table of its own.
"""

import base64
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from starlette.types import Message, Scope, Send

from server import errors
from server.errors import RetryableError, ServerError, Unauthorized
from server.types import Vectors

STATUS: Mapping[type[ServerError], int] = {
    errors.CallerError: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.RequestTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.RouteNotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.ModelNotFound: 404,
    # Like a model that is not served: clients do not repeat a 404, but some repeat a 501.
    errors.TaskNotServed: 404,
    errors.CollectionNotFound: 404,
    errors.DocumentNotFound: 404,
    errors.AlreadyExists: 409,
    errors.OtherModel: 409,
    errors.Overloaded: 429,
    errors.QuotaExceeded: 429,
    errors.NotReady: 503,
    errors.DatabaseAway: 503,
    errors.DatabaseBusy: 503,
    errors.ShuttingDown: 503,
    errors.DatabaseRefused: 502,
    errors.ServerFault: 500,
    errors.InternalError: 500,
    errors.ServerError: 500,
    errors.DiskFull: 507,
}
JSON = b"application/json"
NDJSON = b"application/x-ndjson"
# Key in a request's scope: a function that writes a whole reply at once, and returns whether it could. Without
# a body it closes the connection of a reply that cannot be completed.
WRITE = "inkwell.write"
# Key in a request's scope: the request's id, as bytes. Replies, log lines and audit lines contain it.
REQUEST_ID = "inkwell.request_id"

# Smaller replies are always sent.
SMALL_REPLY_BYTES = 65_536
# Memory for replies that clients take slowly, in replies of the largest size.
MAX_LARGE_REPLIES = 8
UNREAD_RETRY_S = 5
# Header of a reply whose vectors have unit length although the request asked for others.
NORMALIZED = b"x-normalized", b"true"
# Header of a reply that is a document or documents alone: how many writes the vector database does not have yet.
WAITING = b"x-waiting-writes"

Headers = list[tuple[bytes, bytes]]


class Reply(NamedTuple):
    """An answer to one request.

    headers: those besides content-type and content-length. error_code: code of the error that this
    reply reports, for the metrics; empty where it reports none. stream: instead of the body, its pieces.
    """

    body: bytes
    status: int = 200
    headers: Headers = []
    content_type: bytes = JSON
    error_code: str = ""
    stream: AsyncGenerator[bytes, None] | None = None


ErrorReply = Callable[[ServerError], Reply]


class Usage(msgspec.Struct):
    """The tokens of a request, as OpenAI's and vLLM's clients read them."""

    prompt_tokens: int
    total_tokens: int


class ApiVersion(msgspec.Struct):
    version: str


class BilledUnits(msgspec.Struct):
    input_tokens: int


class Meta(msgspec.Struct):
    """The version of the API and the tokens of a request, as Cohere's clients read them."""

    api_version: ApiVersion
    billed_units: BilledUnits


class Unread:
    """The replies that clients have not taken yet.

    waiting: bytes of all connections of this process, as the protocol counts them.
    """

    waiting = 0

    @classmethod
    def check(cls, size: int, limit: int) -> None:
        """Raise Overloaded where a reply of `size` bytes would make them more than `limit`."""
        if size > SMALL_REPLY_BYTES and cls.waiting + size > limit:
            raise errors.Overloaded(
                f"clients have not taken {cls.waiting} bytes of replies yet, at most {limit} are kept, and"
                f" this one has {size}; try again later, or ask for less",
                retry_after_s=UNREAD_RETRY_S,
            )


def error_reply_of(
    error: ServerError, body: Any, table: Mapping[type[ServerError], int] = STATUS
) -> Reply:
    """Return the reply to a request that failed. body: the error in a dialect's shape."""
    status, headers = status_of(error, table), headers_of(error)
    return Reply(json_body(body), status, headers, error_code=error.code)


def status_of(error: ServerError, table: Mapping[type[ServerError], int] = STATUS) -> int:
    """Return the status of the error's nearest ancestor in the table."""
    return next(table[kind] for kind in type(error).__mro__ if kind in table)


def headers_of(error: ServerError) -> Headers:
    """Return the headers of an error: when to try again, or which credentials are needed."""
    if isinstance(error, RetryableError):
        return [(b"retry-after", str(error.retry_after_s).encode())]
    if isinstance(error, Unauthorized):
        return [(b"www-authenticate", b'Bearer realm="inkwell"')]
    return []


async def send_reply(scope: Scope, send: Send, reply: Reply, extra: Headers | None = None) -> None:
    """Send a reply, with extra headers if there are any."""
    about = [
        (b"content-type", reply.content_type),
        (b"content-length", str(len(reply.body)).encode()),
    ]
    own = (b"x-request-id", scope[REQUEST_ID])
    headers = [
        *(about if reply.status not in (204, 304) else ()),
        *reply.headers,
        *(extra or ()),
        own,
    ]
    # subtle: the function refers to the scope. If it stayed there, every request would leave a circle of
    # objects, which only the garbage collector frees.
    write = scope.pop(WRITE, None)
    if write is not None and extra is None and write(reply.status, headers, reply.body):
        return
    start: Message = {"type": "http.response.start", "status": reply.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": reply.body})


def json_body(value: Any) -> bytes:
    return msgspec.json.encode(value)


def usage_of(tokens: int) -> dict[str, int]:
    """Return a `Usage`."""
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def meta_of(version: str, tokens: int) -> dict[str, dict[str, Any]]:
    """Return a `Meta`."""
    return {"api_version": {"version": version}, "billed_units": {"input_tokens": tokens}}


def truncated_header(count: int) -> tuple[bytes, bytes]:
    """Return the header with the number of texts that were truncated."""
    return b"x-truncated", b"%d" % count


def base64_rows(vectors: Vectors) -> list[str]:
    """Return each row of float32 (B, D) in base64.

    The bytes are little-endian, as numpy keeps them on every machine that ONNX Runtime supports.
    """
    return [base64.b64encode(row.tobytes()).decode() for row in vectors]
