"""A collection works with any vector index: the one of this server, and a toy of numpy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.store.filters.tree import parse
from server.store.folder import DataFolder
from server.store.local_index.index import LocalIndex
from server.store.records import Document, Info
from server.store.search import Hit, Query, search
from server.store.vector_index import IndexMaker
from server.types import Vectors
from tests.support.toy_index import NumpyIndex, keeps

D, N = 8, 60
ROWS: Vectors = np.random.default_rng(0).standard_normal((N, D), dtype=np.float32)
DOCUMENTS = [
    Document(str(n), f"文本 {n}", metadata={"n": n, "tags": ["even" if n % 2 == 0 else "odd"]})
    for n in range(N)
]
FILTERS: list[dict[str, Any]] = [
    {"n": {"$gte": 10, "$lt": 30}},
    {"tags": "odd", "n": {"$nin": [1, 3, 5]}},
    {"$or": [{"n": {"$lt": 5}}, {"$not": {"tags": "even"}}]},
    {"missing": None, "n": {"$exists": True}},
    {"n": {"$not": {"$gt": 7}}},
    {"tags": {"$in": []}},
]

INDEXES = pytest.mark.parametrize("make", [LocalIndex, NumpyIndex])


def opened(path: Path, make: IndexMaker) -> DataFolder:
    folder = DataFolder(path, make=make)
    if not folder.collections:
        folder.create(Info("main", "model", D))
    return folder


def found(folder: DataFolder, row: Vectors, top_k: int, filter: Any = None) -> list[Hit]:
    tree = None if filter is None else parse(filter)
    return search(folder.collections["main"], [Query("dense", top_k, row, filter=tree)])[0]


def nearest(row: Vectors, ids: set[int]) -> list[str]:
    """All of these documents by cosine, best first."""
    unit = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)
    return [str(n) for n in np.argsort(-(unit @ row)) if n in ids]


@INDEXES
def test_collection_adds_searches_deletes_and_starts_again(
    tmp_path: Path, make: IndexMaker
) -> None:
    folder = opened(tmp_path, make)
    collection = folder.collections["main"]
    collection.add(DOCUMENTS, ROWS)
    assert [hit.id for hit in found(folder, ROWS[7], N)] == nearest(ROWS[7], set(range(N)))
    assert collection.delete(["7", "8"]) == 2
    collection.add([Document("9", "moved")], -ROWS[9][None])
    left = set(range(N)) - {7, 8, 9}
    best = [hit.id for hit in found(folder, ROWS[7], N) if hit.id != "9"]
    assert best == nearest(ROWS[7], left)
    assert found(folder, -ROWS[9], 1)[0].text == "moved"
    folder.close()
    again = opened(tmp_path, make)
    assert again.collections["main"].count == N - 2
    assert [hit.id for hit in found(again, ROWS[7], N) if hit.id != "9"] == best
    again.close()


@INDEXES
def test_index_that_missed_writes_or_is_damaged_is_brought_up_to_date(
    tmp_path: Path, make: IndexMaker
) -> None:
    folder = opened(tmp_path, make)
    folder.collections["main"].add(DOCUMENTS[:30], ROWS[:30])
    folder.collections["main"].save()
    folder.collections["main"].add(DOCUMENTS[30:], ROWS[30:])
    folder.collections["main"].delete(["0"])
    # As after kill -9: the snapshot is older than the documents.
    folder.collections.pop("main").abandon()
    folder.close()
    again = opened(tmp_path, make)
    stored = again.collections["main"].documents.labels()
    assert sorted(again.collections["main"].index.labels.tolist()) == stored.tolist()
    assert found(again, ROWS[50], 1)[0].id == "50"
    again.close()
    snapshot = tmp_path / "collections" / "main" / "index.faiss"
    snapshot.write_bytes(snapshot.read_bytes()[:100])
    rebuilt = opened(tmp_path, make)
    assert len(rebuilt.collections["main"].index) == N - 1
    assert found(rebuilt, ROWS[50], 1)[0].id == "50"
    rebuilt.close()


def test_snapshot_of_one_index_is_refused_by_another(tmp_path: Path) -> None:
    folder = opened(tmp_path, LocalIndex)
    folder.collections["main"].add(DOCUMENTS, ROWS)
    folder.close()
    other = opened(tmp_path, NumpyIndex)
    assert other.collections["main"].index.stats().kind == "numpy"
    assert len(other.collections["main"].index) == N
    other.close()


@INDEXES
@pytest.mark.parametrize("filter", FILTERS, ids=str)
def test_filtered_search_finds_what_the_tree_keeps(
    tmp_path: Path, make: IndexMaker, filter: dict[str, Any]
) -> None:
    folder = opened(tmp_path, make)
    folder.collections["main"].add(DOCUMENTS, ROWS)
    kept = {n for n in range(N) if keeps(parse(filter), dict(DOCUMENTS[n].metadata))}
    hits = found(folder, ROWS[3], N, filter)
    assert [hit.id for hit in hits] == nearest(ROWS[3], kept)
    folder.close()


@INDEXES
def test_vectors_that_are_not_finite_leave_both_halves_as_they_were(
    tmp_path: Path, make: IndexMaker
) -> None:
    folder = opened(tmp_path, make)
    collection = folder.collections["main"]
    collection.add(DOCUMENTS[:2], ROWS[:2])
    with pytest.raises(ValueError, match="not finite"):
        collection.add([Document("b", "b")], np.full((1, D), np.nan, dtype=np.float32))
    assert collection.count == len(collection.index) == 2
    folder.close()
