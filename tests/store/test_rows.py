"""Rows of 16 bits: close to float32, and their low halves may lie in a snapshot."""

import os
import uuid
from pathlib import Path

import numpy as np
import pytest

from server.errors import StoreError
from server.store.local_index import compaction, index
from server.store.local_index.index import LocalIndex
from server.store.local_index.rows import Held, Rows, Stored
from server.types import Vectors

D, N = 16, 1500
IDENTITY = uuid.UUID(int=7)


def vectors(n: int, seed: int = 0) -> Vectors:
    rows = np.random.default_rng(seed).standard_normal((n, D), dtype=np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


LABELS, ROWS = np.arange(N, dtype=np.int64), vectors(N)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> LocalIndex:
    monkeypatch.setattr(index, "SCAN_FROM", 1000)
    monkeypatch.setattr(compaction, "LISTS_FROM", 1000)
    return LocalIndex(D).plus(LABELS, ROWS).compacted()


def low(of: LocalIndex) -> Held | Stored:
    assert of._scan is not None
    return of._scan.blocks[0].rows.low


def test_rows_are_those_they_were_made_of_and_their_high_halves_are_near() -> None:
    rows, places = Rows.of(ROWS), np.array([3, 0, N - 1])
    np.testing.assert_allclose(rows.whole(places), ROWS[places], atol=2e-5)
    np.testing.assert_allclose(rows.slice(5, 9), ROWS[5:9], atol=2e-5)
    exact = ROWS[places] @ ROWS[7]
    np.testing.assert_allclose(rows.products(places, ROWS[7]), exact, atol=5e-5)
    np.testing.assert_allclose(rows.estimates(places, ROWS[7]), exact, atol=1e-2)
    np.testing.assert_allclose(rows.coarse(places), ROWS[places], atol=5e-3)


def test_zeros_and_the_largest_numbers_of_a_row_stay_themselves() -> None:
    some = np.eye(4, D, dtype=np.float32) * np.array([[1], [-1], [0], [1e-3]], dtype=np.float32)
    np.testing.assert_allclose(Rows.of(some).slice(0, 4), some, rtol=1e-6)


def test_saved_index_keeps_only_high_halves_in_memory_and_finds_the_same(
    built: LocalIndex, tmp_path: Path
) -> None:
    queries = vectors(20, seed=1)
    before, held = built.search(queries, 10), built.stats().bytes_per_vector
    path = tmp_path / "index.faiss"
    built.save(path, IDENTITY)
    loaded = LocalIndex.load(path, D, IDENTITY)
    for some in (built, loaded, built.minus(LABELS[:0])):
        assert isinstance(low(some), Stored)
        after = some.search(queries, 10)
        assert after.labels.tolist() == before.labels.tolist()
        assert after.scores.tolist() == before.scores.tolist()
        assert held - some.stats().bytes_per_vector == pytest.approx(D)
    # What is gone or replaced stays readable while it is open, and can be saved again.
    path.unlink()
    loaded.save(path, IDENTITY)
    again = LocalIndex.load(path, D, IDENTITY)
    assert again.search(queries, 10).labels.tolist() == before.labels.tolist()
    assert again.compacted().search(queries, 10).labels.tolist() == before.labels.tolist()


def test_failed_save_leaves_rows_where_they_were(
    built: LocalIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        built.save(tmp_path / "index.faiss", IDENTITY)
    assert isinstance(low(built), Held)


def test_snapshot_cut_short_while_it_is_in_use_is_reported(
    built: LocalIndex, tmp_path: Path
) -> None:
    path = tmp_path / "index.faiss"
    built.save(path, IDENTITY)
    os.truncate(path, 1000)
    with pytest.raises(StoreError, match="cut short"):
        built.search(ROWS[:1], 10)
    # As for a full disk, the collection only notes that.
    with pytest.raises(OSError, match="cut short"):
        built.save(path, IDENTITY)


def test_small_index_keeps_whole_rows_in_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(index, "SCAN_FROM", 1000)
    small = LocalIndex(D).plus(LABELS, ROWS).compacted()
    path = tmp_path / "index.faiss"
    small.save(path, IDENTITY)
    for some in (small, LocalIndex.load(path, D, IDENTITY)):
        assert isinstance(low(some), Held)
        assert some.search(ROWS[:1], 1).scores[0, 0] == pytest.approx(1, abs=1e-4)


def test_file_is_closed_with_the_last_rows_in_it(built: LocalIndex, tmp_path: Path) -> None:
    def opened() -> int:
        return sum(
            1 for one in Path("/proc/self/fd").iterdir() if str(tmp_path) in str(one.resolve())
        )

    path = tmp_path / "index.faiss"
    built.save(path, IDENTITY)
    built.save(path, IDENTITY)
    assert opened() == 1
    del built
    assert opened() <= 1
