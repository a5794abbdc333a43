"""Memory that the process has freed, given back to the system."""

import asyncio
import ctypes

# A request of so many bytes, or a reply, leaves memory that is worth giving back.
LARGE_BYTES = 1 << 18
# Seconds without another one before it is given back: under load it is needed again at once.
QUIET_S = 3.0


def give_back() -> bool:
    """Give freed memory back to the system; return whether there was any.

    glibc keeps it otherwise: after a write of 10,000 documents the process stayed at its peak. Other C
    libraries have no such call, and keep less.
    """
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, AttributeError):
        return False


class FreedMemory:
    """Gives back what large requests left, on a thread, once no other one has ended for a while.

    Every method is called on one event loop.
    """

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    def after(self, size: int) -> None:
        """Called at the end of a request; size: bytes of its body or of its reply."""
        if size < LARGE_BYTES:
            return
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(QUIET_S, loop.run_in_executor, None, give_back)
