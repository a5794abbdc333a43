"""Messages between the processes of one server.

A channel is one end of a pair of Unix sockets that the first process makes and its worker inherits. It
has no address, so no other process can reach it. A message is one packet of one byte, its kind. Its
content comes as descriptors: a connection, and a file in memory for everything else. So no message is
ever sent or read in part.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, unique
from typing import NamedTuple

# Seconds until a full channel is tried again. It has room for some 200 messages, so its reader is busy.
RETRY_S = 0.005
# Errors that pass: no room, too many open files or too many of them on their way, no memory. Any other
# error means that the other end is gone.
TEMPORARY = {
    errno.EAGAIN,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOBUFS,
    errno.ENOMEM,
    errno.ETOOMANYREFS,
}


@unique
class Kind(Enum):
    """The kinds of messages, with their senders."""

    CONFIG = b"c"  # first process: the settings, pickled; once, before anything else
    READY = b"r"  # worker: it takes connections
    FAILED = b"f"  # worker: it cannot start; the reason, a pickled Message
    CONNECTION = (
        b"s"  # either: take this connection; the content is what was read of its next request
    )
    ALIVE = b"a"  # worker: its event loop turns; every second
    PAGE = b"m"  # first process: asks for metrics; worker: its page of them
    DRAIN = b"d"  # first process: go on, and close each connection after its next answer
    STOP = b"e"  # first process: finish what was accepted
    RELOAD = (
        b"l"  # first process: serve by these settings, pickled; worker: it does, also after ACCESS
    )
    ACCESS = (
        b"k"  # first process: read keys and audit again; without a file, so it can always be sent
    )
    QUIET = b"q"  # worker: it hands no more connections back


class Message(NamedTuple):
    """A message as it was received.

    connection: of a CONNECTION; the receiver closes it. Where the receiver had too many open files, there is
    neither connection nor content.
    """

    kind: Kind
    content: bytes = b""
    connection: socket.socket | None = None


# Called with each message, and with None once the other end is gone.
Receive = Callable[[Message | None], None]


class Channel:
    """One end of a pair; it owns its socket."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def of(cls, descriptor: int) -> "Channel":
        """Return the end that a worker has inherited."""
        return cls(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, kind: Kind, content: bytes = b"", connection: int | None = None) -> bool:
        """Return whether it could be sent now; raise OSError if the other end is gone.

        connection: stays open here, and the sender closes it.
        """
        carried = [] if connection is None else [connection]
        try:
            with _file_of(content) as file:
                return socket.send_fds(self._end, [kind.value], carried + file) == 1
        except OSError as error:
            if error.errno not in TEMPORARY:
                raise
            return False

    async def deliver(self, kind: Kind, content: bytes = b"") -> None:
        """Send as soon as there is room; do nothing if the other end is gone."""
        try:
            while not self.send(kind, content):
                await asyncio.sleep(RETRY_S)
        except OSError:
            return

    def listen(self, receive: Receive) -> None:
        """Call `receive` on the running loop with each message, until the other end is gone."""
        self._loop = loop = asyncio.get_running_loop()

        def read() -> None:
            try:
                message = self._read()
            except BlockingIOError:
                return
            except OSError:
                message = None
            if message is None:
                self.close()
            receive(message)

        loop.add_reader(self._end.fileno(), read)

    def wait(self) -> Message:
        """Block until the next message, and return it; raise EOFError if the other end is gone."""
        self._end.setblocking(True)
        message = self._read()
        self._end.setblocking(False)
        if message is None:
            raise EOFError
        return message

    def _read(self) -> Message | None:
        kind_byte, carried, flags, _ = socket.recv_fds(self._end, 1, 2)
        if not kind_byte:
            return None
        kind, connection = Kind(kind_byte), None
        if flags & socket.MSG_CTRUNC:
            # Too many open files: a part of the content is of no use.
            while carried:
                os.close(carried.pop())
        if kind is Kind.CONNECTION and carried:
            connection = socket.socket(fileno=carried.pop(0))
            # Otherwise workers that are started later would hold it open.
            connection.set_inheritable(False)
            connection.setblocking(False)
        return Message(kind, _content_of(carried.pop()) if carried else b"", connection)

    def close(self) -> None:
        """Close this end, which the other end notices; may be called again."""
        if self._loop is not None and self._end.fileno() >= 0:
            self._loop.remove_reader(self._end.fileno())
        self._end.close()


def pair() -> tuple[Channel, Channel]:
    """Return both ends; each packet arrives whole and in order, or not at all."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(one), Channel(other)


@contextmanager
def _file_of(content: bytes) -> Iterator[list[int]]:
    """Yield the descriptor of a file with this content, closed afterwards; none without content."""
    if not content:
        yield []
        return
    with open(os.memfd_create("inkwell"), "wb") as file:
        file.write(content)
        file.flush()
        yield [file.fileno()]


def _content_of(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        file.seek(0)
        return file.read()
