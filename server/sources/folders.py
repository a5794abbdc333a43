"""The files of a folder that are read, at any depth, in the order of their paths."""

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from server.errors import BadSettings
from server.sources.decoding import escaped, reading, shown_name
from server.sources.notes import Notes, Reason
from server.sources.office.formats import LOCK_PREFIX, advice

# Of one folder. The paths of a million files take some 200 MB.
MOST_FILES = 1_000_000


@dataclass(frozen=True, slots=True)
class Choice:
    """Which files of a folder are read, by their paths in it.

    known: whether a file has a format that is read. takes: whether it was selected. prunes: whether a
    folder is left out with all that is in it.
    """

    known: Callable[[str], bool]
    takes: Callable[[str], bool]
    prunes: Callable[[str], bool]


# Called with a folder that cannot be listed, by its path, and the error.
Unlisted = Callable[[str, OSError], None]


@dataclass(frozen=True, slots=True)
class Listed:
    """The paths of files within a folder, in order, and the bytes of all of them together."""

    names: list[str]
    n_bytes: int


def list_folder(folder: Path, choice: Choice, notes: Notes, unlisted: Unlisted) -> Listed:
    """Return the files of a folder, each once; raises BadSettings where the folder cannot be listed.

    A link is followed within the folder only, so a folder from elsewhere cannot make other files of
    this machine searchable. What is reached without links keeps its own path. The rest has the path
    of the first link to it. That is how Kubernetes mounts a ConfigMap: a.txt -> ..data/a.txt, where
    ..data -> a hidden folder.
    """
    with reading(str(folder)):
        walk = _Walk(folder, choice, notes, unlisted)
        walk.run()
    names = sorted(walk.found.values())
    _check_ids(folder, names)
    return Listed(names, walk.n_bytes)


@dataclass(slots=True)
class _Walk:
    """One pass through a folder; found: paths within the folder, by the paths without links."""

    folder: Path
    choice: Choice
    notes: Notes
    unlisted: Unlisted
    found: dict[str, str] = field(default_factory=dict)
    n_bytes: int = 0

    def run(self) -> None:
        root = os.path.realpath(self.folder)
        folders, seen = deque([""]), set[str]()
        while folders:
            links: list[str] = []
            while folders:
                place = folders.popleft()
                real = os.path.realpath(self.folder / place)
                if real not in seen:
                    seen.add(real)
                    inner, more = self._inside(place, real)
                    folders += inner
                    links += more
            for link in sorted(links):
                real, path = os.path.realpath(self.folder / link), self.folder / link
                if os.path.commonpath((root, real)) != root or not path.exists():
                    if self.choice.known(link) or path.is_dir():
                        self.notes.skip("link", shown_name(path))
                elif path.is_dir():
                    folders.append(link)
                elif path.is_file():
                    self._add(link, real, path.stat().st_size)

    def _inside(self, place: str, real: str) -> tuple[list[str], list[str]]:
        """Do what `_enter` does; report a folder in the folder that cannot be listed."""
        try:
            return self._enter(place, real)
        except FileNotFoundError as error:
            # Removed since its name was read.
            if not place:
                raise error
        except OSError as error:
            if not place:
                raise
            self.unlisted(escaped(place), error)
        return [], []

    def _enter(self, place: str, real: str) -> tuple[list[str], list[str]]:
        """Add the files of a folder; return the folders and the links in it."""
        folders, links = list[str](), list[str]()
        with os.scandir(self.folder / place) as entries:
            for entry in entries:
                path = f"{place}/{entry.name}" if place else entry.name
                if entry.name.startswith((".", LOCK_PREFIX)):
                    self.notes.skip("hidden", self._shown(path))
                elif entry.is_symlink():
                    links.append(path)
                elif entry.is_dir():
                    if self.choice.prunes(path):
                        self.notes.skip("excluded", self._shown(path))
                    else:
                        folders.append(path)
                elif entry.is_file():
                    self._add(path, f"{real}/{entry.name}", entry.stat().st_size)
        return folders, links

    def _add(self, path: str, real: str, size: int) -> None:
        if not self.choice.takes(path):
            self.notes.skip("excluded", self._shown(path))
        elif not self.choice.known(path):
            reason: Reason = "old" if advice(PurePosixPath(path).suffix) else "format"
            self.notes.skip(reason, self._shown(path))
        elif real not in self.found:
            self.found[real] = path
            self.n_bytes += size
            if len(self.found) > MOST_FILES:
                raise BadSettings(
                    "{name} has more than {most:,} files; index its folders one at a time",
                    name=shown_name(self.folder),
                    most=MOST_FILES,
                )

    def _shown(self, path: str) -> str:
        return shown_name(self.folder / path)


def _check_ids(folder: Path, names: list[str]) -> None:
    """Refuse two names that are the same once bytes that are not UTF-8 are escapes."""
    odd = [name for name in names if not name.isascii() and escaped(name) != name]
    if not odd:
        return
    plain = set(names)
    for name in odd:
        if escaped(name) in plain:
            raise BadSettings(
                "two files would be the document {name}, one of them with bytes that are not UTF-8 in "
                "its name; rename it",
                name=shown_name(folder / name),
            )
        plain.add(escaped(name))
