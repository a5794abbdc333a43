"""TCP connections to PostgreSQL."""

import socket

from server.databases.postgres.answers import PlainSocket
from server.databases.postgres.login import Login

# A network that is gone is noticed after some 25 s, also by a session that nobody uses.
IDLE_S, INTERVAL_S, PROBES = 10, 5, 3


def connected(login: Login, timeout_s: float) -> PlainSocket:
    """Return a connection that sends at once what is written to it; raises OSError.

    subtle: without TCP_NODELAY the end of a COPY waits for the server's delayed acknowledgement, 40 ms. timeout_s: of
    connecting, of every read and write afterwards, and of every answer as a whole.
    """
    made = socket.create_connection((login.host, login.port), timeout_s)
    found = PlainSocket(fileno=made.detach())
    found.settimeout(timeout_s)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Other systems than Linux have other names for these, or none.
    for name, value in (
        ("TCP_KEEPIDLE", IDLE_S),
        ("TCP_KEEPINTVL", INTERVAL_S),
        ("TCP_KEEPCNT", PROBES),
    ):
        if hasattr(socket, name):
            found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return found
