"""Whom the clients in this process look up or connect to, besides this machine."""

import sys
from typing import Any

LOOPBACK = ("127.0.0.1", "localhost", "::1")
elsewhere: list[str] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if host not in LOOPBACK:
        elsewhere.append(str(host))


sys.addaudithook(_watch)
