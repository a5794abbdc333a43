"""The file of a Unix socket: whether its place can be had, and away with it at the end.

A file that a server left behind when it was killed is replaced. One that a process listens on is not:
what the kernel lists says so, because nothing here connects to find out.
"""

import asyncio
import logging
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from server.errors import BadSettings

# Bytes of a path that the kernel takes as an address.
LONGEST = 107
LISTED = Path("/proc/net/unix")

log = logging.getLogger(__name__)


class Door:
    """A Unix socket's file: its place is checked when it is made; `open` it, then `close` it."""

    def __init__(self, path: Path, mode: str) -> None:
        """mode: octal. Raises BadSettings where the path cannot be had."""
        self._path = claim(path)
        self._mode = mode
        self._own: tuple[int, int] | None = None

    async def open(self, make: Callable[[], asyncio.BaseProtocol], backlog: int) -> asyncio.Server:
        """Listen; `make` makes the protocol of each connection."""
        # subtle: the loop binds before it waits for anything, so no other file gets this mask, and
        # there is no moment in which the file has a wider mode than it should.
        before = os.umask(0o777 & ~int(self._mode, 8))
        try:
            loop = asyncio.get_running_loop()
            server = await loop.create_unix_server(make, str(self._path), backlog=backlog)
        finally:
            os.umask(before)
        self._own = _identity(self._path)
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
    """The absolute path, free to be listened on; raises BadSettings that says why it is not."""
    check(path)
    path = path.absolute()
    path.unlink(missing_ok=True)
    return path


def check(path: Path) -> None:
    """Raise BadSettings where `claim` could not have the path now; changes nothing."""
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
        if is_listed(path):
            raise BadSettings(
                f"another process listens on unix_socket {path}; stop it or choose another path",
                f"已有其他进程在监听 unix_socket {path}；请停止该进程或换一个路径",
            )


def is_listed(path: Path, listed: Path = LISTED) -> bool:
    """Whether a process has a socket of this name; true where that cannot be known."""
    try:
        lines = listed.read_text(encoding="utf-8", errors="surrogateescape").splitlines()[1:]
    except OSError:
        return True
    names = [Path(columns[7]) for line in lines if len(columns := line.split(maxsplit=7)) == 8]
    # A relative name starts where only its process knows.
    return any(
        each.resolve() == path.resolve() if each.is_absolute() else each.name == path.name
        for each in names
    )
