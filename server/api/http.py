"""What every dialect's endpoint shares: reading a bounded body, replying, and status codes.

An `Endpoint` is an ASGI app: it skips Starlette's request and response objects, which cost more
than the rest of a small request's handling.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec
from starlette.types import Message, Receive, Scope, Send

from server import errors
from server.engine import Engine
from server.errors import (
    InternalError,
    InvalidRequest,
    MomentError,
    RequestTooLarge,
    ServerError,
    ShuttingDown,
    UnsupportedMediaType,
)
from server.metrics import Metrics, now

log = logging.getLogger(__name__)
T = TypeVar("T")

STATUS: Mapping[type[ServerError], int] = {
    errors.CallerError: 400,
    errors.RequestTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.RouteNotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.ModelNotFound: 404,
    errors.Overloaded: 429,
    errors.ShuttingDown: 503,
    errors.ServerFault: 500,
    errors.ServerError: 500,
}
# A request that waits longer than this is watched for a client that leaves; shorter ones are not,
# which saves each of them a task.
WATCH_AFTER_S = 0.1
JSON = b"application/json"

Headers = list[tuple[bytes, bytes]]


class Reply(NamedTuple):
    """Status, body and headers besides content-type and content-length."""

    body: bytes
    status: int = 200
    headers: Headers = []
    content_type: bytes = JSON


class Call(NamedTuple):
    """What a handler gets to see of a request."""

    scope: Scope
    body: bytes
    engine: Engine


Handler = Callable[[Call], Awaitable[Reply]]
ErrorReply = Callable[[ServerError], Reply]


def status_of(error: ServerError, table: Mapping[type[ServerError], int] = STATUS) -> int:
    """The status of the nearest ancestor that the table knows."""
    return next(table[kind] for kind in type(error).__mro__ if kind in table)


def retry_headers(error: ServerError) -> Headers:
    if isinstance(error, MomentError):
        return [(b"retry-after", str(error.retry_after_s).encode())]
    return []


def decode(body: bytes, kind: type[T]) -> T:
    """JSON into a msgspec struct; raises InvalidRequest that says where and why."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the request is not valid: {error}", param=_path(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None


def _path(error: msgspec.ValidationError) -> str | None:
    """The top-level key that a message such as "... - at `$.input[3]`" speaks of."""
    _, found, path = str(error).partition("`$.")
    return path.split("`")[0].split("[")[0].split(".")[0] if found else None


async def answered(handler: Handler, error_reply: ErrorReply, call: Call) -> Reply:
    """The handler's reply, or its error in the dialect's own shape."""
    try:
        return await handler(call)
    except ServerError as error:
        return error_reply(error)
    except Exception:
        log.exception("%s failed", call.scope["path"])
        return error_reply(InternalError("an internal error occurred; see the log"))


class Endpoint:
    """One POST or GET route: body in, handler, reply out; errors in the dialect's own shape."""

    def __init__(
        self,
        route: str,
        handler: Handler,
        error_reply: ErrorReply,
        max_body_bytes: int,
        metrics: Metrics,
    ) -> None:
        self._handler = handler
        self._error_reply = error_reply
        self._max_body_bytes = max_body_bytes
        self._metrics = metrics
        self._route = route
        self._seconds = metrics.request_seconds.labels(route)
        self._ok = metrics.requests.labels(route, "200")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await self._read(scope, receive)
        except ServerError as error:
            # The rest of the body is unread: the connection cannot serve another request.
            reply = self._error_reply(error)
            self._count(reply)
            return await send_reply(send, reply, [(b"connection", b"close")])
        if body is None:
            return None
        started = now()
        answer = await self._answer(Call(scope, body, scope["state"]["engine"]), receive)
        if answer is not None:
            self._seconds.observe(now() - started)
            self._count(answer)
            await send_reply(send, answer)
        return None

    async def _answer(self, call: Call, receive: Receive) -> Reply | None:
        """The handler's reply, or None when the client left before it."""
        with Watch(receive) as watch:
            try:
                return await answered(self._handler, self._error_reply, call)
            except asyncio.CancelledError:
                if watch.client_left:
                    return None
                # Whoever stops the server waits no longer for this request.
                return self._error_reply(
                    ShuttingDown("the server stopped before the answer", retry_after_s=5)
                )

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body, None when the client left; refuses a large one before reading it whole."""
        _check_headers(scope, self._max_body_bytes)
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            body: bytes = message.get("body", b"")
            return _within(body, self._max_body_bytes)
        parts, size = [], 0
        while True:
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            size += len(part)
            parts.append(_within(part, self._max_body_bytes - (size - len(part))))
            if not message.get("more_body", False):
                return b"".join(parts)
            message = await receive()

    def _count(self, reply: Reply) -> None:
        if reply.status == 200:
            self._ok.inc()
        else:
            self._metrics.requests.labels(self._route, str(reply.status)).inc()


class Watch:
    """Cancels the current task when its client disconnects, once it has waited WATCH_AFTER_S."""

    def __init__(self, receive: Receive) -> None:
        self.client_left = False
        self._receive = receive
        self._listener: asyncio.Task[None] | None = None

    def __enter__(self) -> "Watch":
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._listen)
        return self

    def _listen(self) -> None:
        self._listener = asyncio.ensure_future(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            continue
        self.client_left = True
        if self._task is not None:
            self._task.cancel()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._listener is not None:
            self._listener.cancel()


def _check_headers(scope: Scope, max_body_bytes: int) -> None:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > max_body_bytes:
            raise _too_large(int(value), max_body_bytes)
        if name == b"content-type" and scope["method"] == "POST":
            kind = value.split(b";")[0].strip().lower()
            if kind != JSON and not kind.endswith(b"+json"):
                raise UnsupportedMediaType(
                    f"content-type {kind.decode('latin-1')!r} is not application/json"
                )


def _within(part: bytes, room: int) -> bytes:
    if len(part) > room:
        raise RequestTooLarge(
            "the body is larger than the server accepts; send fewer texts at once"
        )
    return part


def _too_large(size: int, limit: int) -> RequestTooLarge:
    return RequestTooLarge(
        f"the body has {size} bytes, at most {limit} are accepted; send fewer texts at once"
    )


async def send_reply(send: Send, reply: Reply, extra: Headers | None = None) -> None:
    start: Message = {
        "type": "http.response.start",
        "status": reply.status,
        "headers": [
            (b"content-type", reply.content_type),
            (b"content-length", str(len(reply.body)).encode()),
            *reply.headers,
            *(extra or ()),
        ],
    }
    await send(start)
    await send({"type": "http.response.body", "body": reply.body})


def json_body(value: Any) -> bytes:
    return msgspec.json.encode(value)
