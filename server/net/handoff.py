"""Connections that move between the processes of one server.

A server of several processes has one that owns the data folder. The others, its workers, compute vectors
and serve the paths that need nothing else. The first process hands new connections to the workers in turn.
A connection that asks a worker for another path is handed back, with the bytes of that request that were
read, and the first process serves it from then on.

The kernel's descriptor moves, so no process forwards anything. What must hold:
1. Nothing of a request that moves has been parsed here. So the parser gets its bytes in pieces that end
   where a request can end, and before each request its path is looked up in the raw bytes.
2. All earlier requests have been answered and their replies sent. A request that must move and comes after
   another one waits, and meanwhile nothing more is read.
3. The connection is closed here without a sign to the client. Closing one of two descriptors gives none.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable, Set
from typing import Any

from server.net.http_protocol import HttpProtocol
from server.net.ipc import RETRY_S, Channel, Kind

# The beginning of a request, up to the character after its path, and any beginning of that. A method is a
# word of capitals, and a path is bounded: anything else is not HTTP or not a path of ours, and is refused.
START = re.compile(rb"[\r\n]*[A-Z-]{1,32} +([^\s?]{1,65536})[\s?]")
STARTING = re.compile(rb"[\r\n]*(?:[A-Z-]{0,32}|[A-Z-]{1,32} +[^\s?]{0,65536})")
# The end of a head, and of a body in chunks. A request without a length ends nowhere else.
END = b"\r\n\r\n"


def hand_off(protocol: HttpProtocol, channel: Channel, read: bytes = b"") -> bool:
    """Send the connection to another process; return whether the channel had room for it.

    read: bytes that were read and not served. Nothing may be left to be written. Raises OSError if the
    other process is gone.
    """
    connection = protocol.transport.get_extra_info("socket").fileno()
    if not channel.send(Kind.CONNECTION, read, connection):
        return False
    protocol.transport.abort()
    return True


class DealingProtocol(HttpProtocol):
    """A new connection at the first process, which hands it to the worker whose turn it is, if any."""

    def __init__(self, turn: Callable[[], Channel | None], **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._turn = turn

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        channel = self._turn()
        if channel is not None:
            # Where the worker has just ended, or its channel is full, the connection is served here.
            with contextlib.suppress(OSError):
                hand_off(self, channel)


class AdoptedProtocol(HttpProtocol):
    """A connection from another process, and the bytes of its next request that were read there."""

    def __init__(self, read: bytes, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._read = read

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # subtle: not here. uvloop begins to read after this call, so reading could not be paused.
        self.loop.call_soon(self._begin)

    def _begin(self) -> None:
        if self._read and self.parser is not None:
            self.data_received(b"")

    def data_received(self, data: bytes) -> None:
        if self._read:
            data, self._read = self._read + data, b""
        super().data_received(data)


class WorkerProtocol(HttpProtocol):
    """A worker's connection. A request for a path that is not `served` is handed off over the channel."""

    def __init__(self, channel: Channel, served: Set[bytes], **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._channel = channel
        self._served = served
        # Bytes that were not given to the parser: an unfinished path, or a request that must move.
        self._waiting = b""
        # Whether the parser stands between two requests.
        self._between = True
        # Bytes of the body that are still to come, where its length is known.
        self._left = 0
        # The last bytes that were given to the parser, if an END may begin in them.
        self._seam = b""

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._waiting += data
        self._parse_waiting()
        if self._waiting:
            self.expect_head()

    def _parse_waiting(self) -> None:
        """Parse the bytes that wait, up to a request that must move."""
        data, at = self._waiting, 0
        while at < len(data) and not self.transport.is_closing():
            if self._between:
                start = START.match(data, at)
                if start is None and STARTING.fullmatch(data, at):
                    break
                if start is not None and start[1] not in self._served:
                    self._waiting = data[at:]
                    return self._move()
            end = self._end_of_piece(data, at)
            super().data_received(data[at:end])
            at = end
        self._waiting = data[at:]
        return None

    def _end_of_piece(self, data: bytes, at: int) -> int:
        """Return how far the parser may read without passing the end of a request."""
        if self._left:
            end = min(len(data), at + self._left)
            self._left -= end - at
            return end
        # An END may have begun in the piece before.
        found = (self._seam + data[at : at + len(END) - 1]).find(END)
        if found >= 0:
            end = at + found + len(END) - len(self._seam)
        else:
            found = data.find(END, at)
            end = found + len(END) if found >= 0 else len(data)
        self._seam = b"" if found >= 0 else (self._seam + data[at:])[1 - len(END) :]
        return end

    def _move(self) -> None:
        """Hand the connection off, or stop reading until that is possible."""
        self.flow.pause_reading()
        if self.pipeline or not (self.cycle is None or self.cycle.response_complete):
            return  # on_response_complete comes
        if self.transport.get_write_buffer_size():
            self.transport.set_write_buffer_limits(0)
            return  # resume_writing comes
        self._unset_keepalive_if_required()
        try:
            if not hand_off(self, self._channel, self._waiting):
                self.loop.call_later(RETRY_S, self._parse_waiting)
        except OSError:
            # The first process is gone, and this one ends with it.
            self.transport.abort()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._parse_waiting()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._parse_waiting()

    def on_message_begin(self) -> None:
        self._between = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        # The parser has refused a length that is no number, or that comes with chunks.
        lengths = [int(value) for name, value in self.headers if name == b"content-length"]
        self._left = lengths[0] if lengths else 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._between = True
        super().on_message_complete()
