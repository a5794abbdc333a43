"""Messages to the supervisor that started this process: systemd, or one like it.

Each message is one datagram to the socket that $NOTIFY_SOCKET names, in the format of sd_notify(3). Where
the variable is missing none is sent. Nothing else is sent without a request, and this never leaves the
machine: such an address is a path, or a name that only this kernel knows.
"""

import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Supervisor:
    """The supervisor of this process; `close` it.

    address: a path, or `@` and a name; "" where there is no supervisor. watchdog_s: seconds without a message
    after which it ends this process, None where it does not watch.
    """

    address: str = ""
    watchdog_s: float | None = None
    # Open from the start: a process with too many open files must still be able to send.
    _sender: socket.socket = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # The event loop must not wait for a supervisor that does not read.
        sender.setblocking(False)
        object.__setattr__(self, "_sender", sender)

    @classmethod
    def of(cls, environ: Mapping[str, str], pid: int) -> "Supervisor":
        """Return the supervisor that started process `pid`, if its variables are meant for that process."""
        address = environ.get("NOTIFY_SOCKET", "")
        if address[:1] not in ("/", "@"):
            return cls()
        microseconds = environ.get("WATCHDOG_USEC", "")
        # Children inherit the variables.
        own = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
        if not own or not microseconds.isdecimal() or not int(microseconds):
            return cls(address)
        return cls(address, int(microseconds) / 1e6)

    def notify(self, *lines: str) -> bool:
        """Send assignments such as READY=1 as one message, and log a failure.

        Returns False where a later try may succeed: the supervisor's queue is full.
        """
        if not self.address:
            return True
        place = f"\0{self.address[1:]}" if self.address[0] == "@" else self.address
        try:
            self._sender.sendto("\n".join(lines).encode(), place)
        except OSError as error:
            log.warning(
                "the supervisor at %s did not receive %s: %s",
                *(self.address, lines[0], error.strerror),
            )
            return not isinstance(error, BlockingIOError)
        return True

    def close(self) -> None:
        self._sender.close()
