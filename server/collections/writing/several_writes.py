"""Several writes that make up one request: they must reach one collection, or the request is refused."""

from server.collections.external.kinds import Writable
from server.errors import AlreadyExists


class SeveralWrites:
    """The writes of one request, which a restore may come between."""

    def __init__(self, live: Writable) -> None:
        self._live = live
        self._restored = live.restored

    @property
    def lost(self) -> bool:
        """Return whether a backup has taken the place of what was written."""
        return self._live.restored != self._restored

    def check(self) -> None:
        """Raise AlreadyExists where what was written is lost; call after each write."""
        if self.lost:
            raise AlreadyExists(
                f"collection {self._live.name!r} was replaced from a backup meanwhile, and what this request"
                " had stored before is gone; send everything again"
            )
