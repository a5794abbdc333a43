"""What every dialect's endpoint shares: reading a bounded body, replying, and status codes.

An `Endpoint` is an ASGI app: it skips Starlette's request and response objects, which cost more
than the rest of a small request's handling.
"""

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec
from starlette.types import Message, Receive, Scope, Send

from server import errors
from server.auth.gate import LONGEST, Access, Needs, Visit, request_id, secret_in
from server.clock import now
from server.collections.live_collection import LiveCollection
from server.collections.registry import DEFAULT, CollectionRegistry
from server.errors import (
    InternalError,
    InvalidRequest,
    Overloaded,
    RequestTooLarge,
    RetryableError,
    ServerError,
    ShuttingDown,
    Unauthorized,
    UnsupportedMediaType,
)
from server.inference.registry import ModelRegistry
from server.store.filters import Filter, check
from server.telemetry.metrics import Metrics
from server.types import Vectors

log = logging.getLogger(__name__)
T = TypeVar("T")

STATUS: Mapping[type[ServerError], int] = {
    errors.CallerError: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.RequestTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.RouteNotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.ModelNotFound: 404,
    # As another model that is not here: no client tries again, which a 501 would make some do.
    errors.TaskNotServed: 404,
    errors.CollectionNotFound: 404,
    errors.DocumentNotFound: 404,
    errors.AlreadyExists: 409,
    errors.OtherModel: 409,
    errors.Overloaded: 429,
    errors.QuotaExceeded: 429,
    errors.NotReady: 503,
    errors.ShuttingDown: 503,
    errors.ServerFault: 500,
    InternalError: 500,
    errors.ServerError: 500,
    errors.DiskFull: 507,
}
# A request that waits longer than this is watched for a client that leaves; shorter ones are not,
# which saves each of them a task.
WATCH_AFTER_S = 0.1
# Bodies in memory at once, in bodies of the largest size. Eight of 32 MB took resident memory from 144
# to 389 MB while they came and to 582 MB when all were read at once (2026-11-24, AMD EPYC, 2 cores).
MAX_LARGE_BODIES = 8
# Bodies up to this size count for nothing: uvicorn reads as much ahead for every connection anyway,
# and so a query is never refused for the large bodies of others.
SMALL_BODY_BYTES = 65_536
# A body has the seconds without more of it, and one for each so many bytes that have come: 512 kbit/s, of
# a slow line. So 32 MB hold their room for nine minutes at most, however they trickle.
LEAST_BYTES_S = 65_536
# Seconds in which two cores work off what one large body brings: 2,048 texts of some hundred tokens.
BODY_RETRY_S = 10
JSON = b"application/json"
# Where a request's scope has it: what writes a whole reply at once, and says whether it could.
WRITE = "inkwell.write"
# And where it has the request's id, bytes: every reply, log line and line of the audit names it.
REQUEST_ID = "inkwell.request_id"

Headers = list[tuple[bytes, bytes]]
# A request's, by name in small letters; of one that comes twice the last.
Fields = Mapping[bytes, bytes]


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
    models: ModelRegistry
    library: CollectionRegistry


Handler = Callable[[Call], Awaitable[Reply]]
ErrorReply = Callable[[ServerError], Reply]


def status_of(error: ServerError, table: Mapping[type[ServerError], int] = STATUS) -> int:
    """The status of the nearest ancestor that the table knows."""
    return next(table[kind] for kind in type(error).__mro__ if kind in table)


def headers_of(error: ServerError) -> Headers:
    """What a refusal says besides its body: when to come again, and what to bring."""
    if isinstance(error, RetryableError):
        return [(b"retry-after", str(error.retry_after_s).encode())]
    if isinstance(error, Unauthorized):
        return [(b"www-authenticate", b'Bearer realm="inkwell"')]
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
        if status_of(error) >= 500 and not isinstance(error, RetryableError):
            request = _id(call.scope)
            said = (call.scope["path"][:LONGEST], request, error.message)
            log.error("%s failed, request %s: %s", *said, extra={"request": request})
        # subtle: it leads to frames that lead to the error again, garbage that only a collection finds.
        # Under ten times the load those took the loop for 20 ms at a time (2026-11-25).
        error.__traceback__ = None
        return error_reply(error)
    except Exception:
        return error_reply(_unforeseen(call.scope))


def _id(scope: Scope) -> str:
    return str(scope.get(REQUEST_ID, b"-"), "ascii")


def _unforeseen(scope: Scope) -> InternalError:
    """What is said of the exception being handled, which the log tells in full."""
    request = _id(scope)
    path = scope["path"][:LONGEST]
    log.exception("%s failed, request %s", path, request, extra={"request": request})
    return InternalError("an internal error occurred; see the log")


