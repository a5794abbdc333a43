"""A Unix socket to listen on: its path is checked, its file made, and removed at the end.

The file of a server that was killed is replaced. A file on which a process listens is not. Only the kernel
knows whether one does, and says so when asked to connect. That is the one connection that is opened here, to
a file of this machine; nothing is sent over it.
"""

import asyncio
import errno
import logging
import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from server.errors import BadSettings

# Bytes of a path that the kernel takes as an address.
LONGEST = 107

log = logging.getLogger(__name__)


class UnixSocket:
    """A Unix socket, whose path is checked by the constructor; `open` it, then `close` it."""

    def __init__(self, path: Path, mode: str) -> None:
        """Check the path; raises BadSettings where it cannot be used. mode: octal."""
        self._path = check_path(path)
        self._mode = int(mode, 8)
        self._own: tuple[int, int] | None = None

    async def open(self, make: Callable[[], asyncio.BaseProtocol], backlog: int) -> asyncio.Server:
        """Listen, and return the server; `make` makes the protocol of each connection.

        Raises BadSettings where the path was taken since the check: models were loaded in between.
        """
        bound = _bound(self._path, self._mode)
        self._own = _identity(self._path)
        server = await asyncio.get_running_loop().create_unix_server(
            make, sock=bound, backlog=backlog
        )
        log.info("listening on %s as well", self._path)
        return server

    def close(self) -> None:
        """Remove the file, unless it has been replaced by another one."""
        with suppress(FileNotFoundError):
            if _identity(self._path) == self._own:
                self._path.unlink()


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def check_path(path: Path) -> Path:
    """Return the absolute path, on which no process listens; raise BadSettings where it cannot be used."""
    path = path.absolute()
    if len(os.fsencode(path)) > LONGEST:
        raise BadSettings(
            "unix_socket {path} has {size} bytes, at most {limit} are possible; choose a shorter path",
            path=path,
            size=len(os.fsencode(path)),
            limit=LONGEST,
        )
    if not os.path.isdir(path.parent):
        raise BadSettings(
            "unix_socket {path}: the folder {parent} does not exist; make it or choose another path",
            path=path,
            parent=path.parent,
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise BadSettings(
            "unix_socket {path}: this user may not write to {parent}; choose another path",
            path=path,
            parent=path.parent,
        )
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise BadSettings(
                "unix_socket {path} is a file of another kind; choose another path", path=path
            )
        if _connect_error(path) == errno.EACCES:
            raise BadSettings(
                "unix_socket {path} belongs to another user, who may be listening; remove it or "
                "choose another path",
                path=path,
            )
        if is_listening(path):
            raise _taken(path)
    return path


def is_listening(path: Path) -> bool:
    """Return whether a process listens on this socket; true where that cannot be known."""
    return _connect_error(path) not in (errno.ECONNREFUSED, errno.ENOENT)


def _connect_error(path: Path) -> int:
    """Return the kernel's answer to a connection to the file: ECONNREFUSED where no process listens.

    It counts processes of other containers too.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        # It need not be accepted: a full queue is an answer too.
        connection.setblocking(False)
        return connection.connect_ex(str(path))


def _taken(path: Path) -> BadSettings:
    return BadSettings(
        "another process listens on unix_socket {path}; stop it or choose another path", path=path
    )


def _bound(path: Path, mode: int) -> socket.socket:
    """Return a socket with its file at the path, in place of a dead one; raise BadSettings."""
    own = socket.socket(socket.AF_UNIX)
    try:
        check_path(path)
        path.unlink(missing_ok=True)
        own.bind(str(path))
        # subtle: no client can connect before it listens, so the wrong mode never holds for any.
        path.chmod(mode)
    except BadSettings:
        own.close()
        raise
    except OSError as error:
        own.close()
        if error.errno == errno.EADDRINUSE:
            raise _taken(path) from None
        raise BadSettings(
            "unix_socket {path} cannot be used: {why}; choose another path",
            path=path,
            why=error.strerror,
        ) from None
    return own
