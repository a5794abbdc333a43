"""Connections that a client has opened and this process has not accepted yet, at the moment it stops listening.

The kernel resets them when the listening socket is closed, also those over which a request has come. A draining
server closes each connection after its answer, so that its clients open many, and some would be lost: behind nginx,
with eight clients that always ask, two requests of one drain (2026-11-30).
"""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress


class Backlog:
    """The queue of one listening socket, which stays open until its connections have been taken.

    of_port: whether it is a port's, and not a Unix socket's.
    """

    def __init__(self, descriptor: int) -> None:
        """Keep the socket of this descriptor open when its owner closes it; raises OSError."""
        self._listening = socket.socket(fileno=os.dup(descriptor))
        self._listening.setblocking(False)
        self.of_port = self._listening.family != socket.AF_UNIX

    def take(self) -> Iterator[socket.socket]:
        """Yield each connection, which the caller closes, and then close the socket."""
        with self._listening, suppress(OSError):
            # BlockingIOError: there is none left.
            while True:
                connection, _ = self._listening.accept()
                connection.setblocking(False)
                yield connection
