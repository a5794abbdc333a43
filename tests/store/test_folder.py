"""Collections of a data folder: created, replaced, removed, and served beside damaged ones."""

import shutil
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.errors import AlreadyExists, InvalidRequest, StoreDamaged, StoreError
from server.store.collection import DATABASE_FILE, Collection
from server.store.folder import DataFolder
from server.store.records import ChunkRules, Document, Info
from server.store.search import Query, search
from server.types import Vectors

D = 8
INFO = Info("main", "model-a", D)
OTHER = Info("main", "model-b", D)


def vector_of(id: str) -> Vectors:
    return np.random.default_rng(zlib.crc32(id.encode())).standard_normal(D, dtype=np.float32)


def add(collection: Collection, *ids: str) -> None:
    vectors = np.array([vector_of(id) for id in ids], dtype=np.float32).reshape(len(ids), D)
    collection.add([Document(id, f"text of {id}") for id in ids], vectors)


def check_holds(collection: Collection, *ids: str) -> None:
    """Check that the collection is open and holds exactly these documents with their vectors."""
    assert sorted(collection.documents.ids()) == sorted(ids)
    for id in ids:
        (hits,) = search(collection, [Query("dense", 1, vector_of(id))])
        assert hits[0].id == id and hits[0].score == pytest.approx(1, abs=1e-3)


def filled(data: Path, *ids: str, name: str = "main") -> DataFolder:
    """Return a folder whose collection holds these documents."""
    folder = DataFolder(data)
    add(folder.create(Info(name, "model-a", D)), *ids)
    return folder


def entries(data: Path) -> list[str]:
    return sorted(path.name for path in (data / "collections").iterdir())


# --- names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "Laws_2020.v1-x", "x" * 64, "_.."])
def test_names_that_are_allowed(tmp_path: Path, name: str) -> None:
    folder = DataFolder(tmp_path)
    assert folder.create(Info(name, "model-a", D)).name == name
    folder.close()


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".next-a", "a/b", "../x", "a b", "法 律", "x" * 65, "a\n", "\0"]
)
def test_names_that_are_refused(tmp_path: Path, name: str) -> None:
    folder = DataFolder(tmp_path)
    with pytest.raises(InvalidRequest, match="1 to 64"):
        folder.create(Info(name, "model-a", D))
    assert not list((tmp_path / "collections").iterdir())
    folder.close()


@pytest.mark.parametrize("in_the_way", ["data", "data/lock/x", "data/collections"])
def test_a_folder_that_cannot_be_used_is_reported(tmp_path: Path, in_the_way: str) -> None:
    path = tmp_path / in_the_way
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("in the way", encoding="utf-8")
    with pytest.raises(StoreError) as failure:
        DataFolder(tmp_path / "data")
    assert "cannot be used" in failure.value.english
    assert "无法使用" in failure.value.chinese


