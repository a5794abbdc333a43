"""Answers of PostgreSQL with a size and a time at most, whatever the server sends.

A time-out of a socket is one of each read: a server that sends a byte now and then would hold its thread for ever. And
the client makes room for what the head of a message says, up to 2 GB. So the file from which it reads is one that
counts, from request to request.
"""

import ssl
from socket import socket
from typing import Any, BinaryIO

from server import clock

# Above what the longest page has; as much memory is taken several times over.
MAX_ANSWER = 512 << 20
PIECE = 1 << 16


class AnswerTooLarge(Exception):
    """Raised for an answer with more than MAX_ANSWER bytes."""


class Bounded:
    """A file for the client; timeout_s: from the end of a request to the end of its answer."""

    def __init__(self, file: BinaryIO, timeout_s: float) -> None:
        self._file, self._timeout_s = file, timeout_s
        self._left, self._end = MAX_ANSWER, clock.now() + timeout_s

    def read(self, size: int) -> bytes:
        """Return so many bytes, fewer where the connection ends; raises TimeoutError, AnswerTooLarge or OSError."""
        self._left -= size
        if self._left < 0:
            raise AnswerTooLarge(f"the answer has more than {MAX_ANSWER >> 20} MB")
        found = bytearray()
        while len(found) < size:
            if clock.now() > self._end:
                raise TimeoutError("timed out")
            some = self._file.read1(min(size - len(found), PIECE))  # type: ignore[attr-defined]
            if not some:
                break
            found += some
        return bytes(found)

    def write(self, data: bytes) -> int:
        return self._file.write(data)

    def flush(self) -> None:
        """Send what was written; the next answer begins."""
        self._file.flush()
        self._left, self._end = MAX_ANSWER, clock.now() + self._timeout_s

    def close(self) -> None:
        self._file.close()


class PlainSocket(socket):
    """A connection in clear text."""

    def makefile(self, *arguments: Any, **options: Any) -> Any:
        return Bounded(super().makefile(*arguments, **options), self.gettimeout() or 0.0)


class TlsSocket(ssl.SSLSocket):
    """An encrypted one."""

    def makefile(self, *arguments: Any, **options: Any) -> Any:
        return Bounded(super().makefile(*arguments, **options), self.gettimeout() or 0.0)
