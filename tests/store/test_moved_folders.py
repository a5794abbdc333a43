"""Data folders that people move, link or upgrade: nothing of another folder is used or removed."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from server.errors import StoreDamaged, StoreError
from server.store.collection import DATABASE_FILE, SNAPSHOT_FILE
from server.store.folder import DataFolder
from server.store.records import Info
from server.store.upkeep.maintenance import check
from tests.store.test_folder import add, check_holds, entries, filled

MOVED = "moved while it was in use"
NEXT = Info("main", "model-b", 8)


def test_two_folders_that_share_their_collections_are_not_served_at_once(tmp_path: Path) -> None:
    with closing(filled(tmp_path / "one", "a")):
        (tmp_path / "two").mkdir()
        (tmp_path / "two" / "collections").symlink_to(tmp_path / "one" / "collections")
        with pytest.raises(StoreError, match="in use by process"):
            DataFolder(tmp_path / "two")
    with closing(DataFolder(tmp_path / "two")) as folder:
        check_holds(folder.collections["main"], "a")


@pytest.mark.parametrize("moved", ["data", "data/collections"])
def test_a_folder_that_was_moved_leaves_the_one_in_its_place_alone(
    tmp_path: Path, moved: str
) -> None:
    data = tmp_path / "data"
    with closing(filled(data, "a")) as first:
        successor = first.successor(NEXT)
        os.rename(tmp_path / moved, tmp_path / "moved")
        shutil.copytree(tmp_path / "moved", tmp_path / moved)
        before = entries(data)
        for change in (
            lambda: first.remove("main"),
            lambda: first.create(Info("new", "model-a", 8)),
            lambda: first.successor(NEXT),
            lambda: first.discard(successor),
            lambda: first.replace(successor),
        ):
            with pytest.raises(StoreError, match=MOVED):
                change()
        assert entries(data) == before
        assert list(first.collections) == ["main"]
        add(first.collections["main"], "b")
    # Nor is its snapshot written there.
    assert not (data / "collections" / "main" / SNAPSHOT_FILE).exists()
    (tmp_path / "again").mkdir()
    shutil.move(tmp_path / "moved", tmp_path / "again" / Path(moved).name)
    with closing(
        DataFolder(tmp_path / "again" / "data" if moved == "data" else tmp_path / "again")
    ) as found:
        check_holds(found.collections["main"], "a", "b")


def test_a_link_that_leads_nowhere_is_a_damaged_collection(tmp_path: Path) -> None:
    filled(tmp_path, "a").close()
    (tmp_path / "collections" / "laws").symlink_to(tmp_path / "not mounted")
    with closing(DataFolder(tmp_path)) as folder:
        assert list(folder.collections) == ["main"]
        assert "is missing" in folder.damaged["laws"].english
    assert not check(tmp_path, None, lambda _: None)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_a_snapshot_that_is_no_file_only_makes_the_start_longer(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    filled(tmp_path, "a").close()
    snapshot = tmp_path / "collections" / "main" / SNAPSHOT_FILE
    snapshot.unlink()
    make(snapshot)
    with closing(DataFolder(tmp_path)) as folder:
        check_holds(folder.collections["main"], "a")


# --- a successor that an earlier process has left -----------------------------------------------------

DAMAGE = {
    "a text": "UPDATE documents SET text = 'other' WHERE id = 'a'",
    "a chunk": "DELETE FROM parts WHERE document = 1",
    "what filters read": "INSERT INTO attributes VALUES ('tenant', 'x', 1)",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_successor_never_replaces_sound_documents(tmp_path: Path, damage: str) -> None:
    with closing(filled(tmp_path, "a", "b")) as folder:
        successor = folder.successor(NEXT)
        add(successor, "a", "b")
        successor.abandon()
        with closing(sqlite3.connect(successor.path)) as other, other:
            other.execute(damage)
        again = folder.successor(NEXT)
        assert again.count == 0
        again.abandon()


def old_successor(data: Path, *, complete: bool) -> Path:
    """Make what an older version has left of a reindex of "main"."""
    with closing(filled(data, "a", "b")) as folder:
        successor = folder.successor(NEXT)
        add(successor, "a", "b")
        if complete:
            with successor.documents.transaction():
                successor.documents.note("complete", "yes")
        successor.abandon()
    old = data / "collections" / ".next-main"
    successor.path.parent.rename(old)
    return old


def test_the_replacement_that_an_older_version_began_is_finished(tmp_path: Path) -> None:
    old_successor(tmp_path, complete=True)
    (tmp_path / "collections" / "main").rename(tmp_path / "collections" / f".removed-{'0' * 32}")
    with closing(DataFolder(tmp_path)) as folder:
        assert folder.collections["main"].info == NEXT
        check_holds(folder.collections["main"], "a", "b")
    assert entries(tmp_path) == ["main"]


@pytest.mark.parametrize("complete", [True, False])
def test_a_collection_that_was_removed_does_not_return_from_an_old_successor(
    tmp_path: Path, complete: bool
) -> None:
    old_successor(tmp_path, complete=complete)
    shutil.rmtree(tmp_path / "collections" / "main")
    with closing(DataFolder(tmp_path)) as folder:
        assert not folder.collections and not folder.damaged
    assert entries(tmp_path) == []


def test_the_successor_of_an_older_version_is_deleted_beside_its_collection(tmp_path: Path) -> None:
    old = old_successor(tmp_path, complete=False)
    database = tmp_path / "collections" / "main" / DATABASE_FILE
    sound = database.read_bytes()
    database.write_bytes(b"damaged")
    with closing(DataFolder(tmp_path)) as folder:
        assert isinstance(folder.damaged["main"], StoreDamaged) and old.exists()
    database.write_bytes(sound)
    with closing(DataFolder(tmp_path)) as folder:
        check_holds(folder.collections["main"], "a", "b")
    assert entries(tmp_path) == ["main"]


def test_sizes_are_answered_where_the_folder_is_gone(tmp_path: Path) -> None:
    with closing(filled(tmp_path / "data", "a")) as folder:
        collection = folder.collections["main"]
        assert collection.bytes_on_disk() > 0
        os.rename(tmp_path / "data", tmp_path / "moved")
        assert collection.bytes_on_disk() == 0
