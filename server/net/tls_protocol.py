"""A TLS connection from its first byte on.

uvloop's own TLS reports a connection to the protocol above only when the handshake has ended, and reports
that nothing is left to be written as soon as the socket has taken it. Here a client that never finishes its
handshake counts as a connection and has as long as a head may take; a connection uses the certificate
that was current when it came; and what the client has not taken is known to `HttpProtocol`.

`tests/net/test_upstream.py` names every part of uvloop that this overrides or uses.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from uvloop.loop import SSLProtocol  # type: ignore[attr-defined]

from server.net.certificates import Tls
from server.net.http_protocol import HttpProtocol
from server.net.limits import REFUSED_S, Limits

# Seconds for a closing connection to be emptied: no limit, because `SendTimeout` ends it sooner.
NO_LIMIT_S = 86_400.0


class TlsProtocol(SSLProtocol):  # type: ignore[misc]
    """The TLS between a socket and an `HttpProtocol`."""

    def __init__(
        self, make: Callable[..., HttpProtocol], tls: Tls, limits: Limits, **uvicorn: Any
    ) -> None:
        """Make the protocol for the decrypted bytes with `make`, from the arguments that uvicorn gives."""
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
        # Its transport refers to this object: a circle that only a collection would free.
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
