"""An endpoint: the ASGI app of one operation, from the request's head to its reply.

Starlette's request and response objects are not used: they cost more than everything else that a small
request needs.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Generic, TypeVar

from starlette.types import Receive, Scope, Send

from server.api.body import (
    MAX_LARGE_BODIES,
    SMALL_BODY_BYTES,
    BodyBudget,
    BodyLimits,
    Fields,
    check_coding,
    key_in,
    media_type,
    read_body,
)
from server.api.json_size import UNCOUNTED_BYTES, check_size
from server.api.operation import Call, Handler, Operation, OperationOn
from server.api.replies import (
    REQUEST_ID,
    STATUS,
    ErrorReply,
    Reply,
    Unread,
    send_reply,
    status_of,
)
from server.api.streaming.body_stream import BodyStream, ClientLeft
from server.api.streaming.reply_stream import send_stream
from server.auth.gate import LONGEST, Access, Visit, request_id, secret_in
from server.clock import now
from server.errors import InternalError, Overloaded, RetryableError, ServerError, ShuttingDown
from server.system.memory import FreedMemory
from server.telemetry.metrics import Metrics

# A request that waits longer is watched for a client that disconnects. Shorter ones need no task for it.
WATCH_AFTER_S = 0.1

log = logging.getLogger(__name__)
C = TypeVar("C", bound=Call)


def by_key(key: str, handler: Handler, other_key: str, other: Operation) -> Handler:
    """Return a handler for a path that two dialects share.

    A body with `other_key` is for the other dialect's operation, which also shapes its errors.
    """

    async def handle(call: Call) -> Reply:
        if await key_in(call.body, key, other_key) == key:
            return await handler(call)
        return await _reply_to(call, other.handler, other.dialect.error_reply)

    return handle


async def _reply_to(
    call: C, handler: Callable[[C], Awaitable[Reply]], error_reply: ErrorReply
) -> Reply:
    """Return the handler's reply, or the reply for its error."""
    try:
        return await handler(call)
    except ServerError as error:
        if status_of(error) >= 500 and not isinstance(error, RetryableError):
            request = _id(call.scope)
            about = (call.scope["path"][:LONGEST], request, error.message)
            log.error("%s failed, request %s: %s", *about, extra={"request": request})
        # subtle: its frames refer to the error again, a circle that only the garbage collector frees.
        # Under ten times the load those collections held the loop for 20 ms each (2026-11-25).
        error.__traceback__ = None
        return error_reply(error)
    except ClientLeft:
        raise
    except Exception:
        return error_reply(_unexpected(call.scope))


def _id(scope: Scope) -> str:
    return str(scope.get(REQUEST_ID, b"-"), "ascii")


def _unexpected(scope: Scope) -> InternalError:
    """Log the current exception; return an error without its details."""
    request = _id(scope)
    path = scope["path"][:LONGEST]
    log.exception("%s failed, request %s", path, request, extra={"request": request})
    return InternalError("an internal error occurred; see the log")


