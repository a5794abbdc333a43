"""The right to use a data folder: one process at a time, also in other containers.

Three locks are held, and the kernel takes them back however the process ends. Those on the folder itself
and on DATA/collections, which may be a link, decide: a folder cannot be deleted while it holds collections,
but a file in it can. The lock on the file DATA/lock is what other programs look at; the file names the
process that holds it, and the addresses at which a server answers.
"""

import errno
import fcntl
import os
import secrets
import signal
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from server.errors import DiskFull, StoreError
from server.system.atomic_file import sync_folder

LOCK_FILE, COLLECTIONS = "lock", "collections"
# Characters of a lock file, with room for the longest paths.
MOST_READ = 16_384
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class Holder(NamedTuple):
    """The process that uses a data folder, as the lock file names it.

    addresses: of a server, the one of its port first; other processes have none. instance: of a server
    that answers; empty while it starts.
    """

    pid: str
    addresses: Sequence[str] = ()
    instance: str = ""

    @classmethod
    def of(cls, content: str) -> "Holder":
        """Parse `PID` or `PID ADDRESS`; a server that answers adds a line with INSTANCE and a line for
        each further address.
        """
        first, *rest = content.strip().splitlines() or ["?"]
        pid, _, address = first.strip().partition(" ")
        return cls(pid, (address, *rest[1:]) if address else (), rest[0] if rest else "")


class FolderLock:
    """The right to use a data folder, which is created if it is missing.

    holder: the address of this server, for the message to a second process. instance: names this use of
    the folder; a server returns it, so that a command can tell this server from another one.
    """

    def __init__(self, folder: Path, holder: str) -> None:
        self._path = folder
        self.instance = secrets.token_hex(8)
        self._folders: list[int] = []
        self._file: TextIO | None = None
        try:
            for each in (folder, folder / COLLECTIONS):
                _create(each)
                self._folders.append(_locked(each))
            self._file = _file_to_hold(folder / LOCK_FILE)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._write(f"{os.getpid()} {holder}".strip())
        except (OSError, StoreError) as error:
            self.close()
            if isinstance(error, StoreError):
                raise
            if isinstance(error, BlockingIOError):
                raise _held(folder) from None
            raise unusable(folder, error) from None

    def announce(self, addresses: Sequence[str]) -> None:
        """Name the addresses at which this server answers from now on."""
        first, *others = addresses
        self._write("\n".join((f"{os.getpid()} {first}", self.instance, *others)))

    def _write(self, content: str) -> None:
        """Replace the content of the lock file in one step: a reader must not see half of it."""
        if self._file is None:
            return
        handle = self._file.fileno()
        size = os.fstat(handle).st_size
        os.pwrite(handle, content.encode().ljust(size), 0)

    def check(self) -> None:
        """Raise StoreError where the folders at these paths are not those that are locked.

        Somebody has moved them away. What is there now may be another server's.
        """
        for path, handle in zip((self._path, self._path / COLLECTIONS), self._folders, strict=True):
            if handle >= 0 and not _is_at(path, handle):
                raise StoreError(
                    "{folder} was moved while it was in use; move it back, or start the server again",
                    folder=path,
                )

    def close(self) -> None:
        """Release the folder; does nothing the second time."""
        if self._file is not None:
            self._file.close()
        for handle in self._folders:
            if handle >= 0:
                os.close(handle)
        self._file, self._folders = None, []


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except OSError:
        return False


def _create(folder: Path) -> None:
    """Create a data folder that is missing, so that it is there after a power cut."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    # Only this user may read documents; a folder that exists keeps its mode.
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)


def _locked(folder: Path) -> int:
    """Return a descriptor of the folder with its lock; -1 where this folder cannot be locked.

    Raises BlockingIOError where another process has the lock.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        # A folder that this user may write in but not list: the lock on the file is left.
        return -1
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:
        # A file system that locks no folders.
        os.close(handle)
        return -1
    return handle


def _file_to_hold(path: Path) -> TextIO:
    """Open the lock file to read and write it; raises StoreError where it is not a regular file.

    Its content is replaced. Behind a link that someone has put there, that would be another file.
    """
    # Neither cut nor appended to when it is opened: another process may hold it. Not with O_NONBLOCK, which
    # would fail during a lease; a pipe that is opened for reading and writing waits for nothing.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o666)
    except IsADirectoryError:
        raise _no_lock(path) from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _no_lock(path) from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _no_lock(path)
    return os.fdopen(handle, "r+", encoding="utf-8")


def _no_lock(path: Path) -> StoreError:
    return StoreError(
        "{path} cannot be used: it is a link or no regular file, and it would be overwritten; remove it",
        path=path,
    )


def holder_of(folder: Path) -> str | None:
    """Return process id and address of the process that uses a data folder; None if it is free.

    Changes nothing. The address is that of a server; other processes have none.
    """
    try:
        with _opened(folder / LOCK_FILE) as file:
            try:
                _look(file)
            except BlockingIOError:
                return file.read(MOST_READ).strip() or "?"
    except FileNotFoundError:
        return _unnamed_holder(folder)
    except OSError:
        return None
    return None


def _opened(path: Path) -> TextIO:
    """Open a lock file to read it; what another user may have put in its place does not make this wait."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return os.fdopen(handle, encoding="utf-8", errors="replace")


def _unnamed_holder(folder: Path) -> str | None:
    """Return "?" where a process uses a folder whose lock file was deleted; None if it is free."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return "?"
    except OSError:
        return None
    finally:
        os.close(handle)
    return None


def _look(file: TextIO) -> None:
    """Raise BlockingIOError where a process uses the folder of this lock file.

    subtle: the kernel gives a read lease only where no process has the file open for writing, and a
    process that uses the folder has, in any container. A server that starts in the microseconds of the
    lease waits for its end. A shared lock would make that server fail, and the kernel's list of locks
    leaves out those of other containers. Only a file's owner and root get leases, and not on every file
    system; elsewhere the shared lock is used. (A network file system may report a free file as used, but
    no data folder should be there.) Both end when the file is closed.
    """
    try:
        # The signal sent when a server waits: the default one would end this process; this one is ignored.
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        raise
    except OSError:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


def _held(folder: Path) -> StoreError:
    """Return the error that names the process that uses a folder."""
    try:
        with _opened(folder / LOCK_FILE) as file:
            holder = Holder.of(file.read(MOST_READ))
    except OSError:
        # The file was deleted.
        holder = Holder("?")
    if holder.addresses:
        return StoreError(
            "{folder} is in use by process {pid}, the server at {address}; stop it, or give another"
            " --data folder",
            folder=folder,
            pid=holder.pid,
            address=holder.addresses[0],
        )
    return StoreError(
        "{folder} is in use by process {pid}; stop that process, or give another --data folder",
        folder=folder,
        pid=holder.pid,
    )


def unusable(path: Path, error: OSError) -> StoreError:
    """Return the error that says why a file or folder cannot be used, and what to do."""
    if error.errno in NO_SPACE:
        return DiskFull(
            "{path} cannot be written: {strerror}; free some space and try again",
            path=path,
            strerror=error.strerror,
        )
    return StoreError(
        "{path} cannot be used: {strerror}; check its permissions and disk, or give another "
        "--data folder",
        path=path,
        strerror=error.strerror,
    )
