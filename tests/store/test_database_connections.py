"""One SQLite file: how its connections are set up and closed."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from server.store.documents import Documents
from server.store.records import Document, Info
from server.store.sqlite.database import PAGE_BYTES
from server.store.upkeep.database_file import ForeignFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "documents.sqlite3"


@pytest.fixture
def documents(path: Path) -> Iterator[Documents]:
    """One document, committed and read."""
    opened = Documents(path, Info("laws", "fingerprint-a", 4))
    with opened.transaction():
        opened.add([Document("a", "甲")], np.ones((1, 4), dtype=np.float32))
    assert opened.get(["a"])
    yield opened
    opened.close()


def test_connections_trust_no_schema_and_keep_pages_for_several_vectors(
    documents: Documents, path: Path
) -> None:
    def asked(connection: sqlite3.Connection, *names: str) -> list[int]:
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    with documents.database.reading() as reader:
        assert asked(reader, "trusted_schema", "foreign_keys", "cache_size") == [0, 1, -16_000]
    writer = documents.database.writer
    assert asked(writer, "trusted_schema", "foreign_keys", "page_size") == [0, 1, PAGE_BYTES]
    with closing(ForeignFile(path)) as file:
        assert asked(file._connection, "trusted_schema", "cell_size_check") == [0, 1]
        assert file._connection.in_transaction
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        asked(file._connection, "trusted_schema")


def test_database_that_is_closed_whole_is_one_file_without_a_log(
    documents: Documents, path: Path
) -> None:
    assert len(list(path.parent.iterdir())) > 1
    documents.database.close_whole()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        documents.database.writer.execute("SELECT 1")
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    # The version numbers of the format: 1 where SQLite looks for no log, 2 with one.
    assert path.read_bytes()[18:20] == b"\1\1"
