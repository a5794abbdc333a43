"""The limit on how long a client may leave its reply unread.

A reply that the transport has taken may still wait in the buffers of TLS and of the kernel. So this counts
what the client has not acknowledged, and aborts the connection when that has not shrunk for too long, or
shrinks so slowly that the reply would stay in memory for hours.
"""

import asyncio
import sys
from fcntl import ioctl
from termios import TIOCOUTQ

# Seconds between two checks; `send_s` is a whole number of them.
CHECK_S = 1.0
# A reply must be taken at this rate after the first `limit_s` seconds: 128 kbit/s, a very slow line. So a
# slow client holds 32 MB for 35 minutes at most.
MIN_BYTES_PER_S = 16_384


class SendTimeout:
    """The timer of one connection; `start` it when something waits to be sent.

    transport: what the HTTP protocol writes to. raw: what writes to the kernel's socket; with TLS another
    one than `transport`. limit_s: seconds in which some of the reply has to be taken.
    """

    def __init__(self, transport: asyncio.Transport, raw: asyncio.Transport, limit_s: float):
        self._transport = transport
        self._raw = raw
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        # Bytes that were left at the last check, and seconds since there have been fewer.
        self._unsent = 0
        self._idle_s = 0.0
        # Seconds since the start, and those in which everything has to be taken.
        self._waited_s = 0.0
        self._most_s = 0.0

    @property
    def running(self) -> bool:
        return self._timer is not None

    def start(self) -> None:
        """Start, or start again: the client has the whole limit from now on."""
        self.stop()
        self._unsent, self._idle_s = self._unsent_bytes(), 0.0
        self._waited_s, self._most_s = 0.0, self._limit_s + self._unsent / MIN_BYTES_PER_S
        self._timer = self._loop.call_later(CHECK_S, self._check)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        left = self._unsent_bytes()
        self._idle_s = 0.0 if left < self._unsent else self._idle_s + CHECK_S
        self._unsent = min(left, self._unsent)
        self._waited_s += CHECK_S
        slow = self._idle_s >= self._limit_s or self._waited_s > self._most_s
        # With nothing left only the client's close is missing: TLS has one, and most clients never send it.
        if slow or (not left and self._transport.is_closing()):
            self._transport.abort()
        else:
            self._timer = self._loop.call_later(CHECK_S, self._check)

    def _unsent_bytes(self) -> int:
        """Return the bytes that the client has not acknowledged, encrypted ones where there is TLS."""
        above = 0 if self._raw is self._transport else self._transport.get_write_buffer_size()
        # subtle: the kernel's buffer counts too. It has megabytes, and takes more only when a third of them
        # is free: a client of 40 KB/s would seem to take nothing for 30 seconds.
        try:
            queued = ioctl(self._raw.get_extra_info("socket").fileno(), TIOCOUTQ, bytes(4))
        except (OSError, ValueError):
            return 0  # The socket is closed.
        return above + self._raw.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)
