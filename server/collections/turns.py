"""A bound on how many calls of one kind take threads at once, for work that no queue admits."""

import asyncio
from weakref import WeakKeyDictionary


class Turns:
    """At most `most` calls at once on each event loop; the others wait in order."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            WeakKeyDictionary()
        )

    def here(self) -> asyncio.Semaphore:
        """Return what to hold during a call, on the running loop."""
        loop = asyncio.get_running_loop()
        return self._of_loop.setdefault(loop, asyncio.Semaphore(self._most))
