"""Folders of collections: what their names mean, and how they move so that a kill loses nothing.

DATA/collections/
    NAME                 a collection, always whole
    .new-HEX             a collection that is being created or restored
    .next-SOURCE-NAME    the successor of NAME that a reindex fills; SOURCE is the identity of the database
                         that it copies from
    .next-NAME           a successor that an older version has left; it is never continued
    .replaced-NAME       the collection NAME, while another one takes its place
    .removed-HEX         what is being deleted

HEX and SOURCE are 32 hexadecimal digits; `collection_name` says what NAME can be. Names of any other form are
never touched.

How this works. Folders are filled elsewhere and change by renames only. The parent is synced after each
rename, before the next step, so that a power cut leaves what a kill leaves. No step depends on what a
file seems to hold: a name says what a folder is. The steps, and what a start does after a kill:

create   1 fill .new-HEX, and sync it        a start deletes .new-HEX: it was never acknowledged
         2 .new-HEX to NAME                  the collection is there, empty

remove   1 .replaced-NAME to .removed-HEX    the collection is there as before
         2 .next-*-NAME to .removed-HEX      the collection is there; a reindex would begin again
         3 NAME to .removed-HEX              a start deletes .removed-HEX; nothing can bring it back, since
                                             only a .replaced-NAME ever becomes NAME again
         4 delete .removed-HEX               a start continues

replace  1 NAME to .replaced-NAME            NAME is missing: a start puts .replaced-NAME back. The new one
                                             is a successor still, which the next reindex continues, or a
                                             .new-HEX of a restore that was not acknowledged
         2 new one to NAME, and open it      NAME is there: a start opens it, and then deletes
                                             .replaced-NAME. If it cannot be opened, both are kept
         3 .replaced-NAME to .removed-HEX    a start deletes .removed-HEX

rename   1 NAME to another NAME              `naming.renaming` has the steps around it

A step that fails undoes those before it. A successor counts only for the database that it was made from:
if NAME was removed, restored or created again meanwhile, its identity is another one, and a start and
the next reindex delete the successor. While NAME cannot be opened, its successor is kept.
"""

import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from server.store.collection import DATABASE_FILE
from server.store.collection_name import folder_name, is_name, name_of
from server.store.folder_lock import COLLECTIONS
from server.store.upkeep.database_file import peek
from server.system.atomic_file import sync_folder, sync_tree

# What `is_name` accepts of it.
NAME = re.compile(r"(?P<name>.+)")
HEX = "[0-9a-f]{32}"
NEW = re.compile(rf"\.new-{HEX}")
NEXT = re.compile(rf"\.next-(?P<source>{HEX})-{NAME.pattern}")
REPLACED = re.compile(rf"\.replaced-{NAME.pattern}")
REMOVED = re.compile(rf"\.removed-{HEX}")
# A successor of an older version, which did not note what it was made from.
OLD_NEXT = re.compile(rf"\.next-(?!{HEX}-){NAME.pattern}")
OLD_COMPLETE = "SELECT 1 FROM meta WHERE key = 'complete'"

log = logging.getLogger(__name__)


