"""What uvicorn does on a connection, with three differences.

A reply's head and body leave in one system call: uvicorn takes them as two messages, checks each header
by a pattern and writes one after the other. On loopback with 16 clients the second write cost more than
encoding the body, and woke the client once for nothing.

An offer to upgrade is declined by answering the request, as RFC 9110 allows. Java's HttpClient makes
one (h2c) with every request over plain HTTP; uvicorn would lose the body behind it.

What is no HTTP/1.1 is refused in JSON like everything else.
"""

from collections.abc import Sequence
from functools import partial

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from server.api.http import WRITE
from server.api.shape import error_reply
from server.errors import InvalidRequest


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

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        # An offer to upgrade makes no cycle yet.
        if self.cycle is not None and self.cycle.scope is self.scope:
            if self.scope["method"] != "HEAD":
                self.scope[WRITE] = partial(write, self.cycle)  # type: ignore[literal-required]

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
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
            self.send_400_response("the request's target cannot be read")
        except httptools.HttpParserError as error:
            self.send_400_response(f"this is not HTTP/1.1: {error}")

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

    def send_400_response(self, msg: str) -> None:
        reply = error_reply(InvalidRequest(msg))
        head = STATUS_LINE[reply.status] + (
            b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            % (reply.content_type, len(reply.body))
        )
        self.transport.write(head + reply.body)
        self.transport.close()
