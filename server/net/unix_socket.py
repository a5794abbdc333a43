"""The file of a Unix socket: whether its place can be had, and away with it at the end.

A file that a server left behind when it was killed is replaced. One that a process listens on is not:
whether one does only the kernel knows, when it is asked to connect. That is the one connection that is
opened here, to a file of this machine; nothing is sent over it.
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


class Door:
    """A Unix socket's file: its place is checked when it is made; `open` it, then `close` it."""

    def __init__(self, path: Path, mode: str) -> None:
        """mode: octal. Raises BadSettings where the path cannot be had."""
        self._path = claim(path)
        self._mode = int(mode, 8)
        self._own: tuple[int, int] | None = None

    async def open(self, make: Callable[[], asyncio.BaseProtocol], backlog: int) -> asyncio.Server:
        """Listen; `make` makes the protocol of each connection.

        Raises BadSettings where the place was taken since it was checked: loading takes a while.
        """
        bound = _bound(self._path, self._mode)
        self._own = _identity(self._path)
        server = await asyncio.get_running_loop().create_unix_server(
            make, sock=bound, backlog=backlog
        )
        log.info("listening on %s as well 同时监听 %s", self._path, self._path)
        return server

    def close(self) -> None:
        """Remove the file, unless another one has taken its place."""
        with suppress(FileNotFoundError):
            if _identity(self._path) == self._own:
                self._path.unlink()


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def claim(path: Path) -> Path:
    """The absolute path, at which nobody listens; raises BadSettings that says why it is not."""
    path = path.absolute()
    if len(os.fsencode(path)) > LONGEST:
        raise BadSettings(
            "unix_socket {path} has {n_fsencode} bytes, at most {LONGEST} are possible",
            path=path,
            n_fsencode=len(os.fsencode(path)),
            LONGEST=LONGEST,
        )
    if not os.path.isdir(path.parent):
        raise BadSettings(
            "unix_socket {path}: there is no folder {parent}",
            path=path,
            parent=path.parent,
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise BadSettings(
            "unix_socket {path}: this user may not write to {parent}",
            path=path,
            parent=path.parent,
        )
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise BadSettings(
                "unix_socket {path} is a file of another kind; choose another path",
                path=path,
            )
        if _asked(path) == errno.EACCES:
            raise BadSettings(
                "unix_socket {path} is another user's, who may be listening; remove it or choose "
                "another path",
                path=path,
            )
        if is_listening(path):
            raise _taken(path)
    return path


def is_listening(path: Path) -> bool:
    """Whether a process has this socket open; true where that cannot be known."""
    return _asked(path) not in (errno.ECONNREFUSED, errno.ENOENT)


def _asked(path: Path) -> int:
    """What the kernel says to who connects to a socket's file: ECONNREFUSED where nobody listens.

    It knows so of other containers' processes too.
    """
    with socket.socket(socket.AF_UNIX) as asking:
        # It need not be accepted: a full queue says as much.
        asking.setblocking(False)
        return asking.connect_ex(str(path))


def _taken(path: Path) -> BadSettings:
    return BadSettings(
        "another process listens on unix_socket {path}; stop it or choose another path",
        path=path,
    )


def _bound(path: Path, mode: int) -> socket.socket:
    """A socket whose file is at the path, in place of one that was left behind; raises BadSettings."""
    own = socket.socket(socket.AF_UNIX)
    try:
        claim(path)
        path.unlink(missing_ok=True)
        own.bind(str(path))
        # subtle: nobody can connect before it listens, so the file never lets in more than it should.
        path.chmod(mode)
    except BadSettings:
        own.close()
        raise
    except OSError as error:
        own.close()
        if error.errno == errno.EADDRINUSE:
            raise _taken(path) from None
        raise BadSettings(
            "unix_socket {path} cannot be had: {strerror}; choose another path",
            path=path,
            strerror=error.strerror,
        ) from None
    return own
