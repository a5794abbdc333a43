"""Connections that no call uses now, of all databases of the process: a bounded number of them is kept.

Each takes open files and a cache. With a connection for each of a thousand collections a server would reach its limit
of open files, although few threads read at once.
"""

from collections import OrderedDict
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar

MAX_IDLE = 32


class Closable(Protocol):
    def close(self) -> Any: ...


C = TypeVar("C", bound=Closable)


class IdleConnections(Generic[C]):
    """Connections by owner; from any thread."""

    def __init__(self, most: int = MAX_IDLE) -> None:
        self._most = most
        self._lock = Lock()
        # Oldest first, each with the number of its owner.
        self._idle: OrderedDict[C, int] = OrderedDict()

    def take(self, owner: int) -> C | None:
        """Return the connection of this owner that was used last, None where there is none."""
        with self._lock:
            for connection in reversed(self._idle):
                if self._idle[connection] == owner:
                    del self._idle[connection]
                    return connection
        return None

    def keep(self, owner: int, connection: C) -> None:
        """Keep a connection for the next call, and close the oldest if they are too many."""
        with self._lock:
            self._idle[connection] = owner
            oldest = self._idle.popitem(last=False)[0] if len(self._idle) > self._most else None
        if oldest is not None:
            oldest.close()

    def close(self, owner: int) -> None:
        """Close the connections of an owner."""
        with self._lock:
            found = [connection for connection, of in self._idle.items() if of == owner]
            for connection in found:
                del self._idle[connection]
        for connection in found:
            connection.close()
