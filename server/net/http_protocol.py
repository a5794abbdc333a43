"""uvicorn's HTTP/1.1 protocol, with five differences.

1. The head and the body of a reply leave in one system call. uvicorn takes them as two messages, checks
   each header by a pattern and writes one after the other. On loopback with 16 clients the second write
   cost more than encoding the body, and woke the client once for nothing.
2. An offer to upgrade is declined by answering the request, as RFC 9110 allows. Java's HttpClient makes
   one (h2c) with every request over plain HTTP, and uvicorn would lose the body behind it.
3. Bytes that are not HTTP/1.1 are refused in JSON, like everything else, after the answers to the
   requests before them.
4. A request is read when the one before it is answered and the client has taken the reply. One read may
   bring several; a bounded number of them waits. uvicorn would read on and make a request of each.
5. A connection has limits: how many there are, how large a head is and how long it may take to come, and
   how long a client may leave its reply unread. A body's limits are the endpoint's; what follows a body in
   chunks is dropped, and bounded like a head. With TLS all of this counts from the first byte of the
   handshake, which `tls_protocol` reports.

`tests/net/test_upstream.py` names every part of uvicorn that this overrides or uses.
"""

import asyncio
from collections.abc import Sequence, Sized
from functools import partial
from typing import Any, NoReturn, cast

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from server.api.native_errors import error_reply
from server.api.replies import WRITE, Unread, headers_of
from server.app import App
from server.auth.gate import request_id
from server.errors import InvalidRequest, RequestTooLarge
from server.net.limits import (
    MAX_HEADERS,
    MAX_PIPELINED,
    MAX_TINY_CHUNKS,
    REFUSED_S,
    TINY_CHUNK_BYTES,
    Limits,
    Refusal,
    many_headers,
    many_pipelined,
    tiny_chunks,
)
from server.net.send_timeout import SendTimeout

# Larger bodies are not copied behind their heads: 32 MB would hold the loop for 40 ms.
COPIED_BYTES = 1 << 16


def write_reply(
    cycle: RequestResponseCycle,
    status: int,
    headers: Sequence[tuple[bytes, bytes]],
    body: bytes | None,
) -> bool:
    """Write a whole reply; return False where uvicorn must, because the client reads too slowly.

    body: None closes the connection of a reply that has begun and cannot be completed.
    """
    if cycle.disconnected:
        return True
    if body is None:
        # No end is written, so the client sees that something is missing.
        cycle.response_complete, cycle.keep_alive = True, False
        cycle.message_event.set()
        cycle.transport.close()
        cycle.on_response()
        return True
    if cycle.flow.write_paused or cycle.response_started:
        return False
    parts = [STATUS_LINE[status]]
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    if not cycle.keep_alive:
        parts.append(b"connection: close\r\n")
    parts.append(b"\r\n")
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    if len(body) <= COPIED_BYTES:
        cycle.transport.write(b"".join((*parts, body)))
    else:
        cycle.transport.writelines((b"".join(parts), body))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


class Flow(FlowControl):
    """Flow control that resumes reading only when no request waits and the last reply has been taken."""

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting
        # Whether nothing will be read any more.
        self.ended = False

    def resume_reading(self) -> None:
        # uvicorn's cycles call it whenever they wait for a body.
        if self.read_paused and not (self._waiting or self.write_paused or self.ended):
            super().resume_reading()


