"""Servers on this machine that fail as networks do: below HTTP, and as HTTP servers."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Serve = Callable[[socket.socket], None]
MAX_HEAD = 1 << 20


def refused() -> tuple[str, int]:
    """Return a host and port where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
    return host, port


@contextmanager
def answering(serve: Serve) -> Iterator[tuple[str, int]]:
    """Accept connections on a port until the block ends; each is served on a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                held.append(connection)
                threading.Thread(target=attend, args=(connection,), daemon=True).start()

    def attend(connection: socket.socket) -> None:
        with suppress(OSError):
            serve(connection)

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()
    finally:
        # Wakes the thread that accepts.
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in held:
            connection.close()


def hang(connection: socket.socket) -> None:
    """Read and never answer."""
    while connection.recv(1 << 16):
        pass


def hang_up(connection: socket.socket) -> None:
    connection.recv(1)
    connection.close()


def babble(connection: socket.socket) -> None:
    """Answer what no protocol has."""
    connection.recv(1)
    connection.sendall(b"\x00\xff\x15 what is this? \r\n\r\n" * 100)
    connection.close()


FAULTS: dict[str, Serve] = {"hangs": hang, "hangs up": hang_up, "babbles": babble}


class HttpAnswers:
    """Answers every request alike. heads: of the requests, as they came; bodies are read and left."""

    def __init__(
        self, status: str, body: bytes = b"", headers: str = "", pause_s: float | None = None
    ) -> None:
        """pause_s: before each byte of the body; None to send all at once."""
        self.heads: list[str] = []
        self._head = f"HTTP/1.1 {status}\r\nConnection: close\r\n{headers}"
        self._body, self._pause_s = body, pause_s

    def __call__(self, connection: socket.socket) -> None:
        received = b""
        while b"\r\n\r\n" not in received and len(received) < MAX_HEAD:
            received += connection.recv(1 << 16)
        head, _, body = received.partition(b"\r\n\r\n")
        self.heads.append(head.decode("latin-1"))
        length = next(
            (
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            ),
            0,
        )
        while len(body) < length:
            body += connection.recv(1 << 16)
        connection.sendall(f"{self._head}Content-Length: {len(self._body)}\r\n\r\n".encode())
        if self._pause_s is None:
            connection.sendall(self._body)
        else:
            pause = threading.Event()
            for at in range(len(self._body)):
                connection.sendall(self._body[at : at + 1])
                pause.wait(self._pause_s)
        connection.close()
