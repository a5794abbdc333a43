"""Connections that a client has opened and this process has not accepted yet, at the moment it stops listening.

The kernel resets them when the listening socket is closed, also those over which a request has come. A draining
server closes each connection after its answer, so that its clients open many, and some would be lost: behind nginx,
with eight clients that always ask, two requests of one drain (2026-11-30).
"""

import os
import socket
from collections.abc import Iterator


class Backlog:
    """The queue of one listening socket, which stays open until its connections have been taken.

    of_port: whether it is a port's, and not a Unix socket's.
    """

    def __init__(self, descriptor: int) -> None:
        """Keep the socket of this descriptor open when its owner closes it; raises OSError."""
        self._listening = socket.socket(fileno=os.dup(descriptor))
        self._listening.setblocking(False)
        self.of_port = self._listening.family != socket.AF_UNIX

    def take(self, most: int) -> Iterator[socket.socket]:
        """Yield each connection, which the caller closes, and then close the socket.

        most: connections that can wait here. Those that come meanwhile are not waited for: a crowd of clients would
        keep this going for as long as it likes.
        """
        with self._listening:
            for _ in range(most):
                try:
                    connection, _ = self._listening.accept()
                except ConnectionAbortedError:
                    # Its client has left, and others wait behind it.
                    continue
                except OSError:
                    # BlockingIOError: there is none left.
                    return
                connection.setblocking(False)
                yield connection