def test_collections_of_one_folder_are_apart(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    for name in ("laws", "news"):
        made = folder.create(Info(name, "model-a", D))
        made.add([Document(name, name)], vector_of(name)[None])
    folder.close()
    again = DataFolder(tmp_path)
    assert sorted(again.collections) == ["laws", "news"]
    for name, collection in again.collections.items():
        assert (collection.name, collection.count) == (name, 1)
        assert collection.documents.ids() == [name]
    again.remove("laws")
    assert [path.name for path in (tmp_path / "collections").iterdir()] == ["news"]
    again.close()


def test_a_name_is_used_once(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    folder.create(Info("laws", "model-a", D))
    with pytest.raises(AlreadyExists, match="'laws'"):
        folder.create(Info("laws", "model-a", D))
    folder.close()


def test_folder_under_another_name_is_reported_until_it_is_renamed_back(tmp_path: Path) -> None:
    filled(tmp_path, "a").close()
    home = tmp_path / "collections" / "main"
    renamed = home.rename(home.with_name("other"))
    folder = DataFolder(tmp_path)
    with pytest.raises(StoreDamaged) as failure:
        folder.check("other")
    for message in (failure.value.english, failure.value.chinese):
        assert str(renamed) in message and "main" in message
    folder.close()
    renamed.rename(home)
    folder = DataFolder(tmp_path)
    check_holds(folder.collections["main"], "a")
    folder.close()


def test_folders_of_other_names_are_left_alone(tmp_path: Path) -> None:
    filled(tmp_path, "a").close()
    homes = tmp_path / "collections"
    names = [".next-", ".removed-x", ".removed-" + "A" * 32, ".new-1", "my copy", ".replaced-"]
    for name in names:
        shutil.copytree(homes / "main", homes / name)
    folder = DataFolder(tmp_path)
    assert list(folder.collections) == ["main"] and not folder.damaged
    folder.remove("main")
    folder.close()
    assert entries(tmp_path) == sorted(names)


def test_log_of_another_database_is_never_taken_over(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    home = tmp_path / "collections" / "main"
    home.mkdir()
    log = home / f"{DATABASE_FILE}-wal"
    log.write_bytes(b"of another")
    with pytest.raises(StoreError, match="not empty"):
        folder.create(INFO)
    folder.close()
    assert entries(tmp_path) == ["main"] and log.read_bytes() == b"of another"
    folder = DataFolder(tmp_path)
    with pytest.raises(StoreDamaged, match="is missing"):
        folder.create(INFO)
    folder.close()
    assert [path.name for path in home.iterdir()] == [log.name]


# --- damage -----------------------------------------------------------------------------------------


def sql(statement: str) -> Callable[[Path], None]:
    def change(home: Path) -> None:
        with closing(sqlite3.connect(home / DATABASE_FILE)) as database, database:
            database.execute(statement)

    return change


def written(content: bytes) -> Callable[[Path], object]:
    return lambda home: (home / DATABASE_FILE).write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no database": lambda home: (home / DATABASE_FILE).unlink(),
    "empty": written(b""),
    "no SQLite": written(b"\xff" * 4096),
    "version 0": sql("PRAGMA user_version = 0"),
    "version 5": sql("PRAGMA user_version = 5"),
    "no description": sql("DELETE FROM meta"),
    "no identity": sql("DELETE FROM meta WHERE key = 'identity'"),
    "chunks of no shape": sql("UPDATE meta SET value = '{}' WHERE key = 'chunks'"),
    "no table": sql("DROP TABLE parts"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_one_damaged_collection_keeps_no_other_from_being_served_and_is_not_changed(
    tmp_path: Path, damage: str
) -> None:
    folder = filled(tmp_path, "a")
    add(folder.create(Info("sound", "model-a", D)), "b")
    folder.close()
    home = tmp_path / "collections" / "main"
    DAMAGE[damage](home)
    before = {path.name: path.read_bytes() for path in home.iterdir()}
    for _ in range(2):
        folder = DataFolder(tmp_path)
        check_holds(folder.collections["sound"], "b")
        assert list(folder.damaged) == ["main"]
        with pytest.raises(StoreError, match="main"):
            folder.create(INFO)
        folder.close()
        assert {path.name: path.read_bytes() for path in home.iterdir()} == before


def test_what_belongs_to_a_damaged_collection_is_kept(tmp_path: Path) -> None:
    folder = filled(tmp_path, "a")
    folder.successor(OTHER).close()
    folder.close()
    home = tmp_path / "collections" / "main"
    shutil.copytree(home, home.with_name(".replaced-main"))
    DAMAGE["version 0"](home)
    before = entries(tmp_path)
    DataFolder(tmp_path).close()
    assert entries(tmp_path) == before and len(before) == 3


def test_closing_goes_on_where_one_collection_cannot_be_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = filled(tmp_path, "a")
    add(folder.create(Info("other", "model-a", D)), "b")

    def refuse() -> None:
        raise StoreError("the disk does not work: check it, and the free space and quota")

    monkeypatch.setattr(folder.collections["main"], "close", refuse)
    monkeypatch.setattr(folder.collections["other"], "close", refuse)
    with pytest.raises(StoreError, match="disk does not work"):
        folder.close()
    DataFolder(tmp_path).close()


# --- successors -------------------------------------------------------------------------------------


def test_a_successor_takes_the_place_whole(tmp_path: Path) -> None:
    folder = filled(tmp_path, "a", "b")
    half = folder.successor(OTHER)
    half.add([Document("a", "new")], vector_of("a")[None], notes={"far": "1"})
    half.close()
    folder.close()
    folder = DataFolder(tmp_path)
    check_holds(folder.collections["main"], "a", "b")
    successor = folder.successor(OTHER)
    assert successor.documents.noted("far") == "1", "taken up where it stopped"
    replaced = folder.replace(successor)
    assert replaced.info == OTHER
    check_holds(replaced, "a")
    folder.close()
    assert entries(tmp_path) == ["main"]


@pytest.mark.parametrize(
    "info",
    [
        Info("main", "model-c", D, ChunkRules(20, 2)),
        Info("main", "model-b", 2 * D, ChunkRules(20, 2)),
        Info("main", "model-b", D, ChunkRules(20, 3)),
        Info("main", "model-b", D, ChunkRules(30, 2)),
        Info("main", "model-b", D, None),
    ],
)
def test_successor_for_another_model_or_other_chunks_starts_from_nothing(
    tmp_path: Path, info: Info
) -> None:
    folder = filled(tmp_path)
    first = folder.successor(Info("main", "model-b", D, ChunkRules(20, 2)))
    add(first, "a")
    first.close()
    second = folder.successor(info)
    assert (second.count, second.info) == (0, info)
    second.close()
    folder.close()
    assert len(entries(tmp_path)) == 2


def test_successor_goes_with_its_collection_and_is_never_of_another(tmp_path: Path) -> None:
    folder = filled(tmp_path, "deleted")
    add(half := folder.successor(OTHER), "deleted")
    half.close()
    (left,) = [name for name in entries(tmp_path) if name.startswith(".next-")]
    kept = shutil.copytree(tmp_path / "collections" / left, tmp_path / "kept")
    folder.remove("main")
    assert entries(tmp_path) == []
    add(folder.create(INFO), "new")
    # As if its removal had been interrupted.
    shutil.copytree(kept, tmp_path / "collections" / left)
    successor = folder.successor(OTHER)
    assert successor.count == 0 and left not in entries(tmp_path)
    successor.close()
    shutil.copytree(kept, tmp_path / "collections" / left)
    folder.close()
    folder = DataFolder(tmp_path)
    assert left not in entries(tmp_path) and len(entries(tmp_path)) == 2
    check_holds(folder.collections["main"], "new")
    folder.close()


def test_complete_successor_of_a_removed_collection_never_takes_its_place(tmp_path: Path) -> None:
    folder = filled(tmp_path, "a")
    add(half := folder.successor(OTHER), "a")
    half.close()
    folder.close()
    homes = tmp_path / "collections"
    (homes / "main").rename(homes / f".removed-{'0' * 32}")
    folder = DataFolder(tmp_path)
    assert not folder.collections and entries(tmp_path) == []
    folder.close()


def test_what_a_replacement_could_not_delete_goes_with_its_collection(tmp_path: Path) -> None:
    folder = filled(tmp_path, "a")
    homes = tmp_path / "collections"
    shutil.copytree(homes / "main", homes / ".replaced-main")
    folder.remove("main")
    assert entries(tmp_path) == []
    add(folder.create(INFO), "b")
    shutil.copytree(homes / "main", homes / ".replaced-main")
    check_holds(folder.replace(folder.successor(OTHER)))
    assert entries(tmp_path) == ["main"]
    folder.close()


def test_damaged_successor_is_made_again(tmp_path: Path) -> None:
    folder = filled(tmp_path, "a")
    half = folder.successor(OTHER)
    half.close()
    half.path.write_bytes(b"")
    again = folder.successor(OTHER)
    assert again.count == 0 and again.path == half.path
    folder.discard(again)
    assert entries(tmp_path) == ["main"]
    folder.close()


@pytest.mark.parametrize("error", [StoreError("none"), MemoryError(), OSError(24, "many files")])
def test_successor_that_cannot_be_opened_leaves_the_old_collection_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    folder = filled(tmp_path, "a")
    add(successor := folder.successor(OTHER), "a", "b")

    def refuse_once(*given: Any) -> Collection:
        monkeypatch.undo()
        raise error

    monkeypatch.setattr("server.store.folder.Collection", refuse_once)
    with pytest.raises(StoreError):
        folder.replace(successor)
    add(folder.collections["main"], "c")
    check_holds(folder.collections["main"], "a", "c")
    check_holds(folder.replace(folder.successor(OTHER)), "a", "b")
    folder.close()


def test_collection_that_cannot_be_opened_once_created_leaves_its_name_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = DataFolder(tmp_path)

    def refuse_once(*given: Any) -> Collection:
        monkeypatch.undo()
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("server.store.folder.Collection", refuse_once)
    with pytest.raises(StoreError, match="Too many open files"):
        folder.create(INFO)
    assert entries(tmp_path) == [] and not folder.collections
    add(folder.create(INFO), "a")
    folder.close()
