"""What uvicorn does on a connection, with five differences.

A reply's head and body leave in one system call: uvicorn takes them as two messages, checks each header
by a pattern and writes one after the other. On loopback with 16 clients the second write cost more than
encoding the body, and woke the client once for nothing.

An offer to upgrade is declined by answering the request, as RFC 9110 allows. Java's HttpClient makes
one (h2c) with every request over plain HTTP; uvicorn would lose the body behind it.

What is no HTTP/1.1 is refused in JSON like everything else, behind the answers to what came before it.

The next request is read when the one before is answered and its reply taken, and begins no sooner; what
one read brings of several waits, up to a number. uvicorn makes a request of each and reads on.

Nobody keeps a connection for nothing: how many there are is bounded, how large a head is and how long it
may take to come, and how long a client may leave its reply untaken. A body's limits are the endpoint's;
what stands behind a body in chunks is dropped, and bounded like a head. With TLS all of it holds for the
connection beneath, which `handshake` gives.
"""

import asyncio
import sys
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from fcntl import ioctl
from functools import partial
from termios import TIOCOUTQ
from typing import Any, NamedTuple, NoReturn, cast

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from server.api.native_errors import error_reply
from server.api.replies import WRITE, headers_of
from server.app import App
from server.auth.gate import request_id
from server.config import Config
from server.errors import InvalidRequest, Overloaded, RequestTooLarge, ServerError

# Browsers send some 20, proxies add ten.
MAX_HEADERS = 128
# Requests of a connection that wait for the answers before theirs. One read brings up to 256,000 bytes,
# of which uvicorn made 14,221 requests and 34 MB (2026-11-25); who sends ahead at all sends some ten.
MAX_PIPELINED = 16
# Seconds that a connection over the limit waits for the request to which it is told so.
REFUSED_S = 1.0
# Seconds between two looks at what a client has not taken; `send_s` is a whole number of them.
LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection may take; `config.py` says how to choose them."""

    connections: int
    head_bytes: int
    head_s: float
    send_s: float

    @classmethod
    def of(cls, config: Config) -> "Limits":
        return cls(config.max_connections, config.max_head_bytes, config.head_s, config.send_s)


def write(
    cycle: RequestResponseCycle, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes
) -> bool:
    """Write a whole reply; False where that is uvicorn's business: the client reads too slowly."""
    if cycle.disconnected:
        return True
    if cycle.flow.write_paused or cycle.response_started:
        return False
    parts = [STATUS_LINE[status]]
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    if not cycle.keep_alive:
        parts.append(b"connection: close\r\n")
    parts += (b"\r\n", body)
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"".join(parts))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


class Refusal(NamedTuple):
    """reason: what the metric calls it."""

    error: ServerError
    reason: str