class FolderLayout:
    """The folders in DATA/collections; only the process that holds the lock of DATA may move them.

    Methods raise OSError where the disk fails; what they were about to change is then unchanged.
    """

    def __init__(self, data: Path, folder: str = COLLECTIONS) -> None:
        """Take the data folder. folder: the one in it that holds these; others have the same steps."""
        self.path = data / folder

    def prepare(self) -> None:
        """Create the folder if it is missing, and undo a replacement that was interrupted."""
        if not self.path.is_dir():
            self.path.mkdir(exist_ok=True)
            sync_folder(self.path.parent)
        for old, found in self._like(REPLACED):
            if not self.home(found["name"]).exists():
                _move(old, self.home(found["name"]))
        self._finish_old_replacements()

    def _finish_old_replacements(self) -> None:
        """Finish a replacement that an older version had begun: it moved the old collection away first."""
        for new, found in self._like(OLD_NEXT):
            home = self.home(found["name"])
            if not os.path.lexists(home) and self._like(REMOVED) and _is_complete(new):
                _move(new, home)

    def home(self, name: str) -> Path:
        """Return the folder of a collection."""
        return self.path / folder_name(name)

    def names(self) -> list[str]:
        """Return the names of all collections, also of damaged ones."""
        # A link counts, wherever it leads: a disk that is not mounted must not hide a collection.
        found = self._like(NAME)
        return sorted(each["name"] for path, each in found if path.is_symlink() or path.is_dir())

    # --- creating -----------------------------------------------------------------------------------

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Yield a new folder to fill; it is deleted at the end of the block unless it was moved."""
        staged = self.staged()
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def staged(self) -> Path:
        """Return a new folder to fill, which the caller deletes or moves; a start deletes it after a kill."""
        staged = self.path / f".new-{uuid.uuid4().hex}"
        staged.mkdir()
        return staged

    def place(self, staged: Path, home: Path) -> None:
        """Make a staged folder the folder `home`, which must not exist."""
        sync_tree(staged)
        _move(staged, home)

    # --- replacing and removing ---------------------------------------------------------------------

    @contextmanager
    def replacing(self, name: str, new: Path) -> Iterator[None]:
        """Put the folder `new` in the place of a collection; back again if the block raises.

        No file of either may be open. The block opens the new one; then the old one is deleted.
        """
        home, old = self.home(name), self.path / folder_name(f".replaced-{name}")
        sync_tree(new)
        self._retire(old)
        with _moved(home, old), _moved(new, home):
            yield
        try:
            self._retire(old)
            self.forget_successors(name)
            self.sweep()
        except OSError as error:
            # The new one is in its place. What is left is deleted at the next start.
            log.warning("%s cannot be deleted now: %s", old, error.strerror)

    def remove(self, name: str) -> None:
        """Remove a collection and all that belongs to it; the caller closes it and calls `sweep`."""
        self._retire(self.path / folder_name(f".replaced-{name}"))
        self.forget_successors(name)
        self._retire(self.home(name))

    @contextmanager
    def renaming(self, old: str, new: str) -> Iterator[Path]:
        """Rename the folder of a collection, and yield its new path; back again if the block raises."""
        # subtle: a start would put it back where no folder has the old name.
        self._retire(self.path / folder_name(f".replaced-{old}"))
        self.forget_successors(old)
        with _moved(self.home(old), self.home(new)):
            yield self.home(new)

    def _retire(self, folder: Path) -> None:
        """Move a folder to where it is deleted, also after a kill; nothing where there is none."""
        if folder.exists():
            _move(folder, self.path / f".removed-{uuid.uuid4().hex}")

    def sweep(self) -> None:
        """Delete the files of removed collections."""
        for removed, _ in self._like(REMOVED):
            shutil.rmtree(removed, ignore_errors=True)
            if removed.exists():
                log.warning("%s cannot be deleted; delete it by hand", removed)

    # --- successors ---------------------------------------------------------------------------------

    def successor(self, name: str, source: str) -> Path:
        """Return the folder of the successor that is made from a collection with this identity."""
        return self.path / folder_name(f".next-{source}-{name}")

    def successors(self, name: str) -> list[Path]:
        """Return all successors of a collection, whatever they were made from."""
        every = [*self._like(NEXT), *self._like(OLD_NEXT)]
        return [path for path, found in every if found["name"] == name]

    def forget_successors(self, name: str) -> None:
        """Remove the successors of a collection; `sweep` deletes the files."""
        for path in self.successors(name):
            self._retire(path)

    # --- at the start -------------------------------------------------------------------------------

    def clean(self, identities: Mapping[str, str]) -> None:
        """Delete what an earlier process did not finish; collections are open by now.

        identities: of the open collections by name. What belongs to one that cannot be opened is
        kept.
        """
        for staged, _ in self._like(NEW):
            self._retire(staged)
        for old, found in self._like(REPLACED):
            if found["name"] in identities:
                self._retire(old)
        names = self.names()
        for path, found in self._like(NEXT):
            name, source = found["name"], found["source"]
            if name not in names or identities.get(name, source) != source:
                self._retire(path)
        for path, found in self._like(OLD_NEXT):
            if found["name"] in identities or found["name"] not in names:
                self._retire(path)
        self.sweep()

    def _like(self, form: re.Pattern[str]) -> list[tuple[Path, re.Match[str]]]:
        """Return the paths whose whole names have a form, with the match."""
        if not self.path.exists():
            return []
        found = ((path, form.fullmatch(name_of(path.name) or "")) for path in self.path.iterdir())
        return [
            (path, match)
            for path, match in found
            if match is not None and is_name(match.groupdict().get("name", "-"))
        ]


def _is_complete(old_successor: Path) -> bool:
    try:
        return bool(peek(old_successor / DATABASE_FILE, OLD_COMPLETE))
    except Exception:
        return False  # a damaged file may raise anything; it stays where it is


def _move(source: Path, target: Path) -> None:
    """Rename a folder, and return when the new name is on the disk."""
    source.rename(target)
    try:
        sync_folder(target.parent)
    except BaseException:
        with suppress(OSError):
            target.rename(source)
        raise


@contextmanager
def _moved(source: Path, target: Path) -> Iterator[None]:
    """Rename a folder; back again if the block raises."""
    _move(source, target)
    try:
        yield
    except BaseException:
        _move(target, source)
        raise
