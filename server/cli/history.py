"""The queries that were typed at the prompt, in a file that only this user can read.

Queries are often as confidential as documents. INKWELL_HISTORY names another file, or none if it is empty.
"""

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from server.config_sources import HISTORY

KEPT, MOST_BYTES = 1000, 1 << 20


class History:
    """The lines of a file, oldest first. A file that cannot be used is left alone: the prompt works without."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.lines = self._read()

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> "History":
        """Return the history that the environment names, by default in the folder for a user's state."""
        if HISTORY in variables:
            return cls(Path(variables[HISTORY]) if variables[HISTORY] else None)
        state, home = variables.get("XDG_STATE_HOME", ""), variables.get("HOME", "")
        # The XDG rules: a relative path does not count.
        folder = Path(state) if os.path.isabs(state) else Path(home) / ".local/state"
        return cls(folder / "inkwell/history" if os.path.isabs(folder) else None)

    def add(self, line: str) -> None:
        """Keep a line, unless it is the one before."""
        line = " ".join(line.split())
        if not line or self.lines[-1:] == [line]:
            return
        self.lines.append(line)
        if self._path is None:
            return
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(self._opened(os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") as file:
                file.write(f"{line}\n".encode("utf-8", "replace"))

    def _read(self) -> list[str]:
        """Return the last lines; a file that has grown long is written again with them alone."""
        if self._path is None:
            return []
        with suppress(OSError), os.fdopen(self._opened(os.O_RDWR), "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MOST_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()[-KEPT:]
            if size > MOST_BYTES:
                file.seek(0)
                file.write("".join(f"{line}\n" for line in lines).encode())
                file.truncate()
            return [line for line in lines if line]
        return []

    def _opened(self, flags: int) -> int:
        """Return a descriptor of the file, which must be this user's and no link; only the user can read it."""
        assert self._path is not None
        handle = os.open(self._path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            os.close(handle)
            raise PermissionError
        if stat.S_IMODE(found.st_mode) != 0o600:
            os.fchmod(handle, 0o600)
        return handle
