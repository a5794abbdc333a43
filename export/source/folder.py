"""A model's folder: its files by their names, and the hash of all that was read of them."""

import hashlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from export.errors import UnsupportedModel
from export.source.file import (
    MOST_SETTINGS,
    MOST_TABLE,
    check_file,
    check_size,
    exists,
    read_file,
)
from export.source.json_file import parse_json, parse_object, shown
from server.messages.message import Message
from server.types import Task

# Names that a listing of a folder has at most.
MOST_NAMES = 10_000


class ModelFolder:
    """The files of a model; names are relative to `root`, with slashes.

    What is read is remembered, so that nothing can decide what an artifact holds and be missing from
    its hash. The JSON files and the vocabulary beside it are in the hash in any case. place: what messages
    call the model.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.place: Path | str = root
        # Name -> sha256 in hexadecimal; None for a file that is hashed when the hash is asked for.
        self._read: dict[str, str | None] = {}
        for pattern in ("*.json", "vocab.txt"):
            self.note(pattern, MOST_TABLE)

    def path(self, name: str) -> Path:
        return self.root / name

    def has(self, name: str) -> bool:
        """Return whether there is something of this name, be it a file or not."""
        return exists(self.path(name))

    def names(self) -> Collection[str]:
        """Return the names of the files in the folder and in the folders in it, none that is hidden."""
        found: list[str] = []
        for folder in (self.root, *_folders(self.root)):
            for path in _entries(folder):
                if len(found) < MOST_NAMES and not path.is_dir():
                    found.append(path.relative_to(self.root).as_posix())
        return found

    def json(self, name: str) -> dict[str, Any]:
        """Return the JSON object in a file; raises an ExportError for anything else."""
        return parse_object(self.path(name), self.content(name, MOST_SETTINGS))

    def optional_json(self, name: str) -> dict[str, Any]:
        """Return the JSON object in a file, or an empty one where there is no file."""
        return self.json(name) if self.has(name) else {}

    def json_value(self, name: str, most: int = MOST_TABLE) -> Any:
        """Return the JSON value of any type in a file; raises an ExportError."""
        return parse_json(self.path(name), self.content(name, most))

    def content(self, name: str, most: int) -> bytes:
        """Return the bytes of a file of up to `most` bytes; raises an ExportError."""
        content = read_file(self.path(name), most)
        self._read[name] = hashlib.sha256(content).hexdigest()
        return content

    def file(self, name: str) -> Path:
        """Return the path of a regular file that another reader opens; raises an ExportError."""
        check_file(self.path(name))
        self._read.setdefault(name, None)
        return self.path(name)

    def notes(self, task: Task) -> tuple[Message, ...]:
        """Return what an export of a task should tell of the files."""
        return ()

    def check_tokens(self, tokenizer_json: str) -> None:
        """Do nothing: a folder has one list of tokens, that of its tokenizer."""

    def note(self, pattern: str, most: int | None = None) -> None:
        """Let the hash cover the regular files that match `pattern`, read or not.

        most: bytes that each may have. Raises CorruptFile for a larger one, which may be endless: a
        sparse file of a terabyte takes no room.
        """
        for path in self.root.glob(pattern):
            if path.is_file():
                check_size(path, most)
                self._read.setdefault(path.relative_to(self.root).as_posix(), None)

    def check_inside(self, named_by: str, folder: str) -> None:
        """Refuse a folder that is a link to a place outside this one."""
        root, place = os.path.realpath(self.root), os.path.realpath(self.path(folder))
        if os.path.commonpath((root, place)) != root:
            raise UnsupportedModel(
                "{path} names {shown}, a link that leaves the model's folder",
                path=self.path(named_by),
                shown=shown(folder),
            )

    def sha256(self) -> str:
        """Return one hash over the names and contents of all files that were read."""
        digest = hashlib.sha256()
        for name in sorted(self._read, key=lambda each: PurePosixPath(each).parts):
            known = self._read[name]
            digest.update(os.fsencode(name) + b"\0")
            digest.update(bytes.fromhex(known) if known else _hash_of(self.path(name)))
        return digest.hexdigest()


class CollectedFiles(ModelFolder):
    """Files of a model that lie in different places, as if they were in one folder.

    places: by the files' names. names: of all files that the model has, here or not. place: what messages
    call the model.
    """

    def __init__(
        self, root: Path, places: Mapping[str, Path], names: Collection[str], place: str
    ) -> None:
        super().__init__(root)
        self.place = place
        self._places, self._names = places, names

    def path(self, name: str) -> Path:
        return self._places.get(name, self.root / name)

    def has(self, name: str) -> bool:
        return name in self._places

    def names(self) -> Collection[str]:
        return self._names

    def check_inside(self, named_by: str, folder: str) -> None:
        """Do nothing: no file here is found by following a folder's name."""


def _folders(root: Path) -> list[Path]:
    return [path for path in _entries(root) if path.is_dir() and not path.is_symlink()]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []


def _hash_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
