"""Tells the supervisor that started this process, systemd or one like it, how it is.

One datagram a message, to the socket that $NOTIFY_SOCKET names, in the form that sd_notify(3) describes;
to nobody where there is none. It is the one thing that a server sends of its own accord, and it never
leaves the machine: such an address is a path, or a name that only this kernel knows.
"""

import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Supervisor:
    """address: a path, or `@` and a name; "" for nobody. watchdog_s: seconds of silence after which it
    ends this process, None where it does not watch. `close` it.
    """

    address: str = ""
    watchdog_s: float | None = None
    # Open from the beginning: who has too many open files must be able to say that it lives.
    _sender: socket.socket = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # The event loop must not wait for a supervisor that does not read.
        sender.setblocking(False)
        object.__setattr__(self, "_sender", sender)

    @classmethod
    def of(cls, environ: Mapping[str, str], pid: int) -> "Supervisor":
        """The one that has started process `pid`, if its variables are meant for it."""
        address = environ.get("NOTIFY_SOCKET", "")
        if address[:1] not in ("/", "@"):
            return cls()
        microseconds = environ.get("WATCHDOG_USEC", "")
        # Children inherit the variables.
        own = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
        if not own or not microseconds.isdecimal() or not int(microseconds):
            return cls(address)
        return cls(address, int(microseconds) / 1e6)

    def tell(self, *lines: str) -> bool:
        """Send assignments such as READY=1 as one message; one that does not arrive is logged.

        False where it may arrive a little later: the supervisor does not read just now.
        """
        if not self.address:
            return True
        place = f"\0{self.address[1:]}" if self.address[0] == "@" else self.address
        try:
            self._sender.sendto("\n".join(lines).encode(), place)
        except OSError as error:
            log.warning(
                "the supervisor at %s was not told %s: %s 未能通知服务管理程序",
                *(self.address, lines[0], error.strerror),
            )
            return not isinstance(error, BlockingIOError)
        return True

    def close(self) -> None:
        self._sender.close()