class Share:
    """What one request's body takes of the memory for bodies; nothing any more after its end.

    taken: bytes of all requests of the process, because the memory is the process's too. They are
    counted as they arrive: what a client only announces keeps no room from others.
    """

    taken = 0

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0

    def __enter__(self) -> "Share":
        return self

    def check(self, size: int) -> None:
        """Raise Overloaded if the body cannot grow to `size` bytes now."""
        others = Share.taken - self._size
        if size > SMALL_BODY_BYTES and others + size > self._limit:
            raise Overloaded(
                f"bodies of {others} bytes are being read and answered, at most {self._limit} may"
                " be at once; try again later",
                retry_after_s=BODY_RETRY_S,
            )

    def grow(self, size: int) -> None:
        """The body has `size` bytes by now; raises Overloaded."""
        if size > SMALL_BODY_BYTES:
            self.check(size)
            Share.taken += size - self._size
            self._size = size

    def __exit__(self, *_: object) -> None:
        Share.taken -= self._size
        self._size = 0


class Endpoint:
    """One route and method: body in, handler, reply out; errors in the dialect's own shape."""

    def __init__(
        self,
        route: str,
        handler: Handler,
        error_reply: ErrorReply,
        max_body_bytes: int,
        metrics: Metrics,
        read_s: float = 30.0,
        *,
        any_type: bool = False,
        needs: Needs = "key",
        access: Access | None = None,
    ) -> None:
        """access: None where anybody may ask anything, by any name."""
        self._needs = needs
        self._hosts = None if access is None else access.hosts
        self._access = None if access is None or access.idle else access
        self._handler = handler
        self._shape = error_reply
        # Where everybody may ask, nobody takes room from those who bring a key.
        self._max_body_bytes = (
            min(max_body_bytes, SMALL_BODY_BYTES) if needs == "nothing" else max_body_bytes
        )
        self._read_s = read_s
        self._any_type = any_type
        self._metrics = metrics
        self._route = route
        self._seconds = metrics.request_seconds.labels(route)
        self._ok = metrics.requests.labels(route, "200")

    def _error_reply(self, error: ServerError) -> Reply:
        self._metrics.errors.labels(error.code).inc()
        return self._shape(error)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            headers = dict(scope["headers"])
            scope[REQUEST_ID] = id = request_id(headers.get(b"x-request-id"))
            if self._access is None:
                return await self._serve(scope, headers, receive, send, None)
            with Visit(self._access, scope, id, secret_in(headers)) as visit:
                try:
                    await self._serve(scope, headers, receive, send, visit)
                except Exception:
                    visit.status = STATUS[InternalError]
                    raise
        except Exception:
            # Outside of the handler, whose own errors are answered where it is called.
            await send_reply(scope, send, self._error_reply(_unforeseen(scope)))

    async def _serve(
        self, scope: Scope, headers: Fields, receive: Receive, send: Send, visit: Visit | None
    ) -> None:
        with Share(MAX_LARGE_BODIES * self._max_body_bytes) as share:
            try:
                if visit is not None:
                    visit.admit(self._needs, self._route)
                if self._hosts is not None:
                    self._hosts.check(headers.get(b"host"), scope)
                body = await self._read(scope, headers, receive, share)
            except ServerError as error:
                status = await self._refuse(error, scope, send)
                if visit is not None:
                    visit.status = status
                return
            if body is None:
                return
            if visit is not None:
                visit.body = body
            started = now()
            state = scope["state"]
            call = Call(scope, body, state["models"], state["library"])
            answer = await self._answer(call, receive)
            if answer is not None:
                self._seconds.observe(now() - started)
                self._count(answer)
                if visit is not None:
                    visit.status = answer.status
                await send_reply(scope, send, answer)

    async def _refuse(self, error: ServerError, scope: Scope, send: Send) -> int:
        """Answer a request whose body is not whole: its connection cannot serve another one."""
        if isinstance(error, Overloaded):
            self._metrics.refused.inc()
        reply = self._error_reply(error)
        self._count(reply)
        await send_reply(scope, send, reply, [(b"connection", b"close")])
        return reply.status

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

    async def _read(
        self, scope: Scope, headers: Fields, receive: Receive, share: Share
    ) -> bytes | None:
        """The whole body, None when the client left; refuses a large one before reading it whole."""
        if _has_body(scope, headers, self._max_body_bytes, share):
            _check_type(headers, any_type=self._any_type)
        parts: list[bytes] = []
        size = 0
        with Patience(self._read_s) as patience:
            while True:
                try:
                    message = await receive()
                except asyncio.CancelledError:
                    raise patience.reason(size) from None
                if message["type"] == "http.disconnect":
                    return None
                part: bytes = message.get("body", b"")
                size += len(part)
                _check_size(size, self._max_body_bytes)
                share.grow(size)
                if not message.get("more_body", False):
                    return b"".join([*parts, part]) if parts else part
                if part:
                    parts.append(part)
                    patience.renew(size)

    def _count(self, reply: Reply) -> None:
        if reply.status == 200:
            self._ok.inc()
        else:
            self._metrics.requests.labels(self._route, str(reply.status)).inc()


