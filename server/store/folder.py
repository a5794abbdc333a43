"""The data folder: which process uses it, and which collections are in it.

DATA/lock                                 held by the one process that uses DATA
DATA/collections/NAME/documents.sqlite3   the truth
DATA/collections/NAME/index.faiss         a snapshot of the index; saves time at start
"""

import fcntl
import logging
import os
import re
import shutil
import signal
import uuid
from contextlib import closing
from pathlib import Path
from typing import TextIO

from server.errors import (
    AlreadyExists,
    InvalidRequest,
    NotReady,
    StoreDamaged,
    StoreError,
    TooManyCollections,
)
from server.store.collection import DATABASE_FILE, Collection
from server.store.database import FILES_A_DATABASE
from server.store.documents import Documents, Unfinished
from server.store.local_index.index import LocalIndex
from server.store.records import Info
from server.store.vector_index import IndexMaker, VectorIndex
from server.system import open_files

LOCK_FILE = "lock"
# No dot first: ".." would leave the folder, and this file uses names with a dot.
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
# How this server keeps vectors. Nothing else in the program names an implementation.
INDEX: IndexMaker = LocalIndex
# A collection that is being removed, until its last file is gone.
REMOVED = ".removed-"
# A collection that will replace another, and the note that it is complete.
NEXT, COMPLETE = ".next-", "complete"
# Number of the last document that the successor has copied.
COPIED = "copied_through"
# One request of 2,048 documents of 512 characters with 512 numbers each is 9 MB, once in SQLite's log
# and once in the file. This is room for a few of them, and to shut down.
MIN_FREE_BYTES = 64 * 1024 * 1024
DISK_RETRY_S = 60
# One of so many open files is left to connections when a collection is created.
SHARE_OF_CONNECTIONS = 4

log = logging.getLogger(__name__)


class DataFolder:
    """The folder, locked, and its collections, open; `close` it when no call is running.

    holder: the address of this server, for the message to a second process. make: makes the indexes.
    damaged: by name, the error of each collection that cannot be opened; its files are not changed.
    """

    def __init__(self, folder: Path, holder: str = "", make: IndexMaker = INDEX) -> None:
        self.path = folder
        self._make = make
        self._lock = FolderLock(folder, holder)
        self.collections: dict[str, Collection] = {}
        self.damaged: dict[str, StoreDamaged] = {}
        try:
            self._home.mkdir(exist_ok=True)
            self._finish_replacements()
            self._sweep()
            for home in sorted(self._home.iterdir()):
                if not home.name.startswith(NEXT) and (home / DATABASE_FILE).exists():
                    self._open(home)
        except OSError as error:
            self.close()
            raise _unusable(folder, error) from None
        except BaseException:
            self.close()
            raise

    def _open(self, home: Path) -> None:
        try:
            self.collections[home.name] = Collection(home, self._make)
        except Unfinished:
            shutil.rmtree(home, ignore_errors=True)
        except StoreDamaged as error:
            # The others are sound; requests to this one are refused.
            self.damaged[home.name] = error
            log.error("%s", error.english)

    def create(self, info: Info) -> Collection:
        """Create an empty collection; raises AlreadyExists, or InvalidRequest for its name."""
        check_name(info.name)
        self.check(info.name)
        if info.name in self.collections:
            raise AlreadyExists(f"collection {info.name!r} exists already", param="name")
        self._check_files()
        home = self._home / info.name
        try:
            home.mkdir(exist_ok=True)
        except OSError as error:
            raise _unusable(home, error) from None
        collection = self.collections[info.name] = Collection(home, self._make, info)
        return collection

    def empty_index(self, dimension: int) -> VectorIndex:
        """Return the index of a collection without documents."""
        return self._make(dimension)

    def check(self, name: str) -> None:
        """Raise StoreDamaged where the collection of this name cannot be opened."""
        if name in self.damaged:
            raise StoreDamaged(self.damaged[name].sentence)

    def _check_files(self) -> None:
        """Raise TooManyCollections where the open files of one more would leave too few to connections."""
        allowed, left = open_files.allowed(), open_files.left()
        if left < allowed // SHARE_OF_CONNECTIONS + FILES_A_DATABASE:
            raise TooManyCollections(
                f"this server has {len(self.collections)} collections open, and {left} of the"
                f" {allowed} files that the system allows it are left, which connections need; delete a"
                " collection, or raise the limit (LimitNOFILE=, ulimit -Hn) and start it again",
                param="name",
            )

    def check_disk(self) -> None:
        """Raise NotReady where the next writes would not fit."""
        try:
            disk = os.statvfs(self.path)
        except OSError as error:
            raise NotReady(
                f"the data folder cannot be examined: {error.strerror}; check its disk",
                retry_after_s=DISK_RETRY_S,
            ) from None
        free = disk.f_bavail * disk.f_frsize
        if free < MIN_FREE_BYTES:
            raise NotReady(
                f"{free} bytes are free on the data folder's disk, at least {MIN_FREE_BYTES} are"
                " needed; free some space",
                retry_after_s=DISK_RETRY_S,
            )

    def remove(self, name: str) -> None:
        """Delete a collection with everything in it, at once or not at all."""
        collection = self.collections.pop(name)
        collection.abandon()
        try:
            (self._home / name).rename(self._home / f"{REMOVED}{uuid.uuid4().hex}")
        except OSError as error:
            raise _unusable(self._home / name, error) from None
        self._sweep()

    def successor(self, info: Info) -> Collection:
        """Return the collection that will replace the one of this name; new, or as far as it was."""
        home = self._home / f"{NEXT}{info.name}"
        home.mkdir(exist_ok=True)
        collection = Collection(home, self._make, info)
        if collection.info == info:
            return collection
        # It was for another model, or for other chunks.
        collection.abandon()
        shutil.rmtree(home)
        home.mkdir()
        return Collection(home, self._make, info)

    def replace(self, successor: Collection) -> Collection:
        """Put a successor in its place, whole or not at all, while no call uses either."""
        name = successor.name
        successor.save()
        with successor.documents.transaction():
            successor.documents.note(COMPLETE, "yes")
        successor.abandon()
        self.collections.pop(name).abandon()
        # subtle: two steps. If the process ends between them, the next start finishes the second.
        # Only these steps: another replacement may be between its own two now.
        (self._home / name).rename(self._home / f"{REMOVED}{uuid.uuid4().hex}")
        (self._home / f"{NEXT}{name}").rename(self._home / name)
        self._open(self._home / name)
        self.check(name)
        self._sweep()
        return self.collections[name]

    def _finish_replacements(self) -> None:
        for home in self._home.glob(f"{NEXT}*"):
            place = self._home / home.name.removeprefix(NEXT)
            if not place.exists() and _is_complete(home):
                home.rename(place)

    def _sweep(self) -> None:
        for home in self._home.glob(f"{REMOVED}*"):
            shutil.rmtree(home, ignore_errors=True)

    def close(self) -> None:
        """Write snapshots and release the folder."""
        while self.collections:
            self.collections.popitem()[1].close()
        self._lock.close()

    @property
    def _home(self) -> Path:
        return self.path / "collections"