class HttpProtocol(HttpToolsProtocol):
    """One connection. The scope of each request whose reply has a body holds `write_reply`."""

    def __init__(self, limits: Limits, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._limits = limits
        # Whether there were too many connections when this one came.
        self._full = False
        # Writes to the kernel's socket: with TLS another one than `transport`.
        self._raw: asyncio.Transport = None  # type: ignore[assignment]
        # Whether the parser stands within a head, or anywhere within a request.
        self._in_head = False
        self._in_request = False
        # Bytes of the reads that brought parts of this head, which is no larger than that.
        self._read_bytes = 0
        # Whether the last read brought parts of heads or trailers only, and how many bytes such reads in a
        # row have brought.
        self._bare = False
        self._bare_bytes = 0
        # Pieces of a body that this read has brought.
        self._pieces: list[bytes] = []
        # What a callback of the parser has refused; the parser then stops with an error of its own.
        self._refusal: Refusal | None = None
        # An answer to what could not be read, to be sent after the answers before it.
        self._last_answer: bytes | None = None
        # Whether the next step waits for the client to take the reply.
        self._held = False
        # Bytes of replies that wait for the client, as counted among those of all connections.
        self._unread = 0
        # Runs until the head has to be whole.
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timeout: SendTimeout = None  # type: ignore[assignment]

    def handshake_begins(self, raw: asyncio.Transport) -> None:
        """Count the connection from here on. raw: what the encrypted bytes are written to."""
        self._raw = raw
        self.connections.add(self)

    def handshake_failed(self) -> None:
        self.connections.discard(self)
        # The parser refers to this protocol: a circle that only a collection would free.
        self.parser = None  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._raw is None:
            self._raw = transport
        self.flow: Flow = Flow(transport, self.pipeline)
        self._send_timeout = SendTimeout(transport, self._raw, self._limits.send_s)
        self._full = self.too_many()
        seconds = REFUSED_S if self._full else self._limits.head_s
        self._head_timer = self.loop.call_later(seconds, self._on_head_timeout)

    def too_many(self, more: int = 0) -> bool:
        """Return whether the limit is passed, with `more` connections than are counted."""
        return len(self.connections) + more > self._limits.connections

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # uvicorn does this only without an error; a connection that was reset would stay in memory.
        self._unset_keepalive_if_required()
        self.pipeline.clear()
        self._stop_head_timer()
        self._send_timeout.stop()
        self._count_unread(0)

    def eof_received(self) -> None:
        """Bound the time until the loop closes: it does so once the client has taken everything."""
        self._limit_close()

    def shutdown(self) -> None:
        if self.flow is None:
            return self._raw.abort()  # The handshake has not ended.
        super().shutdown()
        if self.transport.is_closing():
            self._limit_close()
        return None

    # --- heads ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._in_request = True

    def on_headers_complete(self) -> None:
        self._in_head = self._bare = False
        self._stop_head_timer()
        self._check_head()
        super().on_headers_complete()
        # An offer to upgrade makes no cycle yet.
        if self.cycle is not None and self.cycle.scope is self.scope:
            if self.scope["method"] != "HEAD":
                self.scope[WRITE] = partial(write_reply, self.cycle)  # type: ignore[literal-required]
            if self.app_state["models"].draining:
                self.cycle.keep_alive = False
            # subtle: trailers would be added to the request's headers, a key among them.
            self.headers = []

    def on_body(self, body: bytes) -> None:
        # subtle: uvicorn would add each piece to the pieces before, which takes quadratic time.
        self._bare = False
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        self._take_pieces()
        self._in_request = self._bare = False
        super().on_message_complete()

    def _take_pieces(self) -> None:
        """Hand on the pieces of a body that one read brought."""
        if not self._pieces:
            return
        pieces, self._pieces = self._pieces, []
        body = b"".join(pieces)
        super().on_body(body)
        if len(pieces) > MAX_TINY_CHUNKS and len(body) < TINY_CHUNK_BYTES * len(pieces):
            self._stop_parser(tiny_chunks(len(body), len(pieces)))

    def _check_head(self) -> None:
        if len(self.headers) > MAX_HEADERS:
            self._stop_parser(many_headers(len(self.headers)))
        if self._read_bytes > self._limits.head_bytes:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self._limits.head_bytes:
                self._stop_parser(self._limits.large_head(size))
        if len(self.pipeline) >= MAX_PIPELINED:
            self._stop_parser(many_pipelined(len(self.pipeline)))

    def _stop_parser(self, refusal: Refusal) -> NoReturn:
        """Raise to the parser, which calls this; `_parse` gets HttpParserCallbackError."""
        self._refusal = refusal
        raise refusal.error

    def expect_head(self) -> None:
        """Give a head that has begun its time to end; called after each read."""
        if self._head_timer is not None or self.transport.is_closing() or self.flow.ended:
            return
        idle = self.cycle is None or self.cycle.response_complete
        # Between two requests uvicorn's keep-alive timer runs, until anything comes.
        if self._in_head or (idle and self.timeout_keep_alive_task is None):
            self._head_timer = self.loop.call_later(self._limits.head_s, self._on_head_timeout)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_head_timeout(self) -> None:
        self._head_timer = None
        if self.flow.read_paused:
            # The client takes the last reply first, which has a limit of its own.
            self.expect_head()
        elif self._in_head:
            self._refuse(self._limits.late_head())
        else:
            self.transport.abort()

    # --- replies ----------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self.flow.pause_reading()
        self._send_timeout.start()
        self._count_unread(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._count_unread(0)
        if self.transport.is_closing():
            return
        self._send_timeout.stop()
        if self._held:
            self._held = False
            self._next()
        else:
            self.flow.resume_reading()

    def _count_unread(self, size: int) -> None:
        """Count the bytes that the client has not taken among those of all connections."""
        Unread.waiting += size - self._unread
        self._unread = size

    def on_response_complete(self) -> None:
        """Replaces uvicorn's, which begins the next request before the client has taken this reply."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._limit_close()
        elif self.flow.write_paused:
            self._held = True
        else:
            self._next()

    def _next(self) -> None:
        """Begin the next request, or send the refusal that came after the last one, or read."""
        self._unset_keepalive_if_required()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._last_answer is not None:
            self._end_with(self._last_answer)
        else:
            self.flow.resume_reading()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._limit_close()

    def _limit_close(self) -> None:
        """Bound the time of a connection that closes once the client has taken everything."""
        if not self._send_timeout.running:
            self._send_timeout.start()

    # --- reading ----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self.flow.ended:
            return
        if self._full:
            return self._refuse(self._limits.full(len(self.connections)))
        self._read_bytes = len(data) + (self._read_bytes if self._in_head else 0)
        self._bare = True
        self._parse(data)
        if self._in_request:
            self._check_bare(len(data))
        else:
            self._bare_bytes = 0
        return self.expect_head()

    def _check_bare(self, size: int) -> None:
        """Bound heads that do not end, and trailers, which the parser collects."""
        self._bare_bytes = self._bare_bytes + size if self._bare else 0
        if self._bare_bytes > self._limits.head_bytes:
            what = "head has" if self._in_head else "chunks without a body have"
            self._refuse(self._limits.large_head(self._bare_bytes, what))
        elif len(self.headers) > MAX_HEADERS:
            self._refuse(many_headers(len(self.headers)))

    def _parse(self, data: bytes) -> None:
        rest: bytes | memoryview = data
        try:
            while True:
                try:
                    self.parser.feed_data(rest)
                    return self._take_pieces()
                except httptools.HttpParserUpgrade as offer:
                    # The parser goes no further. A body and other requests may follow the head.
                    rest = memoryview(rest)[offer.args[0] :]
                    self._decline_upgrade()
        except (httptools.HttpParserCallbackError, RequestTooLarge):
            unread = InvalidRequest("the request's target cannot be read")
            self._refuse(self._refusal or Refusal(unread, "syntax"))
        except httptools.HttpParserError as error:
            self._refuse(Refusal(InvalidRequest(f"this is not HTTP/1.1: {error}"), "syntax"))

    def _should_upgrade(self) -> bool:
        """Called only for heads with an offer; true keeps uvicorn from answering them."""
        return True

    def _decline_upgrade(self) -> None:
        """Parse the same head again, without the offer, in a new parser."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise httptools.HttpParserError("this server is no proxy")
        version = self.parser.get_http_version().encode()
        kept = [b"%b: %b\r\n" % each for each in self.headers if each[0] != b"upgrade"]
        head = b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, b"".join(kept))
        self.parser = httptools.HttpRequestParser(self)
        # As uvicorn sets it: requests after one that closes the connection are no error.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.parser.feed_data(head)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what no endpoint sees, after the answers before it, and close the connection."""
        if self.transport.is_closing() or self.flow.ended:
            return
        self.flow.ended = True
        self.flow.pause_reading()
        self._stop_head_timer()
        error, reason = refusal
        cast(App, self.config.app).access.metrics.unread.labels(reason).inc()
        reply = error_reply(error)
        more = b"".join(b"%b: %b\r\n" % each for each in headers_of(error))
        head = STATUS_LINE[reply.status] + (
            b"content-type: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\n%bconnection: close\r\n\r\n"
            % (reply.content_type, len(reply.body), request_id(None), more)
        )
        if self._unanswered():
            self._last_answer = head + reply.body
        else:
            self._end_with(head + reply.body)

    def _unanswered(self) -> bool:
        """Return whether another request gets its answer first.

        One whose body is refused gets no other answer.
        """
        cycle = self.cycle
        broken = cycle is not None and cycle.more_body and not cycle.response_complete
        if broken and self.pipeline:
            # Drop the newest. The one that is being answered is none of those that wait.
            self.pipeline.popleft()
            return True
        if broken:
            cycle.disconnected = True
            cycle.message_event.set()
            return False
        return bool(self.pipeline) or self._held or not (cycle is None or cycle.response_complete)

    def _end_with(self, answer: bytes) -> None:
        # No answer may follow half of another one.
        if self.cycle is None or not self.cycle.disconnected or not self.cycle.response_started:
            self.transport.write(answer)
        self.transport.close()
        self._limit_close()
