"""The index against brute force in numpy, and snapshots that are not what they were."""

import errno
import os
import threading
import uuid
import zlib
from pathlib import Path

import faiss
import numpy as np
import pytest

from server.store import Labels, index
from server.store.index import HEADER, RECORD, BadSnapshot, Index
from server.types import Vectors

D = 8
IDENTITY = uuid.UUID(int=7)


def vectors(n: int, seed: int = 0) -> Vectors:
    return np.random.default_rng(seed).standard_normal((n, D), dtype=np.float32)


def labels(*values: int) -> Labels:
    return np.array(values, dtype=np.int64)


def numbered(n: int, first: int = 1) -> Labels:
    return np.arange(first, first + n, dtype=np.int64)


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "SEGMENT_ROWS", 16)


def test_search_equals_brute_force_over_several_segments(small_segments: None) -> None:
    rows, queries = vectors(100), vectors(30, seed=1)
    built = Index(D)
    for start in range(0, 100, 7):
        built = built.plus(numbered(100)[start : start + 7], rows[start : start + 7])
    assert len(built._segments) > 3
    hits = built.search(queries, 10)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = queries @ units.T / np.linalg.norm(queries, axis=1, keepdims=True)
    best = np.argsort(-cosines, axis=1)[:, :10]
    assert hits.labels.tolist() == (best + 1).tolist()
    np.testing.assert_allclose(hits.scores, np.take_along_axis(cosines, best, 1), atol=1e-6)
    assert hits.scores.dtype == np.float32
    assert hits.labels.dtype == np.int64


def test_more_rows_than_a_segment_in_one_call_are_split() -> None:
    rows = vectors(index.SEGMENT_ROWS + 10)
    built = Index(D).plus(numbered(len(rows)), rows)
    assert [segment.ntotal for segment in built._segments] == [index.SEGMENT_ROWS, 10]
    assert built.search(rows[-1:], 1).labels.tolist() == [[len(rows)]]


def test_fewer_vectors_than_asked_are_filled_up() -> None:
    hits = Index(D).plus(labels(5, 9), vectors(2)).search(vectors(1), 4)
    assert hits.labels.tolist() == [[5, 9, -1, -1]]
    assert hits.scores[0, 2:].tolist() == [-np.inf, -np.inf]


def test_an_empty_index_finds_nothing() -> None:
    hits = Index(D).search(vectors(3), 2)
    assert hits.labels.tolist() == [[-1, -1]] * 3
    assert hits.scores.tolist() == [[-np.inf, -np.inf]] * 3


