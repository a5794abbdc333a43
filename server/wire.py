"""What uvicorn does on a connection, with three differences.

A reply's head and body leave in one system call: uvicorn writes them one after the other. On loopback
with 16 clients the second write cost more than encoding the body, and woke the client once for nothing.

An offer to upgrade is declined by answering the request, as RFC 9110 allows. Java's HttpClient makes
one (h2c) with every request over plain HTTP; uvicorn would lose the body behind it.

What is no HTTP/1.1 is refused in JSON like everything else.
"""

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from server.api.shape import error_reply
from server.errors import InvalidRequest


class GatheringTransport:
    """A transport that joins what is written in one turn of the event loop."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol over a gathering transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(GatheringTransport(transport, self.loop))  # type: ignore[arg-type]

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
