"""What uvicorn does on a connection, with four differences.

A reply's head and body leave in one system call: uvicorn takes them as two messages, checks each header
by a pattern and writes one after the other. On loopback with 16 clients the second write cost more than
encoding the body, and woke the client once for nothing.

An offer to upgrade is declined by answering the request, as RFC 9110 allows. Java's HttpClient makes
one (h2c) with every request over plain HTTP; uvicorn would lose the body behind it.

What is no HTTP/1.1 is refused in JSON like everything else.

Nobody keeps a connection for nothing: how many there are is bounded, how large a head is and how long it
may take to come, and how long a client may leave its reply untaken. A body's limits are the endpoint's.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from server.api.http import WRITE, headers_of
from server.api.shape import error_reply
from server.config import Config
from server.errors import InvalidRequest, Overloaded, RequestTooLarge, ServerError

# Browsers send some 20, proxies add ten.
MAX_HEADERS = 128
# Seconds that a connection over the limit waits for the request to which it is told so.
REFUSED_S = 1.0


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


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol, with `write` in the scope of requests whose reply has a body."""

    def __init__(self, limits: Limits, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._limits = limits
        self._full = False
        # Of the head that is being read: whether there is one, and its bytes in pieces of nothing else.
        self._in_head = False
        self._head_bytes = 0
        self._refusal: ServerError | None = None
        # Until the head has to be whole; until more of the reply, of which so much was left, must be taken.
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._untaken = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._full = len(self.connections) > self._limits.connections
        seconds = REFUSED_S if self._full else self._limits.head_s
        self._head_timer = self.loop.call_later(seconds, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._have_head()
        self._have_sent()

    # --- heads ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._have_head()
        self._check_head()
        super().on_headers_complete()
        # An offer to upgrade makes no cycle yet.
        if self.cycle is not None and self.cycle.scope is self.scope:
            if self.scope["method"] != "HEAD":
                self.scope[WRITE] = partial(write, self.cycle)  # type: ignore[literal-required]

    def _check_head(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if len(self.headers) > MAX_HEADERS:
            self._refusal = RequestTooLarge(
                f"the request has {len(self.headers)} headers, at most {MAX_HEADERS} are read"
            )
        elif size > self._limits.head_bytes:
            self._refusal = self._head_too_large(size)
        if self._refusal is not None:
            # To the parser, which gives up.
            raise self._refusal

    def _head_too_large(self, size: int) -> RequestTooLarge:
        limit = self._limits.head_bytes
        return RequestTooLarge(f"the request's head has {size} bytes, at most {limit} are read")

    def expect_head(self) -> None:
        """To be called when something has been read: a head that has begun has to end in time."""
        if self._head_timer is not None or self.transport.is_closing():
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
        if self.transport.get_write_buffer_size():
            # It still takes the reply before, which has a limit of its own.
            self.expect_head()
        elif self._in_head:
            self._refuse(InvalidRequest(f"the head is not whole after {self._limits.head_s:g} s"))
        else:
            self.transport.abort()

    # --- replies ----------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self._have_sent()
        self._expect_taking()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._have_sent()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._expect_end()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._expect_end()

    def _expect_end(self) -> None:
        """Of a connection that closes as soon as everything has been taken."""
        if self._send_timer is None:
            self._expect_taking()

    def _expect_taking(self) -> None:
        self._untaken = self.transport.get_write_buffer_size()
        self._send_timer = self.loop.call_later(self._limits.send_s, self._check_taking)

    def _check_taking(self) -> None:
        if self.transport.get_write_buffer_size() >= self._untaken:
            self.transport.abort()
        else:
            self._expect_taking()

    def _have_sent(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    # --- reading ----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._full:
            limit = self._limits.connections
            return self._refuse(
                Overloaded(
                    f"there are {len(self.connections)} connections, at most {limit} may be at once;"
                    " try again later",
                    retry_after_s=1,
                )
            )
        in_head = self._in_head
        self._parse(data)
        if in_head and self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_bytes:
                return self._refuse(self._head_too_large(self._head_bytes))
        return self.expect_head()

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
            self._refuse(self._refusal or InvalidRequest("the request's target cannot be read"))
        except httptools.HttpParserError as error:
            self._refuse(InvalidRequest(f"this is not HTTP/1.1: {error}"))

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

    def _refuse(self, error: ServerError) -> None:
        """Answer what no endpoint gets to see, and close the connection."""
        if self.transport.is_closing():
            return
        reply = error_reply(error)
        more = b"".join(b"%b: %b\r\n" % each for each in headers_of(error))
        head = STATUS_LINE[reply.status] + (
            b"content-type: %b\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n"
            % (reply.content_type, len(reply.body), more)
        )
        self.transport.write(head + reply.body)
        self.transport.close()
        self._expect_end()
