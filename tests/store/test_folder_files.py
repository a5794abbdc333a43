"""What a data folder has opened it closes: a leak would end a server that runs for months."""

import errno
import fcntl
import os
import uuid
from contextlib import closing, suppress
from pathlib import Path
from typing import TextIO

import pytest

from server.errors import StoreError
from server.store.folder import DataFolder
from server.store.folder_layout import FolderLayout
from server.store.folder_lock import LOCK_FILE
from server.store.local_index.index import LocalIndex
from server.store.records import ChunkRules, Info
from tests.store.test_folder import INFO, add, filled


def opened() -> list[str]:
    """Return the paths of what this process has open."""
    found = []
    for handle in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.append(os.readlink(handle))
    return sorted(found)


def opened_below(data: Path) -> list[str]:
    """Return the files of collections that this process has open, also those that are deleted."""
    below = f"{data / 'collections'}/"
    return [path.removeprefix(below) for path in opened() if path.startswith(below)]


def test_removed_collection_has_no_file_open(tmp_path: Path) -> None:
    with closing(filled(tmp_path, "a")) as folder:
        collection = folder.collections["main"]
        assert opened_below(tmp_path)
        folder.remove("main")
        assert collection.name == "main" and opened_below(tmp_path) == []


def test_replaced_and_discarded_collections_have_no_file_open(tmp_path: Path) -> None:
    with closing(filled(tmp_path, "a")) as folder:
        old = folder.collections["main"]
        before = opened_below(tmp_path)
        discarded = folder.successor(INFO)
        add(discarded, "a")
        folder.discard(discarded)
        assert opened_below(tmp_path) == before
        successor = folder.successor(INFO)
        add(successor, "a")
        folder.replace(successor)
        assert {path.partition("/")[0] for path in opened_below(tmp_path)} == {"main"}
        assert not any("deleted" in path for path in opened_below(tmp_path))
        assert old.name == discarded.name == successor.name


def test_successor_that_is_of_no_use_has_no_file_open(tmp_path: Path) -> None:
    with closing(filled(tmp_path, "a")) as folder:
        first = folder.successor(INFO)
        first.close()
        other = folder.successor(Info("main", "model-a", 8, ChunkRules(9, 0)))
        assert not any("deleted" in path for path in opened_below(tmp_path))
        other.close()


def test_collection_under_the_name_of_another_has_no_file_open(tmp_path: Path) -> None:
    filled(tmp_path, "a").close()
    layout = FolderLayout(tmp_path)
    layout.home("main").rename(layout.home("other"))
    with closing(DataFolder(tmp_path)) as folder:
        assert list(folder.damaged) == ["other"] and opened_below(tmp_path) == []


def test_start_that_is_interrupted_releases_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        filled(tmp_path, "x", name=name).close()
    load, paths = LocalIndex.load, list[Path]()

    def interrupted(path: Path, dimension: int, identity: uuid.UUID) -> LocalIndex:
        paths.append(path)
        if len(paths) == 2:
            raise KeyboardInterrupt
        return load(path, dimension, identity)

    monkeypatch.setattr(LocalIndex, "load", interrupted)
    # The traceback, which keeps the folder in memory, is not gone before the next start.
    with pytest.raises(KeyboardInterrupt) as interrupt:
        DataFolder(tmp_path)
    monkeypatch.undo()
    DataFolder(tmp_path).close()
    assert opened_below(tmp_path) == [] and len(paths) == 2
    assert interrupt.traceback


def test_folder_in_use_is_not_kept_open(tmp_path: Path) -> None:
    with closing(DataFolder(tmp_path)):
        before = opened()
        with pytest.raises(StoreError, match="in use") as refusal:
            DataFolder(tmp_path)
        assert opened() == before and refusal.traceback


def test_folder_that_cannot_be_locked_is_not_kept_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock

    def flock_files_only(file: int | TextIO, operation: int) -> None:
        if isinstance(file, int):
            raise OSError(errno.ENOTSUP, "Operation not supported")
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock_files_only)
    with closing(DataFolder(tmp_path)):
        assert [path for path in opened() if path.startswith(str(tmp_path))] == [
            str(tmp_path / LOCK_FILE)
        ]
