"""Messages between the processes of one server.

A channel is one end of a pair of Unix sockets that the first process makes and its worker inherits:
it has no address, and nobody else can reach it. A message is one packet of one byte, its kind. What
it carries comes as descriptors: a connection, and a file in memory with whatever else there is to say,
so that no message is ever sent or read by half.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, unique
from typing import NamedTuple

# Seconds until a full channel is tried again. It has room for some 200 messages: whoever reads them is
# busy with something else just now.
RETRY_S = 0.005
# What keeps a message from being sent and passes: no room, too many open files or too many of them on
# their way, no memory. Whatever else does means that the other end is gone.
PASSING = {
    errno.EAGAIN,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOBUFS,
    errno.ENOMEM,
    errno.ETOOMANYREFS,
}


@unique
class Kind(Enum):
    """What is said, and by whom."""

    CONFIG = b"c"  # first process: the settings, pickled; once, before anything else
    READY = b"r"  # worker: connections are taken
    FAILED = b"f"  # worker: it cannot start; the reason, in both languages as JSON
    CONNECTION = b"s"  # either: take this connection; what has been read of its next request
    ALIVE = b"a"  # worker: its event loop turns; every second
    PAGE = b"m"  # first process: how is it going? worker: its page of metrics
    STOP = b"e"  # first process: finish what was accepted
    RELOAD = b"l"  # first process: these settings hold now, pickled; worker: they do, or what ACCESS asked
    ACCESS = b"k"  # first process: keys and audit are to be read again; without a file, so it always goes
    QUIET = b"q"  # worker: no more connections will come from here


class Message(NamedTuple):
    """connection: of a CONNECTION, and then the receiver's to close.

    Where the receiver had too many open files there is neither connection nor content.
    """

    kind: Kind
    content: bytes = b""
    connection: socket.socket | None = None


# What is done with a message; with None once the other end is gone.
Receive = Callable[[Message | None], None]


class Channel:
    """One end; owns its socket."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def of(cls, descriptor: int) -> "Channel":
        """The end that a worker has inherited."""
        return cls(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, kind: Kind, content: bytes = b"", connection: int | None = None) -> bool:
        """Whether it could be sent now; raises OSError if the other end is gone.

        connection: stays open here, its sender closes it.
        """
        carried = [] if connection is None else [connection]
        try:
            with _file_of(content) as file:
                return socket.send_fds(self._end, [kind.value], carried + file) == 1
        except OSError as error:
            if error.errno not in PASSING:
                raise
            return False

    async def deliver(self, kind: Kind, content: bytes = b"") -> None:
        """Send, when there is room; to nobody if the other end is gone."""
        try:
            while not self.send(kind, content):
                await asyncio.sleep(RETRY_S)
        except OSError:
            return

    def listen(self, receive: Receive) -> None:
        """Call `receive` on the running loop with whatever comes, until the other end is gone."""
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
        """The next message; blocks, and raises EOFError if the other end is gone."""
        self._end.setblocking(True)
        message = self._read()
        self._end.setblocking(False)
        if message is None:
            raise EOFError
        return message

    def _read(self) -> Message | None:
        said, carried, flags, _ = socket.recv_fds(self._end, 1, 2)
        if not said:
            return None
        kind, connection = Kind(said), None
        if flags & socket.MSG_CTRUNC:
            # Too many open files: half of what it carried is of no use.
            while carried:
                os.close(carried.pop())
        if kind is Kind.CONNECTION and carried:
            connection = socket.socket(fileno=carried.pop(0))
            # What is received would otherwise stay open in workers that are started later.
            connection.set_inheritable(False)
            connection.setblocking(False)
        return Message(kind, _content_of(carried.pop()) if carried else b"", connection)

    def close(self) -> None:
        """Let the other end know that this one is gone; once is enough."""
        if self._loop is not None and self._end.fileno() >= 0:
            self._loop.remove_reader(self._end.fileno())
        self._end.close()


def pair() -> tuple[Channel, Channel]:
    """Both ends; each packet arrives whole, in order, or not at all."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(one), Channel(other)


@contextmanager
def _file_of(content: bytes) -> Iterator[list[int]]:
    """The descriptor of a file with this content, closed afterwards; none for nothing."""
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
