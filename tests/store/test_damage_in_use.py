"""Damage that shows only while a collection is opened, read or closed; no file of it is changed."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.errors import StoreDamaged, StoreError
from server.store.collection import DATABASE_FILE, Collection
from server.store.folder import INDEX, DataFolder
from server.store.schema import is_sound_chunk, is_sound_document
from server.store.search import Query, search
from server.store.upkeep.database_file import ForeignFile, copy, peek
from server.store.upkeep.integrity import faults_of
from tests.store.test_folder import add, filled

LOG_FILE = f"{DATABASE_FILE}-wal"


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A data folder whose collection has documents in its log, as a kill leaves it."""
    with closing(filled(tmp_path / "running", "a", "b")) as folder:
        writer = folder.collections["main"].documents.database.writer
        writer.execute("PRAGMA wal_checkpoint")
        add(folder.collections["main"], "c")
        return shutil.copytree(tmp_path / "running", tmp_path / "killed")


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[Collection]:
    with closing(filled(tmp_path, "a", "b")) as folder:
        yield folder.collections["main"]


def emptied(database: Path) -> None:
    database.write_bytes(b"")


def of_no_version(database: Path) -> None:
    """Change the version, and keep that in the log."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as last:
        last.execute("PRAGMA user_version").fetchone()
        with closing(sqlite3.connect(database)) as writer:
            writer.execute("PRAGMA user_version = 0")


def opened_as_a_server_does(data: Path) -> None:
    with closing(DataFolder(data)) as folder:
        assert list(folder.damaged) == ["main"]


def checked(data: Path) -> None:
    assert faults_of(data / "collections" / "main", INDEX)


@pytest.mark.parametrize("use", [opened_as_a_server_does, checked])
@pytest.mark.parametrize("damage", [emptied, of_no_version])
def test_damaged_database_and_its_log_are_not_changed(
    killed: Path, damage: Callable[[Path], None], use: Callable[[Path], None]
) -> None:
    home = killed / "collections" / "main"
    damage(home / DATABASE_FILE)
    before = {name: (home / name).read_bytes() for name in (DATABASE_FILE, LOG_FILE)}
    assert before[LOG_FILE]
    use(killed)
    assert {name: (home / name).read_bytes() for name in before} == before


@pytest.mark.parametrize(
    "read",
    [ForeignFile, lambda path: copy(path, path.parents[3] / "b"), lambda path: peek(path, "")],
)
def test_log_beside_an_empty_database_is_kept_by_what_only_reads(
    killed: Path, read: Callable[[Path], Any]
) -> None:
    path = killed / "collections" / "main" / DATABASE_FILE
    emptied(path)
    with pytest.raises(StoreDamaged, match="is empty"):
        read(path)
    assert path.with_name(LOG_FILE).stat().st_size


def test_sound_log_is_read_and_moved_at_the_end(killed: Path) -> None:
    with closing(DataFolder(killed)) as folder:
        assert folder.collections["main"].count == 3
    assert not (killed / "collections" / "main" / LOG_FILE).exists()


def test_damaged_row_of_other_types_fits_no_checksum() -> None:
    for row in (("a", "text", None, None), ("a", "text", 7, "{}"), (b"a", "text", None, "{}")):
        assert not is_sound_document(row, 0)  # type: ignore[arg-type]
    assert not is_sound_chunk(1, 0, 4, None, 0)  # type: ignore[arg-type]


def test_vector_that_is_gone_is_damage(collection: Collection) -> None:
    with pytest.raises(StoreDamaged, match="the vector of part 99"):
        collection.documents.vectors(np.array([1, 99]))


@pytest.mark.parametrize("place", ["begin = -1", "end = 1000", "begin = 3, end = 2"])
def test_hit_outside_of_its_document_is_damage(collection: Collection, place: str) -> None:
    change(collection, f"UPDATE parts SET {place}")
    with pytest.raises(StoreDamaged, match="the place of part"):
        search(collection, [Query("lexical", 1, words="text")])


@pytest.mark.parametrize("mode", ["lexical", "hybrid"])
def test_tables_that_are_lost_while_they_are_used_are_damage(
    collection: Collection, mode: Any
) -> None:
    vector = collection.documents.vectors(np.array([1]))[0]
    change(collection, "DROP TABLE terms", "DROP TABLE words")
    with pytest.raises(StoreError, match="from a backup"):
        search(collection, [Query(mode, 1, vector, "text")])


def change(collection: Collection, *statements: str) -> None:
    with closing(sqlite3.connect(collection.path)) as database, database:
        for statement in statements:
            database.execute(statement)
