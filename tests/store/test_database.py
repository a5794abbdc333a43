"""One SQLite file while other programs change it, move it, or put something else in its place."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.errors import StoreDamaged, StoreError
from server.store.documents import Documents
from server.store.filters.tree import parse
from server.store.records import Document, Info
from server.store.upkeep.database_file import ForeignFile, copy, peek

FOREIGN = {
    "trigger": "CREATE TRIGGER t AFTER INSERT ON documents BEGIN DELETE FROM attributes; END",
    "view": "DROP TABLE attributes; CREATE VIEW attributes AS SELECT '' key, '' value, 1 document",
    "missing": "DROP TABLE attributes",
}


@pytest.fixture
def documents(tmp_path: Path) -> Iterator[Documents]:
    """An open file with one document of tenant "a"."""
    with closing(Documents(tmp_path / "d.sqlite3", Info("laws", "model", 4))) as documents:
        add(documents, "1")
        yield documents


def add(documents: Documents, id: str) -> None:
    with documents.transaction():
        documents.add([Document(id, "text", metadata={"tenant": "a"})], np.ones((1, 4), np.float32))


def change(path: Path, script: str) -> None:
    """Change the file as another program may."""
    with closing(sqlite3.connect(path)) as other:
        other.executescript(script)


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
def test_objects_that_appear_while_the_file_is_open_do_not_run(
    documents: Documents, foreign: str
) -> None:
    assert documents.count(parse({"tenant": "a"})) == 1
    change(documents.database.path, foreign)
    with pytest.raises(StoreDamaged, match="another program"):
        add(documents, "2")
    with pytest.raises(StoreDamaged, match="another program"):
        documents.count(parse({"tenant": "a"}))
    change(documents.database.path, "DROP TRIGGER IF EXISTS t")
    if "TRIGGER" in foreign:
        add(documents, "2")
        assert documents.count(parse({"tenant": "a"})) == 2


def test_statistics_may_appear_while_the_file_is_open(documents: Documents) -> None:
    change(documents.database.path, "ANALYZE")
    add(documents, "2")
    assert documents.count() == 2


def test_another_file_of_the_same_name_is_not_read(documents: Documents) -> None:
    path = documents.database.path
    assert documents.count() == 1
    os.rename(path, path.with_name("moved"))
    with closing(Documents(path, Info("laws", "model", 4))) as other:
        add(other, "another tenant's")
        with documents.snapshot(), pytest.raises(StoreError, match="another file now"):
            documents.database._connect()


@pytest.mark.parametrize("suffix", ["", "-journal", "-wal"])
def test_a_pipe_is_refused_at_once(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "d.sqlite3"
    if suffix:
        Documents(path, Info("laws", "model", 4)).close()
    os.mkfifo(tmp_path / f"d.sqlite3{suffix}")
    for use in (
        lambda: Documents(path, None),
        lambda: copy(path, tmp_path / "copy"),
        lambda: ForeignFile(path),
        lambda: peek(path, "SELECT 1"),
    ):
        with pytest.raises(StoreDamaged, match="not a regular file"):
            use()


def test_a_copy_never_mixes_two_files(
    documents: Documents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = documents.database.path
    real = sqlite3.connect

    def swapped(*arguments: Any, **options: Any) -> Any:
        # As when a reindex ends after SQLite has opened the file and before it opens the log.
        found = real(*arguments, **options)
        if path.exists() and "mode=ro" in str(arguments[0]):
            os.rename(path, path.with_name("moved"))
            path.write_bytes(b"")
        return found

    monkeypatch.setattr(sqlite3, "connect", swapped)
    with pytest.raises(StoreError, match="replaced just now"):
        copy(path, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
