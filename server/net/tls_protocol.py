"""A TLS connection from its first byte on, where uvloop's own begins with the end of the handshake.

So whoever shakes no hands counts as a connection and has as long as a head may take. The certificates are
those of the moment in which the connection came. And what the client has not taken is known: uvloop gives
the whole of a reply to the socket at once and tells the protocol above that nothing is left.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from uvloop.loop import SSLProtocol  # type: ignore[attr-defined]

from server.net.certificates import Tls
from server.net.http_protocol import REFUSED_S, Limits, Protocol

# Seconds for a closing connection to be emptied: no limit, for `Protocol` ends it sooner, by what is taken.
NO_LIMIT_S = 86_400.0


class Handshake(SSLProtocol):  # type: ignore[misc]
    """Between the socket and a `Protocol`."""

    def __init__(
        self, make: Callable[..., Protocol], tls: Tls, limits: Limits, **uvicorn: Any
    ) -> None:
        """make: makes the protocol that gets what was encrypted, given what uvicorn gives."""
        self._protocol = protocol = make(**uvicorn)
        self._paused = False
        full = protocol.too_many(1)
        super().__init__(
            asyncio.get_running_loop(),
            protocol,
            tls.context,
            None,
            server_side=True,
            ssl_handshake_timeout=REFUSED_S if full else limits.head_s,
            ssl_shutdown_timeout=NO_LIMIT_S,
        )

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._protocol.handshake_begins(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._protocol.transport is None:
            self._protocol.handshake_failed()
        # Its transport refers to this in its turn.
        del self._protocol

    def eof_received(self) -> None:
        super().eof_received()
        if self._protocol.transport is not None:
            self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._paused = True
        super().pause_writing()
        if self._protocol.transport is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._paused = False
        # This writes what has waited here, and may fill the socket again.
        super().resume_writing()
        if self._protocol.transport is not None and not self._paused:
            self._protocol.resume_writing()