class Flow(FlowControl):
    """Reading goes on when no request waits for another's answer, and the reply before has been taken."""

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting
        # Whether nothing will be read any more.
        self.ended = False

    def resume_reading(self) -> None:
        # uvicorn's cycles call it whenever they wait for a body.
        if self.read_paused and not (self._waiting or self.write_paused or self.ended):
            super().resume_reading()


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol, with `write` in the scope of requests whose reply has a body."""

    def __init__(self, limits: Limits, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._limits = limits
        self._full = False
        # What the kernel's socket is written by: with TLS, another one than `transport`.
        self._raw: asyncio.Transport = None  # type: ignore[assignment]
        # Whether a head is being read, or anything of a request.
        self._in_head = False
        self._in_request = False
        # Bytes of the reads that brought something of the head, which has no more than that.
        self._read_bytes = 0
        # Whether the last read brought a part of a head or of trailers and nothing else, and how many bytes
        # such reads in a row have brought.
        self._bare = False
        self._bare_bytes = 0
        # Given to the parser, which gives up; what is answered when all before has been.
        self._objection: Refusal | None = None
        self._last_words: bytes | None = None
        # Whether what comes next waits for the client to take the reply before.
        self._held = False
        # Until the head has to be whole.
        self._head_timer: asyncio.TimerHandle | None = None
        # Until somebody looks whether more of the reply has been taken, of which so much was left, and no
        # less for so long.
        self._send_timer: asyncio.TimerHandle | None = None
        self._untaken = 0
        self._idle_s = 0.0

    def handshake_begins(self, raw: asyncio.Transport) -> None:
        """From here on it counts like others. raw: what what was encrypted is written to."""
        self._raw = raw
        self.connections.add(self)

    def handshake_failed(self) -> None:
        self.connections.discard(self)
        # It refers to this in its turn.
        self.parser = None  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._raw is None:
            self._raw = transport
        self.flow: Flow = Flow(transport, self.pipeline)
        self._full = self.too_many()
        seconds = REFUSED_S if self._full else self._limits.head_s
        self._head_timer = self.loop.call_later(seconds, self._head_is_late)

    def too_many(self, more: int = 0) -> bool:
        """Whether there are more connections than may be, with `more` than are counted."""
        return len(self.connections) + more > self._limits.connections

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # uvicorn does so where nothing went wrong; a connection that was reset would stay in memory.
        self._unset_keepalive_if_required()
        self.pipeline.clear()
        self._have_head()
        self._have_sent()

    def eof_received(self) -> None:
        """The loop closes the connection as soon as everything has been taken."""
        self._expect_end()

    def shutdown(self) -> None:
        if self.flow is None:
            return self._raw.abort()  # It still shakes hands.
        super().shutdown()
        if self.transport.is_closing():
            self._expect_end()
        return None

    # --- heads ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._in_request = True

    def on_headers_complete(self) -> None:
        self._in_head = self._bare = False
        self._have_head()
        self._check_head()
        super().on_headers_complete()
        # An offer to upgrade makes no cycle yet.
        if self.cycle is not None and self.cycle.scope is self.scope:
            if self.scope["method"] != "HEAD":
                self.scope[WRITE] = partial(write, self.cycle)  # type: ignore[literal-required]
            # subtle: what comes behind a body in chunks would be added to the request's, a key among it.
            self.headers = []

    def on_body(self, body: bytes) -> None:
        self._bare = False
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_request = self._bare = False
        super().on_message_complete()

    def _check_head(self) -> None:
        if len(self.headers) > MAX_HEADERS:
            self._object(self._too_many_headers(), "headers")
        if self._read_bytes > self._limits.head_bytes:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self._limits.head_bytes:
                self._object(self._head_too_large(size), "head_bytes")
        if len(self.pipeline) >= MAX_PIPELINED:
            error = Overloaded(
                f"{len(self.pipeline)} requests wait on this connection for the answers before theirs,"
                f" at most {MAX_PIPELINED} may; read answers before sending more",
                retry_after_s=1,
            )
            self._object(error, "pipelined")

    def _object(self, error: ServerError, reason: str) -> NoReturn:
        self._objection = Refusal(error, reason)
        # To the parser, which gives up.
        raise error

    def _too_many_headers(self) -> RequestTooLarge:
        return RequestTooLarge(
            f"the request has {len(self.headers)} headers, at most {MAX_HEADERS} are read"
        )

    def _head_too_large(self, size: int, what: str = "head has") -> RequestTooLarge:
        limit = self._limits.head_bytes
        return RequestTooLarge(f"the request's {what} {size} bytes, at most {limit} are read")

    def expect_head(self) -> None:
        """To be called when something has been read: a head that has begun has to end in time."""
        if self._head_timer is not None or self.transport.is_closing() or self.flow.ended:
            return
        idle = self.cycle is None or self.cycle.response_complete
        # Between two requests uvicorn's own timer runs, until anything comes.
        if self._in_head or (idle and self.timeout_keep_alive_task is None):
            self._head_timer = self.loop.call_later(self._limits.head_s, self._head_is_late)

    def _have_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.flow.read_paused:
            # The reply before is taken first, which has a limit of its own.
            self.expect_head()
        elif self._in_head:
            error = InvalidRequest(f"the head is not whole after {self._limits.head_s:g} s")
            self._refuse(error, "head_time")
        else:
            self.transport.abort()

    # --- replies ----------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self.flow.pause_reading()
        self._have_sent()
        self._expect_taking()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.transport.is_closing():
            return
        self._have_sent()
        if self._held:
            self._held = False
            self._go_on()
        else:
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        """Instead of uvicorn's, which begins the next request while this reply is not taken."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._expect_end()
        elif self.flow.write_paused:
            self._held = True
        else:
            self._go_on()

    def _go_on(self) -> None:
        """To the next request, to a refusal that came behind the last one, or to reading."""
        self._unset_keepalive_if_required()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._last_words is not None:
            self._end_with(self._last_words)
        else:
            self.flow.resume_reading()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._expect_end()

    def _expect_end(self) -> None:
        """Of a connection that closes as soon as everything has been taken."""
        if self._send_timer is None:
            self._expect_taking()

    def _unsent(self) -> int:
        """Bytes that the client has not acknowledged, in what TLS makes of them."""
        above = 0 if self._raw is self.transport else self.transport.get_write_buffer_size()
        # subtle: the kernel's too. It has megabytes, and takes more when a third of them is free: a client
        # of 40 KB/s would take nothing for 30 seconds.
        try:
            queued = ioctl(self._raw.get_extra_info("socket").fileno(), TIOCOUTQ, bytes(4))
        except (OSError, ValueError):
            return 0  # It is closed, and all is over.
        return above + self._raw.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)

    def _expect_taking(self) -> None:
        self._untaken, self._idle_s = self._unsent(), 0.0
        self._send_timer = self.loop.call_later(LOOK_S, self._check_taking)

    def _check_taking(self) -> None:
        left = self._unsent()
        self._idle_s = 0.0 if left < self._untaken else self._idle_s + LOOK_S
        self._untaken = min(left, self._untaken)
        # With nothing left only the client's farewell is missing, which TLS has and most never send.
        if self._idle_s >= self._limits.send_s or (not left and self.transport.is_closing()):
            self.transport.abort()
        else:
            self._send_timer = self.loop.call_later(LOOK_S, self._check_taking)

    def _have_sent(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    # --- reading ----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self.flow.ended:
            return
        if self._full:
            limit = self._limits.connections
            error = Overloaded(
                f"there are {len(self.connections)} connections, at most {limit} may be at once;"
                " try again later",
                retry_after_s=1,
            )
            return self._refuse(error, "connections")
        self._read_bytes = len(data) + (self._read_bytes if self._in_head else 0)
        self._bare = True
        self._parse(data)
        if self._in_request:
            self._check_bare(len(data))
        else:
            self._bare_bytes = 0
        return self.expect_head()

    def _check_bare(self, size: int) -> None:
        """After so many more bytes: heads that do not end, and trailers, which a parser collects."""
        self._bare_bytes = self._bare_bytes + size if self._bare else 0
        if self._bare_bytes > self._limits.head_bytes:
            what = "head has" if self._in_head else "chunks without a body have"
            self._refuse(self._head_too_large(self._bare_bytes, what), "head_bytes")
        elif len(self.headers) > MAX_HEADERS:
            self._refuse(self._too_many_headers(), "headers")

    def _parse(self, data: bytes) -> None:
        rest: bytes | memoryview = data
        try:
            while True:
                try:
                    return self.parser.feed_data(rest)
                except httptools.HttpParserUpgrade as offer:
                    # The parser goes no further. A body and other requests may stand behind the head.
                    rest = memoryview(rest)[offer.args[0] :]
                    self._decline_upgrade()
        except httptools.HttpParserCallbackError:
            unread = InvalidRequest("the request's target cannot be read")
            self._refuse(*(self._objection or Refusal(unread, "syntax")))
        except httptools.HttpParserError as error:
            self._refuse(InvalidRequest(f"this is not HTTP/1.1: {error}"), "syntax")

    def _should_upgrade(self) -> bool:
        """Asked only about heads with an offer: true keeps uvicorn from answering them."""
        return True

    def _decline_upgrade(self) -> None:
        """Read the head just read once more, by a new parser and without the offer."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise httptools.HttpParserError("this server is no proxy")
        version = self.parser.get_http_version().encode()
        kept = [b"%b: %b\r\n" % each for each in self.headers if each[0] != b"upgrade"]
        head = b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, b"".join(kept))
        self.parser = httptools.HttpRequestParser(self)
        # As uvicorn sets it: requests behind one that closes the connection are no error.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.parser.feed_data(head)

    def _refuse(self, error: ServerError, reason: str) -> None:
        """Answer what no endpoint gets to see, behind the answers before it, and close the connection."""
        if self.transport.is_closing() or self.flow.ended:
            return
        self.flow.ended = True
        self.flow.pause_reading()
        self._have_head()
        cast(App, self.config.app).access.metrics.unread.labels(reason).inc()
        reply = error_reply(error)
        more = b"".join(b"%b: %b\r\n" % each for each in headers_of(error))
        head = STATUS_LINE[reply.status] + (
            b"content-type: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\n%bconnection: close\r\n\r\n"
            % (reply.content_type, len(reply.body), request_id(None), more)
        )
        if self._unanswered():
            self._last_words = head + reply.body
        else:
            self._end_with(head + reply.body)

    def _unanswered(self) -> bool:
        """Whether another request is to be answered first. One whose body is refused gets no other answer."""
        cycle = self.cycle
        broken = cycle is not None and cycle.more_body and not cycle.response_complete
        if broken and self.pipeline:
            # The newest. The one that is being answered is none of those that wait.
            self.pipeline.popleft()
            return True
        if broken:
            cycle.disconnected = True
            cycle.message_event.set()
            return False
        return bool(self.pipeline) or self._held or not (cycle is None or cycle.response_complete)

    def _end_with(self, answer: bytes) -> None:
        # Half an answer cannot be followed by another one.
        if self.cycle is None or not self.cycle.disconnected or not self.cycle.response_started:
            self.transport.write(answer)
        self.transport.close()
        self._expect_end()