class Endpoint(Generic[C]):
    """Reads the request of one operation, calls its handler and sends the reply."""

    def __init__(
        self,
        operation: OperationOn[C],
        call_of: Callable[[Scope, bytes, Any], C],
        limits: BodyLimits,
        metrics: Metrics,
        access: Access | None = None,
    ) -> None:
        """Take the operation and its limits.

        call_of: makes the call from scope, body and the app's state.
        access: None where every request is allowed, under any host name.
        """
        self._call_of = call_of
        self._needs = operation.needs
        self._hosts = None if access is None else access.hosts
        self._access = None if access is None or access.idle else access
        self._handler = operation.handler
        self._stream, self._stream_types = operation.stream, frozenset(operation.stream_types)
        self._error_reply = operation.dialect.error_reply
        # Clients without a key may not take the memory of clients with one.
        most = SMALL_BODY_BYTES if operation.needs == "nothing" else limits.max_bytes
        max_bytes = min(limits.max_bytes, most)
        self._limits = replace(limits, max_bytes=max_bytes, any_type=operation.any_type)
        self._limits = replace(self._limits, is_file=operation.is_file)
        self._metrics = metrics
        self._freed = FreedMemory()
        self._route = operation.path
        self._seconds = metrics.request_seconds.labels(operation.path)
        self._ok = metrics.requests.labels(operation.path, "200")

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
            # A bug outside of the handler, whose own exceptions are caught where it is called.
            reply = self._error_reply(_unexpected(scope))
            self._count(reply)
            await send_reply(scope, send, reply)

    async def _serve(
        self, scope: Scope, headers: Fields, receive: Receive, send: Send, visit: Visit | None
    ) -> None:
        with BodyBudget(MAX_LARGE_BODIES * self._limits.max_bytes) as budget:
            try:
                if visit is not None:
                    visit.admit(self._needs, self._route)
                if self._hosts is not None:
                    self._hosts.check(headers.get(b"host"), scope)
                if self._stream is not None and media_type(headers) in self._stream_types:
                    check_coding(headers)
                    stream = BodyStream(
                        receive, budget, self._limits.read_s, self._limits.max_bytes
                    )
                    return await self._serve_stream(self._stream, stream, scope, send, visit)
                body = await read_body(scope, headers, receive, budget, self._limits)
                if body and len(body) > UNCOUNTED_BYTES and not self._limits.is_file:
                    # A handler decodes it at once, and no other request runs meanwhile.
                    await asyncio.to_thread(check_size, body)
            except ServerError as error:
                self._freed.after(budget.size)
                return await self._refuse(error, scope, send, visit)
            if body is None:
                return
            if visit is not None:
                visit.body = body
            started = now()
            call = self._call_of(scope, body, scope["state"])
            reply = await self._reply(call, receive)
            if reply is not None:
                reply = self._sendable(reply)
                self._seconds.observe(now() - started)
                self._count(reply)
                if visit is not None:
                    visit.status = reply.status
                if reply.stream is not None:
                    return await self._send_stream(scope, receive, send, reply)
                await send_reply(scope, send, reply)
                self._freed.after(max(budget.size, len(reply.body)))

    async def _serve_stream(
        self,
        handler: Callable[[C, BodyStream], Awaitable[Reply]],
        body: BodyStream,
        scope: Scope,
        send: Send,
        visit: Visit | None,
    ) -> None:
        """Serve a request whose handler reads the body as it arrives."""
        started = now()
        call = self._call_of(scope, b"", scope["state"])
        try:
            reply = await _reply_to(call, lambda call: handler(call, body), self._error_reply)
        except ClientLeft:
            return
        finally:
            if visit is not None:
                visit.body = body.beginning
        reply = reply._replace(headers=[*reply.headers, *body.headers])
        self._seconds.observe(now() - started)
        self._count(reply)
        if visit is not None:
            visit.status = reply.status
        # What is left of the body would be read as the next request.
        await send_reply(scope, send, reply, None if body.whole else [(b"connection", b"close")])
        self._freed.after(self._limits.max_bytes)

    async def _send_stream(self, scope: Scope, receive: Receive, send: Send, reply: Reply) -> None:
        """Send a reply piece by piece; a client that leaves ends it."""
        with DisconnectWatch(receive) as watch:
            try:
                await send_stream(scope, send, reply, self._error_reply)
            except asyncio.CancelledError:
                if not watch.disconnected:
                    raise

    async def _refuse(
        self, error: ServerError, scope: Scope, send: Send, visit: Visit | None
    ) -> None:
        """Answer a request whose body was not read, and close its connection."""
        if isinstance(error, Overloaded):
            self._metrics.refused.inc()
        reply = self._error_reply(error)
        self._count(reply)
        if visit is not None:
            visit.status = reply.status
        await send_reply(scope, send, reply, [(b"connection", b"close")])

    async def _reply(self, call: C, receive: Receive) -> Reply | None:
        """Return the reply, or None if the client disconnected before it."""
        with DisconnectWatch(receive) as watch:
            try:
                return await _reply_to(call, self._handler, self._error_reply)
            except asyncio.CancelledError:
                if watch.disconnected:
                    return None
                # Otherwise the server is stopping and does not wait for this request any longer.
                error = ShuttingDown("the server stopped before the answer", retry_after_s=5)
                return self._error_reply(error)

    def _sendable(self, reply: Reply) -> Reply:
        """Return the reply, or the refusal where too much waits for slow clients."""
        try:
            Unread.check(len(reply.body), self._limits.max_unread)
        except Overloaded as error:
            self._metrics.refused.inc()
            return self._error_reply(error)
        return reply

    def _count(self, reply: Reply) -> None:
        if reply.status == 200:
            self._ok.inc()
        else:
            self._metrics.count_reply(self._route, reply.status, reply.error_code)


class DisconnectWatch:
    """Cancels the current task when its client disconnects, after WATCH_AFTER_S of waiting."""

    def __init__(self, receive: Receive) -> None:
        self.disconnected = False
        self._receive = receive
        self._listener: asyncio.Task[None] | None = None

    def __enter__(self) -> "DisconnectWatch":
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._listen)
        return self

    def _listen(self) -> None:
        self._listener = asyncio.ensure_future(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            continue
        self.disconnected = True
        if self._task is not None:
            self._task.cancel()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._listener is not None:
            self._listener.cancel()
        # subtle: the cancelled task keeps the frame that refers to this object. Under overload every request
        # is watched, and such circles cost four garbage collections in 20 s, of 20 to 40 ms each.
        self._listener = self._task = None
