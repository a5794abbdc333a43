"""A TCP proxy on this machine that cuts connections when a test asks it to, or takes TLS as PostgreSQL does."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator


class Proxy:
    """Passes bytes on, both ways, for any number of connections.

    cut_after: what a client has sent when its connection is cut: the server gets it and answers, and the client
    never sees the answer. Each time that it is set it cuts one connection. n_cut: how many were cut. tls: clients
    ask for TLS first, as they ask PostgreSQL, and get it.
    """

    def __init__(self, port: int) -> None:
        """port: of the server on this machine."""
        self.cut_after: bytes | None = None
        self.n_cut = 0
        self.tls: ssl.SSLContext | None = None
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]

    def run(self) -> None:
        """Take connections until `close` is called."""
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            if self.tls is not None:
                try:
                    # The request has 8 bytes.
                    client.recv(8)
                    client.sendall(b"S")
                    client = self.tls.wrap_socket(client, server_side=True)
                except OSError:
                    client.close()
                    continue
            server = socket.create_connection(("127.0.0.1", self._target))
            is_cut = threading.Event()
            for one, other, of_client in ((client, server, True), (server, client, False)):
                threading.Thread(
                    target=self._pass, args=(one, other, of_client, is_cut), daemon=True
                ).start()

    def close(self) -> None:
        # subtle: to close it alone does not wake the thread that accepts.
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _pass(
        self, one: socket.socket, other: socket.socket, of_client: bool, is_cut: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                if of_client and self.cut_after is not None and self.cut_after in data:
                    self.cut_after = None
                    self.n_cut += 1
                    is_cut.set()
                if is_cut.is_set() and not of_client:
                    break
                other.sendall(data)
        for each in (one, other):
            # subtle: to close it alone would wait for the other thread, which reads from it.
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        one.close()


@contextlib.contextmanager
def cutting(port: int) -> Iterator[Proxy]:
    """A proxy before a port of this machine, until the block ends."""
    proxy = Proxy(port)
    thread = threading.Thread(target=proxy.run, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()
