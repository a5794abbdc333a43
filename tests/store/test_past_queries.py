"""The last queries of a collection reach the measurement of its index."""

from pathlib import Path

import numpy as np
import pytest

from server.store import past_queries
from server.store.folder import DataFolder
from server.store.local_index import index
from server.store.local_index.index import LocalIndex
from server.store.past_queries import PastQueries
from server.store.records import Document, Info
from server.store.search import Query, search
from server.types import Vectors

D = 8


def test_only_the_last_queries_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past_queries, "MOST", 3)
    asked = PastQueries()
    assert asked.vectors.shape[0] == 0
    for number in range(5):
        asked.add(np.full(D, number, dtype=np.float32))
    assert asked.vectors.dtype == np.float32
    assert asked.vectors[:, 0].tolist() == [2, 3, 4]


def test_compaction_gets_the_queries_of_searches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.random.default_rng(0).standard_normal((40, D), dtype=np.float32)
    folder = DataFolder(tmp_path, make=LocalIndex)
    folder.create(Info("main", "model", D))
    collection = folder.collections["main"]
    collection.add([Document(str(n), f"文本 {n}") for n in range(40)], rows)
    given: list[Vectors] = []
    monkeypatch.setattr(index, "SCAN_FROM", 10)
    monkeypatch.setattr(index, "compacted", lambda scan, rest, past: given.append(past))
    search(collection, [Query("dense", 3, rows[0])])
    search(collection, [Query("dense", 3, rows[1]), Query("hybrid", 3, rows[2], "文本")])
    collection.compacted(collection.index)
    np.testing.assert_allclose(
        given[0], rows[:3] / np.linalg.norm(rows[:3], axis=1, keepdims=True), atol=1e-3
    )
    folder.close()
