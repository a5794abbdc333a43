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
            f"unix_socket {path} has {len(os.fsencode(path))} bytes, at most {LONGEST} are possible",
            f"unix_socket {path} 长 {len(os.fsencode(path))} 字节，最多 {LONGEST} 字节",
        )
    if not os.path.isdir(path.parent):
        raise BadSettings(
            f"unix_socket {path}: there is no folder {path.parent}",
            f"unix_socket {path}：文件夹 {path.parent} 不存在",
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise BadSettings(
            f"unix_socket {path}: this user may not write to {path.parent}",
            f"unix_socket {path}：当前用户无权写入 {path.parent}",
        )
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise BadSettings(
                f"unix_socket {path} is a file of another kind; choose another path",
                f"unix_socket {path} 已存在且不是套接字；请换一个路径",
            )
        if _asked(path) == errno.EACCES:
            raise BadSettings(
                f"unix_socket {path} is another user's, who may be listening; remove it or choose"
                " another path",
                f"unix_socket {path} 属于其他用户，可能正在使用；请删除它或换一个路径",
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
        f"another process listens on unix_socket {path}; stop it or choose another path",
        f"已有其他进程在监听 unix_socket {path}；请停止该进程或换一个路径",
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
            f"unix_socket {path} cannot be had: {error.strerror}; choose another path",
            f"无法使用 unix_socket {path}（{error.strerror}）；请换一个路径",
        ) from None
    return own