def test_scores_are_cosines_whatever_the_lengths() -> None:
    row = vectors(1)
    built = Index(D).plus(labels(1, 2, 3), np.concatenate([row * 100, -row, row * 0]))
    hits = built.search(row * 0.01, 3)
    assert hits.labels.tolist() == [[1, 3, 2]]
    np.testing.assert_allclose(hits.scores, [[1, 0, -1]], atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    rows = vectors(2)
    rows[1, 3] = value
    with pytest.raises(ValueError, match="not finite"):
        Index(D).plus(labels(1, 2), rows)


def test_an_index_never_changes(small_segments: None) -> None:
    rows = vectors(20)
    before = Index(D).plus(numbered(20), rows)
    expected = before.search(rows, 5).labels.tolist()
    after = before.plus(numbered(5, first=21), vectors(5, seed=1)).minus(labels(1, 20, 21))
    assert (len(before), len(after)) == (20, 22)
    assert before.search(rows, 5).labels.tolist() == expected
    assert sorted(after.labels.tolist()) == [*range(2, 20), 22, 23, 24, 25]


def test_a_write_copies_only_the_segments_it_touches(small_segments: None) -> None:
    before = Index(D).plus(numbered(48), vectors(48))
    after = before.minus(labels(1, 999))
    assert [new is old for new, old in zip(after._segments, before._segments, strict=True)] == [
        False,
        True,
        True,
    ]


def test_segments_thinned_by_deletes_fill_up_again(small_segments: None) -> None:
    built = Index(D).plus(numbered(32), vectors(32)).minus(numbered(12))
    built = built.plus(numbered(12, first=33), vectors(12, seed=1)).minus(numbered(4, first=13))
    assert sorted(segment.ntotal for segment in built._segments) == [12, 16]


def test_a_segment_without_rows_is_dropped(small_segments: None) -> None:
    built = Index(D).plus(numbered(32), vectors(32)).minus(numbered(16))
    assert len(built._segments) == 1
    assert not built.minus(numbered(40))._segments


def test_a_search_uses_one_thread_whichever_thread_asks() -> None:
    built = Index(D).plus(labels(1), vectors(1))
    seen: list[int] = []

    def search() -> None:
        faiss.omp_set_num_threads(2)
        built.search(vectors(1), 1)
        seen.append(faiss.omp_get_max_threads())

    thread = threading.Thread(target=search)
    thread.start()
    thread.join()
    assert seen == [1]


@pytest.fixture
def snapshot(tmp_path: Path, small_segments: None) -> Path:
    path = tmp_path / "index.faiss"
    Index(D).plus(numbered(40), vectors(40)).save(path, IDENTITY)
    return path


def test_a_snapshot_holds_the_same_index(snapshot: Path) -> None:
    loaded = Index.load(snapshot, D, IDENTITY)
    assert loaded.labels.tolist() == numbered(40).tolist()
    assert loaded.search(vectors(40), 1).labels[:, 0].tolist() == numbered(40).tolist()
    changed = loaded.minus(labels(1)).plus(labels(41), vectors(1))
    assert changed.search(vectors(1), 1).labels.tolist() == [[41]]
    assert [path.name for path in snapshot.parent.iterdir()] == ["index.faiss"]


def test_an_empty_index_can_be_saved(tmp_path: Path) -> None:
    Index(D).save(tmp_path / "index.faiss", IDENTITY)
    assert len(Index.load(tmp_path / "index.faiss", D, IDENTITY)) == 0


def test_a_snapshot_cut_short_anywhere_is_detected(snapshot: Path) -> None:
    content = snapshot.read_bytes()
    for length in [*range(0, len(content), 61), len(content) - 1]:
        snapshot.write_bytes(content[:length])
        with pytest.raises(BadSnapshot, match=snapshot.name):
            Index.load(snapshot, D, IDENTITY)


def test_a_snapshot_with_a_wrong_byte_anywhere_is_detected(snapshot: Path) -> None:
    content = snapshot.read_bytes()
    for place in [*range(HEADER.size + RECORD.size), *range(44, len(content), 61)]:
        snapshot.write_bytes(
            content[:place] + bytes([content[place] ^ 0x81]) + content[place + 1 :]
        )
        with pytest.raises(BadSnapshot, match=snapshot.name):
            Index.load(snapshot, D, IDENTITY)


def test_a_snapshot_with_something_behind_it_is_detected(snapshot: Path) -> None:
    snapshot.write_bytes(snapshot.read_bytes() + b"\0")
    with pytest.raises(BadSnapshot, match="more bytes"):
        Index.load(snapshot, D, IDENTITY)


def test_a_snapshot_of_something_else_is_detected(snapshot: Path) -> None:
    with pytest.raises(BadSnapshot, match="dimension 8, not 16"):
        Index.load(snapshot, 16, IDENTITY)
    with pytest.raises(BadSnapshot, match="another database"):
        Index.load(snapshot, D, uuid.UUID(int=8))
    with pytest.raises(BadSnapshot, match="cannot be read"):
        Index.load(snapshot.with_name("missing"), D, IDENTITY)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (faiss.serialize_index(faiss.IndexFlatIP(D)).tobytes(), "another kind"),
        (faiss.serialize_index(faiss.IndexIDMap2(faiss.IndexFlatIP(4))).tobytes(), "another kind"),
        (b"future format", "not readable by this FAISS"),
    ],
)
def test_a_snapshot_that_holds_another_kind_is_detected(
    tmp_path: Path, body: bytes, reason: str
) -> None:
    path = tmp_path / "index.faiss"
    header = HEADER.pack(index.MAGIC, IDENTITY.bytes, D, 1)
    path.write_bytes(header + RECORD.pack(len(body), zlib.crc32(body)) + body)
    with pytest.raises(BadSnapshot, match=reason):
        Index.load(path, D, IDENTITY)


def test_a_snapshot_that_fails_leaves_the_last_one(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        Index(D).save(snapshot, IDENTITY)
    assert len(Index.load(snapshot, D, IDENTITY)) == 40
    assert [path.name for path in snapshot.parent.iterdir()] == ["index.faiss"]