def check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} cannot name a collection: 1 to 64 of A-Z a-z 0-9 . _ - are needed, no dot first",
            param="name",
        )


def _is_complete(home: Path) -> bool:
    try:
        documents = Documents(home / DATABASE_FILE, None)
    except (Unfinished, StoreError):
        return False
    with closing(documents):
        return documents.noted(COMPLETE) is not None


class FolderLock:
    """The right to use a data folder; the kernel takes it back however the process ends."""

    def __init__(self, folder: Path, holder: str) -> None:
        try:
            # Only this user may read documents; a folder that exists keeps its mode.
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = (folder / LOCK_FILE).open("a+", encoding="utf-8")
        except OSError as error:
            raise _unusable(folder, error) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.truncate(0)
            self._file.write(f"{os.getpid()} {holder}".strip())
            self._file.flush()
        except OSError as error:
            held_by = self._holder() if isinstance(error, BlockingIOError) else None
            self._file.close()
            raise _unusable(folder, error) if held_by is None else _held(folder, held_by) from None

    def close(self) -> None:
        self._file.close()

    def _holder(self) -> str:
        self._file.seek(0)
        return self._file.read() or "?"


def holder_of(folder: Path) -> str | None:
    """Return process id and address of the process that uses a data folder; None if it is free.

    Changes nothing. The address is that of a server; other processes have none.
    """
    try:
        with (folder / LOCK_FILE).open(encoding="utf-8") as file:
            try:
                _look(file)
            except BlockingIOError:
                return file.read() or "?"
    except OSError:
        return None
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


def _held(folder: Path, holder: str) -> StoreError:
    pid, _, address = holder.partition(" ")
    if address:
        return StoreError(
            "{folder} is in use by process {pid}; that is a server: talk to it with --url {address},"
            " stop it, or give another --data folder",
            folder=folder,
            pid=pid,
            address=address,
        )
    return StoreError(
        "{folder} is in use by process {pid}; stop that process, or give another --data folder",
        folder=folder,
        pid=pid,
    )


def _unusable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        "{path} cannot be used: {strerror}; check its permissions and disk, or give another "
        "--data folder",
        path=path,
        strerror=error.strerror,
    )
