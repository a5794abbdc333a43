"""A snapshot gives the same index again, or is refused."""

import errno
import os
import uuid
import zlib
from pathlib import Path

import faiss
import numpy as np
import pytest

from server.store.local_index import compaction, exact, index
from server.store.local_index.index import LocalIndex
from server.store.local_index.snapshot import COUNTS, HEADER, MAGIC, RECORD, Bytes
from server.store.vector_index import BadSnapshot
from server.types import Labels, Vectors

D = 8
IDENTITY = uuid.UUID(int=7)


def vectors(n: int, seed: int = 0) -> Vectors:
    return np.random.default_rng(seed).standard_normal((n, D), dtype=np.float32)


def numbered(n: int, first: int = 1) -> Labels:
    return np.arange(first, first + n, dtype=np.int64)


@pytest.fixture(params=["exact", "fastscan", "lists"])
def saved(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> LocalIndex:
    """40 vectors in three segments, or 700 in a block, three of them deleted, and 40 in a tail."""
    monkeypatch.setattr(exact, "SEGMENT_ROWS", 16)
    if request.param == "exact":
        return LocalIndex(D).plus(numbered(40), vectors(40))
    monkeypatch.setattr(index, "SCAN_FROM", 700)
    if request.param == "lists":
        monkeypatch.setattr(compaction, "LISTS_FROM", 700)
    built = LocalIndex(D).plus(numbered(700, first=101), vectors(700, seed=1)).compacted()
    return built.minus(numbered(3, first=101)).plus(numbered(40), vectors(40))


@pytest.fixture
def snapshot(tmp_path: Path, saved: LocalIndex) -> Path:
    path = tmp_path / "index.faiss"
    saved.save(path, IDENTITY)
    return path


def test_a_snapshot_holds_the_same_index(snapshot: Path, saved: LocalIndex) -> None:
    loaded = LocalIndex.load(snapshot, D, IDENTITY)
    assert loaded.labels.tolist() == saved.labels.tolist()
    assert loaded.stats() == saved.stats()
    hits, expected = loaded.search(vectors(40), 5), saved.search(vectors(40), 5)
    assert hits.labels.tolist() == expected.labels.tolist()
    assert hits.scores.tolist() == expected.scores.tolist()
    assert [path.name for path in snapshot.parent.iterdir()] == ["index.faiss"]


def test_a_loaded_index_can_be_changed_and_compacted(snapshot: Path) -> None:
    loaded = LocalIndex.load(snapshot, D, IDENTITY)
    changed = loaded.minus(numbered(1)).plus(numbered(1, first=41), vectors(1))
    for some in (changed, changed.compacted()):
        assert some.search(vectors(1), 1).labels.tolist() == [[41]]
        assert np.array_equal(np.sort(some.labels), np.sort(changed.labels))


def test_an_empty_index_can_be_saved(tmp_path: Path) -> None:
    LocalIndex(D).save(tmp_path / "index.faiss", IDENTITY)
    assert len(LocalIndex.load(tmp_path / "index.faiss", D, IDENTITY)) == 0


def test_a_snapshot_cut_short_anywhere_is_detected(snapshot: Path) -> None:
    content = snapshot.read_bytes()
    for length in [*range(0, 200), *range(200, len(content), 97), len(content) - 1]:
        snapshot.write_bytes(content[:length])
        with pytest.raises(BadSnapshot, match=snapshot.name):
            LocalIndex.load(snapshot, D, IDENTITY)


def test_a_snapshot_with_a_wrong_byte_anywhere_is_detected(snapshot: Path) -> None:
    content = snapshot.read_bytes()
    for place in [*range(200), *range(200, len(content), 97), len(content) - 1]:
        snapshot.write_bytes(
            content[:place] + bytes([content[place] ^ 0x81]) + content[place + 1 :]
        )
        with pytest.raises(BadSnapshot, match=snapshot.name):
            LocalIndex.load(snapshot, D, IDENTITY)


def test_a_snapshot_with_something_behind_it_is_detected(snapshot: Path) -> None:
    snapshot.write_bytes(snapshot.read_bytes() + b"\0")
    with pytest.raises(BadSnapshot, match="more bytes"):
        LocalIndex.load(snapshot, D, IDENTITY)


def test_a_snapshot_of_something_else_is_detected(snapshot: Path) -> None:
    with pytest.raises(BadSnapshot, match="dimension 8, not 16"):
        LocalIndex.load(snapshot, 16, IDENTITY)
    with pytest.raises(BadSnapshot, match="another database"):
        LocalIndex.load(snapshot, D, uuid.UUID(int=8))
    with pytest.raises(BadSnapshot, match="cannot be read"):
        LocalIndex.load(snapshot.with_name("missing"), D, IDENTITY)


@pytest.mark.parametrize(
    ("codec", "reason"),
    [
        (faiss.serialize_index(faiss.IndexFlatIP(D)), "another kind"),
        (np.frombuffer(b"future format", dtype=np.uint8), "not readable by this FAISS"),
    ],
)
def test_a_snapshot_that_holds_another_kind_is_detected(
    tmp_path: Path, codec: Bytes, reason: str
) -> None:
    path = tmp_path / "index.faiss"
    axes = np.zeros((4, D), dtype=np.float32)
    with path.open("wb") as file:
        file.write(HEADER.pack(MAGIC, IDENTITY.bytes, D))
        for content in (
            COUNTS.pack(0, 1, 700, 700, 100, 1, 1.0, 0.01, 0.1),
            axes.tobytes(),
            codec.tobytes(),
        ):
            file.write(RECORD.pack(len(content), zlib.crc32(content)) + content)
    with pytest.raises(BadSnapshot, match=reason):
        LocalIndex.load(path, D, IDENTITY)


def test_a_snapshot_that_fails_leaves_the_last_one(
    snapshot: Path, saved: LocalIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        LocalIndex(D).save(snapshot, IDENTITY)
    assert len(LocalIndex.load(snapshot, D, IDENTITY)) == len(saved)
    assert [path.name for path in snapshot.parent.iterdir()] == ["index.faiss"]