def longest(waited_s: float, size: int, read_s: float) -> float:
    """Seconds to wait for more of a body, of which `size` bytes have come in `waited_s`."""
    return min(read_s, read_s + size / LEAST_BYTES_S - waited_s)


class Patience:
    """Cancels the current task when nothing has come for `seconds`, or the whole comes too slowly.

    Every request has one, and asyncio.timeout costs three times as much: 5 us.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ended = False

    def __enter__(self) -> "Patience":
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._began = now()
        self._timer = self._loop.call_later(self._seconds, self._end)
        return self

    def renew(self, size: int) -> None:
        """`size` bytes have come by now."""
        self._timer.cancel()
        wait_s = longest(now() - self._began, size, self._seconds)
        self._timer = self._loop.call_later(wait_s, self._end)

    def reason(self, size: int) -> ServerError:
        """Why the task was cancelled after `size` bytes."""
        if self._ended:
            waited_s = now() - self._began
            return InvalidRequest(
                f"the body is not whole: {size} bytes came in {waited_s:.0f} s; more has to come within"
                f" {self._seconds:g} s, and {LEAST_BYTES_S} bytes a second after the first"
                f" {self._seconds:g} s"
            )
        # Whoever stops the server waits no longer for the rest of this request.
        return ShuttingDown("the server stopped before the request was whole", retry_after_s=5)

    def _end(self) -> None:
        self._ended = True
        if self._task is not None:
            self._task.cancel()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


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
        # subtle: the cancelled task keeps the frame that refers to this. Under overload, when every accepted
        # request is watched, such circles made four collections of garbage in 20 s, of 20 to 40 ms each.
        self._listener = self._task = None


def _has_body(scope: Scope, headers: Fields, max_body_bytes: int, share: Share) -> bool:
    """Whether there is one; refuses it by the size that is announced."""
    length = headers.get(b"content-length", b"")
    # subtle: int() raises for thousands of digits, and so many say too large already.
    size = int(length[:20]) if length.isdigit() else 0
    if size > max_body_bytes:
        raise _too_large(size, max_body_bytes)
    share.check(size)
    return size > 0 or scope["method"] == "POST" or b"transfer-encoding" in headers


def _check_type(headers: Fields, *, any_type: bool) -> None:
    given = headers.get(b"content-type")
    kind = None if given is None else given.split(b";")[0].strip().lower()
    # subtle: a page of any web site may send a body without the header here, and a form's types,
    # without asking first; so only this type is taken.
    if not any_type and kind != JSON and not (kind and kind.endswith(b"+json")):
        raise UnsupportedMediaType(
            "there is no content-type; it must be application/json"
            if kind is None
            else f"content-type {kind.decode('latin-1')!r} is not application/json"
        )
    coding = headers.get(b"content-encoding", b"").strip().lower()
    if coding not in (b"", b"identity"):
        raise UnsupportedMediaType(
            f"content-encoding {coding.decode('latin-1')!r} is not read; send the body as it is"
        )


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise RequestTooLarge(
            "the body is larger than the server accepts; send fewer texts at once"
        )


def _too_large(size: int, limit: int) -> RequestTooLarge:
    return RequestTooLarge(
        f"the body has {size} bytes, at most {limit} are accepted; send fewer texts at once"
    )


async def send_reply(scope: Scope, send: Send, reply: Reply, extra: Headers | None = None) -> None:
    about = [
        (b"content-type", reply.content_type),
        (b"content-length", str(len(reply.body)).encode()),
    ]
    own = (b"x-request-id", scope[REQUEST_ID])
    headers = [*(about if reply.status != 204 else ()), *reply.headers, *(extra or ()), own]
    # subtle: taken out, because it refers to the scope in its turn. Such circles of every request would
    # be garbage that only a collection finds.
    write = scope.pop(WRITE, None)
    if write is not None and extra is None and write(reply.status, headers, reply.body):
        return
    start: Message = {"type": "http.response.start", "status": reply.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": reply.body})


def json_body(value: Any) -> bytes:
    return msgspec.json.encode(value)


def truncated_header(number: int) -> tuple[bytes, bytes]:
    """How many of the request's texts were cut."""
    return b"x-truncated", b"%d" % number


def base64_rows(vectors: Vectors) -> list[str]:
    """Each row's float32, little-endian: as numpy has it on every machine that onnxruntime runs on."""
    return [base64.b64encode(row.tobytes()).decode() for row in vectors]


def collection_of(call: Call) -> str:
    """The collection that a path names, the default one where it names none."""
    return str(call.scope["path_params"].get("collection", DEFAULT))


def shelf_of(call: Call) -> LiveCollection:
    return call.library.shelf(collection_of(call))


def checked_filter(given: dict[str, Any] | None) -> Filter | None:
    """A filter that can be honoured; None where everything is kept."""
    if not given:
        return None
    check(given)
    return given
