"""The data folder: which process uses it, and which collections are in it.

DATA/lock                                 names the one process that uses DATA; see `folder_lock`
DATA/names.json                           aliases of collections; see `naming`
DATA/collections/NAME/documents.sqlite3   the truth
DATA/collections/NAME/index.faiss         a snapshot of the index; saves time at start

`folder_layout` moves the folders of collections. This file opens what is in them.
"""

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path

from server.errors import (
    AlreadyExists,
    DiskFull,
    InvalidRequest,
    NotReady,
    StoreDamaged,
    StoreError,
    TooManyCollections,
)
from server.store.collection import DATABASE_FILE, Collection
from server.store.collection_name import check_name
from server.store.documents import Documents
from server.store.folder_layout import FolderLayout
from server.store.folder_lock import FolderLock, unusable
from server.store.local_index.index import LocalIndex
from server.store.naming.names_file import MAX_ALIASES, Renaming
from server.store.naming.renaming import prepared, rename
from server.store.records import Info
from server.store.sqlite.advice import FILES_A_DATABASE
from server.store.upkeep.integrity import faults_in
from server.store.vector_index import IndexMaker, VectorIndex
from server.system import open_files

# How this server keeps vectors. Nothing else in the program names an implementation.
INDEX: IndexMaker = LocalIndex
# The note of a successor: the number of the last document that it has copied.
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
        self._layout = FolderLayout(folder)
        self._lock = FolderLock(folder, holder)
        # Held while names.json changes: it notes one renaming at a time, and each change begins with the last.
        self._naming = threading.Lock()
        self.collections: dict[str, Collection] = {}
        self.damaged: dict[str, StoreError] = {}
        try:
            self._names = prepared(folder, self._layout)
            for name in self._layout.names():
                self._open(name)
            self._layout.clean({name: _identity(each) for name, each in self.collections.items()})
        except OSError as error:
            self.close()
            raise unusable(folder, error) from None
        except BaseException:
            self.close()
            raise

    def _open(self, name: str) -> None:
        """Open a collection; one that cannot be opened is damaged, and the others are served."""
        try:
            self.collections[name] = self._opened(name)
        except StoreError as error:
            self.damaged[name] = error
            log.error("collection %s cannot be opened: %s", name, error.english)

    def _opened(self, name: str) -> Collection:
        """Return a collection, open; raises StoreError, whatever is wrong with its files."""
        home = self._layout.home(name)
        if not os.path.lexists(home):
            # Only where a replacement failed and could not be undone.
            raise StoreError(
                "{folder} could not be put back in its place; start the server again, which tries again",
                folder=home,
            )
        collection = self._opened_in(home)
        if collection.name != name:
            collection.abandon()
            raise StoreDamaged(
                "the folder {folder} holds the collection {name}; rename the folder to {name}",
                folder=home,
                name=collection.name,
            )
        return collection

    def _opened_in(self, home: Path) -> Collection:
        try:
            return Collection(home, self._make)
        except StoreError:
            raise
        except OSError as error:
            raise unusable(home, error) from error
        except Exception as error:
            raise StoreDamaged(
                "{path} cannot be opened ({why}); restore the collection from a backup, or move its "
                "folder away",
                path=home,
                why=f"{type(error).__name__}: {error}",
            ) from error

    def create(self, info: Info) -> Collection:
        """Create an empty collection; raises AlreadyExists, or InvalidRequest for its name."""
        name = info.name
        self.check_free(name)
        self._check_files()
        with self.reporting(name):
            self._make_in(self._layout.home(name), info)
        return self._first_opened(name)

    def _first_opened(self, name: str) -> Collection:
        """Open a collection that is new in its place, or delete it where that fails."""
        try:
            self.collections[name] = self._opened(name)
        except BaseException:
            # It was never acknowledged, and its name must be free again.
            with self.reporting(name):
                self._layout.remove(name)
            self._layout.sweep()
            raise
        return self.collections[name]

    def check_free(self, name: str) -> None:
        """Raise AlreadyExists where a collection or an alias has this name, InvalidRequest for no name."""
        check_name(name)
        self.check(name)
        if name in self.collections:
            raise AlreadyExists(f"collection {name!r} exists already", param="name")
        if name in self.aliases:
            raise AlreadyExists(
                f"{name!r} is an alias of collection {self.aliases[name]!r} already; choose another"
                f" name, or delete the alias: DELETE /aliases/{name}",
                param="name",
            )

    def _make_in(self, home: Path, info: Info) -> None:
        """Create the files of a collection, all or none."""
        with self._layout.staging() as staged:
            Documents(staged / DATABASE_FILE, info).close()
            self._layout.place(staged, home)

    def empty_index(self, dimension: int) -> VectorIndex:
        """Return the index of a collection without documents."""
        return self._make(dimension)

    def check(self, name: str) -> None:
        """Raise StoreError where the collection of this name cannot be opened."""
        if name in self.damaged:
            error = self.damaged[name]
            raise type(error)(error.sentence)

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

    @property
    def instance(self) -> str:
        """Name of this use of the folder; see `FolderLock`."""
        return self._lock.instance

    def announce(self, addresses: Sequence[str]) -> None:
        """Tell other processes the addresses at which this server answers."""
        self._lock.announce(addresses)

    def check_disk(self) -> None:
        """Raise NotReady where the next writes would not fit."""
        free = self._free_bytes()
        if free < MIN_FREE_BYTES:
            raise NotReady(
                f"{free} bytes are free on the data folder's disk, at least {MIN_FREE_BYTES} are"
                " needed; free some space",
                retry_after_s=DISK_RETRY_S,
            )

    @property
    def kept_bytes(self) -> int:
        """What a long write in the background leaves to other writes."""
        return 2 * MIN_FREE_BYTES

    def has_room(self) -> bool:
        """Return whether a long write in the background leaves enough for others."""
        return self._free_bytes() >= self.kept_bytes

    def _free_bytes(self) -> int:
        try:
            disk = os.statvfs(self.path)
        except OSError as error:
            raise NotReady(
                f"the data folder cannot be examined: {error.strerror}; check its disk",
                retry_after_s=DISK_RETRY_S,
            ) from None
        return disk.f_bavail * disk.f_frsize

    def remove(self, name: str) -> None:
        """Delete a collection with everything in it; where that fails, it stays open and whole."""
        # subtle: it is renamed while it is open. Its files stay readable, and SQLite finds no log under
        # the old name to delete when it is closed. Until then the name is taken.
        collection = self.collections[name]
        self._lock.check()
        try:
            with self.reporting(name):
                self._layout.remove(name)
        finally:
            if not self._layout.home(name).exists():
                collection.abandon()
                del self.collections[name]
                self._layout.sweep()

    # --- names ----------------------------------------------------------------------------------------

    @property
    def aliases(self) -> Mapping[str, str]:
        """The name of a collection by its alias."""
        return self._names.names.aliases

    def set_alias(self, alias: str, collection: str) -> None:
        """Let an alias, which may exist, lead to a collection; on return that is on the disk."""
        with self._naming:
            if alias not in self.aliases:
                self.check_free(alias)
                if len(self.aliases) >= MAX_ALIASES:
                    raise InvalidRequest(
                        f"there are {len(self.aliases)} aliases, at most {MAX_ALIASES} are possible;"
                        " delete one",
                        param="alias",
                    )
            with self.reporting(collection):
                self._names.write(self._names.names.with_alias(alias, collection))

    def forget_alias(self, alias: str) -> None:
        """Delete an alias; the collection stays."""
        with self.reporting(alias), self._naming:
            self._names.write(self._names.names.without_alias(alias))

    def rename(self, name: str, new: str, *, keep_alias: bool) -> None:
        """Give a collection another name, whole or not at all, while no call uses it.

        An alias of this very collection may have the new name; then it is an alias no longer.
        Afterwards it is in `collections` under the one name or the other; only if it cannot be opened
        again, it is in `damaged`.
        """
        if self.aliases.get(new) != name:
            self.check_free(new)
        self._lock.check()
        self.collections.pop(name).close()
        try:
            with self.reporting(name), self._naming:
                rename(self._layout, self._names, Renaming(name, new, keep_alias))
        except BaseException:
            self._open(name)
            raise
        self._layout.sweep()
        self._open(new)

    # --- reindexing -----------------------------------------------------------------------------------

    def successor(self, info: Info) -> Collection:
        """Return the collection that will replace the one of this name.

        An interrupted one is continued if it was made from this very collection, for the same model
        and chunks, and nothing in it is damaged. Any other is deleted.
        """
        name, source = info.name, _identity(self.collections[info.name])
        home = self._layout.successor(name, source)
        with self.reporting(name):
            found = self._resumable(home, info)
            if found is None:
                self._layout.forget_successors(name)
                self._make_in(home, info)
        self._layout.sweep()
        return found or self._opened_in(home)

    def _resumable(self, home: Path, info: Info) -> Collection | None:
        if not home.exists():
            return None
        try:
            found = self._opened_in(home)
        except StoreError as error:
            log.warning("%s cannot be continued: %s", home, error.english)
            return None
        # It will replace sound documents, so it must be sound: another process has left it.
        if found.info == info:
            faults = faults_in(found.documents)
            if not faults:
                return found
            log.warning("%s cannot be continued: %s", home, faults[0].english)
        found.abandon()
        return None

    def discard(self, successor: Collection) -> None:
        """Delete a successor, which frees its space at once."""
        name = successor.name
        successor.abandon()
        with self.reporting(name):
            self._layout.forget_successors(name)
        self._layout.sweep()

    def replace(self, successor: Collection) -> Collection:
        """Put a successor in its place, whole or not at all, while no call uses either.

        Where that fails the old collection is open again, in `collections`. Only if it cannot be opened
        either, it is in `damaged`.
        """
        self._lock.check()
        successor.close()
        return self._swap(successor.name, successor.path.parent)

    def _swap(self, name: str, new: Path) -> Collection:
        if name in self.collections:
            self.collections.pop(name).abandon()
        try:
            with self.reporting(name), self._layout.replacing(name, new):
                self.collections[name] = self._opened(name)
        except BaseException:
            self._open(name)
            raise
        self.damaged.pop(name, None)
        return self.collections[name]

    # --- restoring ------------------------------------------------------------------------------------

    def staging(self) -> AbstractContextManager[Path]:
        """Return a new folder for the block, to fill with a collection; a start deletes what a kill left."""
        return self._layout.staging()

    def staged(self) -> Path:
        """Return such a folder that the caller deletes."""
        with self.reporting("a new collection"):
            return self._layout.staged()

    def check_room(self, n_bytes: int) -> None:
        """Raise DiskFull where files of so many bytes would not leave enough to other writes."""
        free, kept = self._free_bytes(), self.kept_bytes
        if free < n_bytes + kept:
            raise DiskFull(
                "{path} has {free:,} bytes free, and {number:,} more would leave fewer than the {kept:,} that"
                " other writes need; free some space and try again",
                path=self.path,
                free=free,
                number=n_bytes,
                kept=kept,
            )

    def build_index(self, staged: Path) -> None:
        """Build the index of a collection in a staged folder, so that it opens at once later."""
        with closing(self._opened_in(staged)):
            return

    def put(self, staged: Path, name: str, *, replace: bool) -> Collection:
        """Put a staged collection in its place, whole or not at all.

        replace: whether it takes the place of another one, which no call uses; see `replace`.
        """
        self._lock.check()
        if replace:
            return self._swap(name, staged)
        self.check_free(name)
        self._check_files()
        with self.reporting(name):
            self._layout.place(staged, self._layout.home(name))
        return self._first_opened(name)

    @contextmanager
    def reporting(self, name: str) -> Iterator[None]:
        """Turn errors of the disk into StoreError; raises it before the block where DATA was moved."""
        self._lock.check()
        try:
            yield
        except OSError as error:
            raise unusable(self._layout.home(name), error) from error

    def close(self) -> None:
        """Write snapshots and release the folder, whatever fails."""
        with ExitStack() as stack:
            stack.callback(self._lock.close)
            while self.collections:
                stack.callback(self.collections.popitem()[1].close)


def _identity(collection: Collection) -> str:
    return collection.documents.identity.hex
