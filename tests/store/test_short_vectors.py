"""Collections of given vectors may have very short ones, for which codes are no use."""

import numpy as np
import pytest

from server.store.local_index import compaction, index
from server.store.local_index.compaction import LEAST_RECALL
from server.store.local_index.index import LocalIndex
from server.types import Vectors, unit

N, K = 12_000, 10


def rows(n: int, dimension: int, seed: int = 0) -> Vectors:
    return unit(np.random.default_rng(seed).standard_normal((n, dimension), dtype=np.float32))


def recall(found: LocalIndex, vectors: Vectors, dimension: int) -> float:
    queries = rows(20, dimension, seed=1)
    nearest = np.argsort(-(queries @ vectors.T), axis=1)[:, :K]
    got = found.search(queries, K).labels
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(nearest, got, strict=True)]))


@pytest.mark.parametrize("dimension", [1, 2, 3, 8, 16])
def test_short_vectors_are_all_compared_where_codes_find_too_few(dimension: int) -> None:
    vectors = rows(N, dimension)
    made = LocalIndex(dimension).plus(np.arange(N), vectors).compacted()
    if dimension > 1:  # of one number, all vectors in one direction are equally near
        assert recall(made, vectors, dimension) >= LEAST_RECALL
    # Codes that were no use are not tried again at once.
    assert not made.plus(np.arange(N, N + 10), vectors[:10]).compaction_due
    stats = made.stats()
    assert stats.vectors == N and stats.dead_rows == 0
    assert stats.recall_at_10 is None or stats.recall_at_10 >= LEAST_RECALL


def test_an_index_whose_codes_become_useless_compares_all(monkeypatch: pytest.MonkeyPatch) -> None:
    dimension = 8
    few, many = rows(1_000, dimension), rows(N, dimension, seed=2)
    monkeypatch.setattr(index, "SCAN_FROM", 500)
    made = LocalIndex(dimension).plus(np.arange(len(few)), few).compacted()
    assert made.stats().kind == "fastscan"
    made = made.minus(np.arange(10)).plus(np.arange(len(few), len(few) + N), many).compacted()
    stats = made.stats()
    assert (stats.kind, stats.vectors, stats.dead_rows) == ("exact", len(few) - 10 + N, 0)
    again = made.plus(np.arange(50_000, 50_000 + 4 * N), rows(4 * N, dimension, seed=3))
    assert not made.compaction_due and again.compaction_due


def test_a_snapshot_with_useless_codes_is_arranged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    dimension = 8
    monkeypatch.setattr(compaction, "MOST_PRODUCTS", 0)
    old = LocalIndex(dimension).plus(np.arange(N), rows(N, dimension)).compacted()
    assert old.stats().kind == "fastscan" and not old.compaction_due
    monkeypatch.undo()
    assert old.compaction_due
    assert old.compacted().stats().kind == "exact" and not old.compacted().compaction_due
