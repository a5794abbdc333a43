"""Paths that have changed in a folder, and when they are quiet enough to be read.

A file that is being written must not be read half, and a program that saves a file may remove and create it
in one moment. So changes wait until nothing has changed for a second. A file that is written all the time is
read all the same, after half a minute.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

SETTLE_S, MOST_WAIT_S = 1.0, 30.0
# Between attempts while something fails, each time twice as long.
FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 30.0
# Paths that are kept. What has more changes is read as a whole.
MOST_PATHS = 1_000


@dataclass(slots=True)
class Changes:
    """Changes in one folder, with the time as an argument of each call.

    whole: the folder must be read as a whole. paths: what changed, relative to the folder.
    """

    folder: Path
    whole: bool = False
    paths: set[str] = field(default_factory=set)
    _first: float | None = None
    _last: float = 0.0
    _error: str = ""
    _retry_s: float = 0.0
    _retry_at: float = 0.0

    def note(self, paths: Iterable[str], now: float) -> None:
        """Note changed paths, absolute ones. Those outside of the folder are of another source."""
        for path in paths:
            name = self._relative(path)
            if name is None or _is_temporary(name, path):
                continue
            if name == "." or _is_link(path) or len(self.paths) >= MOST_PATHS:
                self.all(now)
            else:
                self._touch(now)
                if not self.whole:
                    self.paths.add(name)

    def all(self, now: float) -> None:
        """Note that the folder must be read as a whole."""
        self.whole = True
        self.paths.clear()
        self._touch(now)

    def _touch(self, now: float) -> None:
        self._first = now if self._first is None else self._first
        self._last = now

    def due(self, now: float) -> bool:
        """Return whether the changes are to be read now."""
        if self._first is None or now < self._retry_at:
            return False
        if now - self._first >= MOST_WAIT_S:
            return True
        return now - self._last >= SETTLE_S and not any(map(self._is_blank, self.paths))

    def done(self) -> None:
        """Forget the changes, which were read."""
        self.whole, self._first = False, None
        self.paths.clear()
        self._error, self._retry_s, self._retry_at = "", 0.0, 0.0

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt to read them failed."""
        return self._retry_s > 0

    def failed(self, error: str, now: float) -> bool:
        """Put the next attempt off; return whether this is another error than that of the last one."""
        self._retry_s = min(max(2 * self._retry_s, FIRST_RETRY_S), LONGEST_RETRY_S)
        self._retry_at = now + self._retry_s
        is_new, self._error = error != self._error, error
        return is_new

    def touches(self, name: str) -> bool:
        """Return whether a file, or a folder that it is in, has changed."""
        if self.whole or name in self.paths:
            return True
        parts = name.split("/")
        return any("/".join(parts[:n]) in self.paths for n in range(1, len(parts)))

    def _relative(self, path: str) -> str | None:
        for folder in (os.path.abspath(self.folder), os.path.realpath(self.folder)):
            if path == folder:
                return "."
            if path.startswith(folder.rstrip("/") + "/"):
                return path[len(folder.rstrip("/")) + 1 :]
        return None

    def _is_blank(self, name: str) -> bool:
        """Return whether a file is there without content, as one is that a program begins to write."""
        try:
            found = os.stat(self.folder / name)
        except OSError:
            return False
        return os.path.isfile(self.folder / name) and not found.st_size


def _is_link(path: str) -> bool:
    """Return whether a path is a link, behind which anything may have changed."""
    return os.path.islink(path)


def _is_temporary(name: str, path: str) -> bool:
    """Return whether no document can come of a path: hidden files, and those that editors leave."""
    hidden = any(part.startswith((".", "~$")) for part in name.split("/"))
    return name != "." and (hidden and not os.path.islink(path) or name.endswith(("~", ".tmp")))
