"""A connection moves to the process that serves the path it asks for.

A server of several processes has one that owns the data folder. The others, its workers, compute
vectors, and serve paths that need nothing else. A connection that asks a worker for another path is
given to the first process with what has been read of that request, and is served there from then on.

The kernel's descriptor moves, so nothing is forwarded and nobody stands between. What must hold:
1. Nothing of a request that moves has been parsed here. So the parser gets its bytes in pieces that end
   where a request can end, and before each request its path is looked at in the raw bytes.
2. Whatever was asked before has been answered and sent: a request that must move and comes behind
   another one waits, and nothing more is read meanwhile.
3. The connection is closed here without a word to its client: closing one of two descriptors says none.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable, Set
from typing import Any

from server.net.http_protocol import Protocol
from server.net.ipc import RETRY_S, Channel, Kind

# The beginning of a request, with the character behind its path, and less than that. A method is a word
# of capitals and a path not endless: the rest is no HTTP, or on no path, and is refused as such.
START = re.compile(rb"[\r\n]*[A-Z-]{1,32} +([^\s?]{1,65536})[\s?]")
STARTING = re.compile(rb"[\r\n]*(?:[A-Z-]{0,32}|[A-Z-]{1,32} +[^\s?]{0,65536})")
# What ends a head, and what ends a body in chunks: no request ends elsewhere if it says no length.
END = b"\r\n\r\n"


def pass_on(protocol: Protocol, channel: Channel, read: bytes = b"") -> bool:
    """Give the connection away, of which `read` was not served; whether there was room for it.

    Raises OSError if the other process is gone. Nothing may be left to be written.
    """
    connection = protocol.transport.get_extra_info("socket").fileno()
    if not channel.send(Kind.CONNECTION, read, connection):
        return False
    protocol.transport.abort()
    return True


class Dealt(Protocol):
    """A new connection at the first process: it goes to the worker whose turn it is, if it is one's."""

    def __init__(self, turn: Callable[[], Channel | None], **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._turn = turn

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        channel = self._turn()
        if channel is not None:
            # A worker that has just ended, or is far behind, gets none: it is served here.
            with contextlib.suppress(OSError):
                pass_on(self, channel)


class Adopted(Protocol):
    """A connection that another process gave, and what that has read of its next request."""

    def __init__(self, read: bytes, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._read = read

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # subtle: not here, for uvloop begins to read after this call, and so could not be paused.
        self.loop.call_soon(self._begin)

    def _begin(self) -> None:
        if self._read and self.parser is not None:
            self.data_received(b"")

    def data_received(self, data: bytes) -> None:
        if self._read:
            data, self._read = self._read + data, b""
        super().data_received(data)


class Passing(Protocol):
    """A worker's connection: requests for paths that are not `served` go through the channel."""

    def __init__(self, channel: Channel, served: Set[bytes], **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._channel = channel
        self._served = served
        # What has come and not been given to the parser: no whole path, or one that must move.
        self._waiting = b""
        # Whether the parser stands between two requests.
        self._between = True
        # Bytes of the body that are to come, where its length is known.
        self._left = 0
        # The last bytes given to the parser that may begin an END.
        self._seam = b""

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._waiting += data
        self._read_on()
        if self._waiting:
            self.expect_head()

    def _read_on(self) -> None:
        """Parse what waits, up to a request that must move."""
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
        """How far the parser may read without passing the end of a request."""
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
        """Give the connection away, or read no more of it until that can be done."""
        self.flow.pause_reading()
        if self.pipeline or not (self.cycle is None or self.cycle.response_complete):
            return  # on_response_complete comes
        if self.transport.get_write_buffer_size():
            self.transport.set_write_buffer_limits(0)
            return  # resume_writing comes
        self._unset_keepalive_if_required()
        try:
            if not pass_on(self, self._channel, self._waiting):
                self.loop.call_later(RETRY_S, self._read_on)
        except OSError:
            # The first process is gone, and this one ends with it.
            self.transport.abort()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._read_on()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read_on()

    def on_message_begin(self) -> None:
        self._between = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        # The parser has refused a length that is no number, or comes with chunks.
        lengths = [int(value) for name, value in self.headers if name == b"content-length"]
        self._left = lengths[0] if lengths else 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._between = True
        super().on_message_complete()
