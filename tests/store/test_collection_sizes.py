"""Sizes that a collection reports of its files, and the steps in which it rebuilds its index."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from server.store import collection as collection_module
from server.store.collection import DATABASE_FILE, SNAPSHOT_FILE
from server.store.local_index.index import LocalIndex
from server.store.records import CollectionStats
from tests.store.test_collection import D, Main, add, check_holds, snapshot_of


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[Main]:
    opened = Main(tmp_path)
    yield opened
    opened.close()


def size_of(home: Path, name: str) -> int:
    file = home / name
    return file.stat().st_size if file.exists() else 0


def test_sizes_are_those_of_the_index_and_of_each_file(collection: Main, tmp_path: Path) -> None:
    home = tmp_path / "collections" / "main"

    def expected(chunks: int, behind: int) -> CollectionStats:
        snapshot = home / SNAPSHOT_FILE
        return CollectionStats(
            chunks=chunks,
            # Float32 and an eight-byte label.
            index_bytes=chunks * (4 * D + 8),
            column_bytes=0,
            database_bytes=size_of(home, DATABASE_FILE),
            wal_bytes=size_of(home, f"{DATABASE_FILE}-wal"),
            snapshot_bytes=size_of(home, SNAPSHOT_FILE),
            snapshot_s=snapshot.stat().st_mtime if snapshot.exists() else None,
            behind=behind,
            recall=None,
        )

    assert collection.stats() == expected(0, 0)
    add(collection, "a", "b", "c")
    assert collection.stats() == expected(3, 3)
    collection.save()
    assert collection.stats() == expected(3, 0)
    add(collection, "d")
    assert collection.stats() == expected(4, 1)
    collection.delete(["a", "b"])
    assert collection.stats() == expected(2, 1), "the snapshot has more"
    files = [each for each in home.iterdir() if each.name != ".lock"]
    assert len(files) == 4
    assert collection.bytes_on_disk() == sum(each.stat().st_size for each in files)


def test_a_large_index_is_rebuilt_in_steps_and_compacted_between_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [str(n) for n in range(11)]
    first = Main(tmp_path)
    add(first, *ids)
    first.close()
    snapshot_of(tmp_path).unlink()
    monkeypatch.setattr(collection_module, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(collection_module, "LOOSE_ROWS", 4)
    compacted: list[int] = []
    real = LocalIndex.compacted

    def counted(index: LocalIndex) -> LocalIndex:
        compacted.append(len(index))
        return real(index)

    monkeypatch.setattr(LocalIndex, "compacted", counted)
    again = Main(tmp_path)
    assert compacted == [4, 8]
    assert again.index.labels.dtype == np.int64 and len(again.index) == 11
    check_holds(again, *ids)
    again.close()
