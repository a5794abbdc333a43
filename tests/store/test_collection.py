"""Database and index together: reopened, damaged, refused, killed."""

import logging
import multiprocessing
import shutil
import sqlite3
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.errors import InvalidRequest, StoreDamaged, StoreError
from server.store.folder import DataFolder
from server.store.records import Document, Info
from server.store.search import Hit, Query, search
from server.store.sqlite.database import PAGE_BYTES
from server.types import Vectors

D = 8
SPAWN = multiprocessing.get_context("spawn")


class Main:
    """The collection "main" of a data folder, created if it is missing, and the folder."""

    def __init__(self, path: Path) -> None:
        self.folder = DataFolder(path)
        self.collection = self.folder.collections.get("main") or self.folder.create(
            Info("main", "model-a", D)
        )

    def search(self, vector: Vectors, top_k: int) -> list[Hit]:
        return search(self.collection, [Query("dense", top_k, vector)])[0]

    def close(self) -> None:
        self.folder.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.collection, name)


def vector_of(id: str) -> Vectors:
    """Return the vector of an id, the same in every process."""
    return np.random.default_rng(zlib.crc32(id.encode())).standard_normal(D, dtype=np.float32)


def add(collection: Main, *ids: str, text: str = "text") -> None:
    vectors = np.stack([vector_of(id) for id in ids])
    collection.add([Document(id, text) for id in ids], vectors)


def check_holds(collection: Main, *ids: str) -> None:
    """Check that database and index hold exactly these documents."""
    assert collection.count == collection.documents.count() == len(ids)
    found = [collection.search(vector_of(id), 1)[0] for id in ids]
    assert [hit.id for hit in found] == list(ids)
    assert [hit.score for hit in found] == pytest.approx([1] * len(ids), abs=1e-4)
    assert collection.documents.get(ids).keys() == set(ids)


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[Main]:
    opened = Main(tmp_path)
    yield opened
    opened.close()


def snapshot_of(folder: Path) -> Path:
    return folder / "collections" / "main" / "index.faiss"


def test_hits_carry_the_document_and_its_cosine(collection: Main) -> None:
    assert collection.search(vector_of("a"), 3) == []
    document = Document("a", "民法典", "标题", {"年": 2020})
    collection.add([document, Document("b", "other")], np.stack([vector_of("a"), -vector_of("a")]))
    best, other = collection.search(vector_of("a") * 7, 3)
    assert (best.id, best.text, best.title, best.metadata) == ("a", "民法典", "标题", {"年": 2020})
    assert [best.score, other.score] == pytest.approx([1, -1])
    assert (collection.name, collection.count) == ("main", 2)


def test_an_update_replaces_the_document_in_searches(collection: Main) -> None:
    add(collection, "a", "b")
    collection.add([Document("a", "new")], vector_of("moved")[None])
    assert collection.search(vector_of("moved"), 1)[0].text == "new"
    assert sorted(hit.id for hit in collection.search(vector_of("a"), 10)) == ["a", "b"]


def test_deleted_documents_are_not_found(collection: Main) -> None:
    add(collection, "a", "b", "c")
    assert collection.delete(["a", "missing"]) == 1
    check_holds(collection, "b", "c")


def test_an_id_twice_in_one_write_is_found_once(collection: Main) -> None:
    add(collection, "a", "a")
    check_holds(collection, "a")


def test_a_write_that_fails_changes_neither_half(collection: Main) -> None:
    add(collection, "a")
    with pytest.raises(InvalidRequest):
        collection.add([Document("b", "\ud800")], vector_of("b")[None])
    with pytest.raises(ValueError, match="not finite"):
        collection.add([Document("b", "b")], np.full((1, D), np.nan, dtype=np.float32))
    collection.documents.database.writer.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StoreError, match="disk is full"):
        collection.add([Document("a", "x" * 100_000)], vector_of("b")[None])
    check_holds(collection, "a")


def test_a_write_whose_commit_fails_leaves_the_index_of_what_is_stored(
    collection: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(collection, "a")
    index, transaction = collection.settled_index, collection.documents.transaction

    @contextmanager
    def failing() -> Iterator[None]:
        with transaction():
            yield
            raise StoreError("{path}: the disk is full", path="x")

    for write in (lambda: add(collection, "b"), lambda: collection.delete(["a"])):
        with monkeypatch.context() as patch, pytest.raises(StoreError, match="disk is full"):
            patch.setattr(collection.documents, "transaction", failing)
            write()
        assert collection.settled_index is collection.index is index is not None
        check_holds(collection, "a")
    add(collection, "b")
    check_holds(collection, "a", "b")


def test_everything_is_found_after_reopening(tmp_path: Path) -> None:
    first = Main(tmp_path)
    add(first, "a", "b", "c")
    first.delete(["b"])
    first.close()
    first.close()
    written = snapshot_of(tmp_path).stat().st_mtime_ns
    again = Main(tmp_path)
    check_holds(again, "a", "c")
    again.close()
    assert snapshot_of(tmp_path).stat().st_mtime_ns == written, "nothing changed, nothing written"


def test_an_old_snapshot_is_caught_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = Main(tmp_path)
    add(first, "a", "b", "c")
    first.save()
    old = snapshot_of(tmp_path).read_bytes()
    first.delete(["a"])
    add(first, "d", "b")
    first.close()
    snapshot_of(tmp_path).write_bytes(old)
    again = Main(tmp_path)
    check_holds(again, "b", "c", "d")
    again.close()
    assert not caplog.records


@pytest.mark.parametrize("damage", ["missing", "cut short", "empty", "garbage"])
def test_a_snapshot_of_no_use_is_rebuilt(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = Main(tmp_path)
    add(first, "a", "b", "c")
    first.close()
    snapshot = snapshot_of(tmp_path)
    whole = snapshot.read_bytes()
    if damage == "missing":
        snapshot.unlink()
    else:
        snapshot.write_bytes(
            {"cut short": whole[:-9], "empty": b"", "garbage": b"\xff" * 500}[damage]
        )
    caplog.set_level(logging.INFO)
    again = Main(tmp_path)
    check_holds(again, "a", "b", "c")
    again.close()
    (said,) = [each for each in caplog.records if "rebuilt from 3 documents" in each.getMessage()]
    assert said.levelname == ("INFO" if damage == "missing" else "WARNING")
    assert snapshot.read_bytes() == whole


def put_back(data: Path) -> Main:
    """Open a collection of "a" whose database was put back to before "lost" was written."""
    first = Main(data)
    add(first, "a")
    first.close()
    database = data / "collections" / "main" / "documents.sqlite3"
    backup = shutil.copy(database, data / "backup")
    second = Main(data)
    add(second, "lost")
    second.close()
    shutil.copy(backup, database)
    return Main(data)


def test_a_snapshot_newer_than_a_restored_database_is_rebuilt(tmp_path: Path) -> None:
    restored = put_back(tmp_path)
    check_holds(restored, "a")
    add(restored, "b")  # under the label that the lost one had
    check_holds(restored, "a", "b")
    restored.close()


def test_a_snapshot_newer_than_its_database_is_never_used_again(tmp_path: Path) -> None:
    restored = put_back(tmp_path)
    add(restored, "b")  # under the label that the lost one had
    # As if the process were killed: no snapshot is written.
    restored.folder.collections.clear()
    restored.abandon()
    restored.close()
    again = Main(tmp_path)
    check_holds(again, "a", "b")
    again.close()


def test_a_snapshot_of_another_database_is_rebuilt(tmp_path: Path) -> None:
    for folder, id in (("one", "a"), ("two", "b")):
        opened = Main(tmp_path / folder)
        add(opened, id)
        opened.close()
    shutil.copy(snapshot_of(tmp_path / "one"), snapshot_of(tmp_path / "two"))
    two = Main(tmp_path / "two")
    check_holds(two, "b")
    two.close()


def test_a_snapshot_that_cannot_be_written_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Main(tmp_path)
    add(first, "a")
    snapshot_of(tmp_path).mkdir()  # nothing can be renamed onto a folder
    with caplog.at_level(logging.WARNING):
        first.close()
    assert "no document is lost" in caplog.text
    snapshot_of(tmp_path).rmdir()
    again = Main(tmp_path)
    check_holds(again, "a")
    again.close()


@pytest.mark.parametrize("first_damaged_byte", [0, 3 * PAGE_BYTES])
def test_a_damaged_database_is_reported_and_the_folder_let_go(
    tmp_path: Path, first_damaged_byte: int
) -> None:
    first = Main(tmp_path)
    add(first, *(str(n) for n in range(300)), text="text " * 50)
    first.close()
    database = tmp_path / "collections" / "main" / "documents.sqlite3"
    whole = database.read_bytes()
    damage = b"\xff" * (len(whole) - first_damaged_byte)
    for _ in range(2):
        database.write_bytes(whole[:first_damaged_byte] + damage)
        folder = DataFolder(tmp_path)
        assert folder.collections == {}
        with pytest.raises(StoreDamaged) as failure:
            folder.create(Info("main", "x", 8, None))
        folder.close()
        assert "damaged" in failure.value.english
        assert "已损坏" in failure.value.chinese
    database.write_bytes(whole)
    again = Main(tmp_path)
    assert again.count == 300
    again.close()


def write_forever(folder: Path, run: int, pipe: Connection) -> None:
    """Add, rewrite and delete in every round, and report it only then."""
    collection = Main(folder)
    for n in count():
        add(collection, *(f"{run}.{n}.{i}" for i in range(4)))
        add(collection, "counter", text=f"{run * 1000 + n}")
        collection.delete([f"{run}.{n}.0"])
        pipe.send(n)
        if n % 3 == 2:
            collection.save()


def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    for run, rounds in enumerate((1, 2, 3, 8, 21)):
        ours, theirs = SPAWN.Pipe()
        writer = SPAWN.Process(target=write_forever, args=(tmp_path, run, theirs))
        writer.start()
        theirs.close()
        reported = [ours.recv() for _ in range(rounds)]
        writer.kill()
        writer.join()
        while ours.poll():
            try:
                reported.append(ours.recv())
            except EOFError:
                break
        acknowledged |= {f"{run}.{n}.{i}" for n in reported for i in (1, 2, 3)}

        collection = Main(tmp_path)
        assert collection.documents.get(sorted(acknowledged)).keys() == acknowledged
        assert not collection.documents.get([f"{run}.{n}.0" for n in reported])
        assert (
            int(collection.documents.get(["counter"])["counter"].text) >= run * 1000 + reported[-1]
        )
        assert all(collection.search(vector_of(id), 1)[0].id == id for id in acknowledged)
        assert collection.count == collection.documents.count()
        collection.close()


def test_searches_never_see_half_an_update(collection: Main) -> None:
    ids = [str(n) for n in range(20)]
    add(collection, *ids, text="0")
    started, written = threading.Event(), threading.Event()
    seen: list[tuple[int, set[str]]] = []

    def search() -> None:
        last = False
        while not last:
            last = written.is_set()
            hits = collection.search(vector_of("query"), 50)
            seen.append((len(hits), {hit.text for hit in hits}))
            started.set()

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    started.wait()
    for version in range(1, 13):
        add(collection, *ids, text=str(version))
    written.set()
    for thread in threads:
        thread.join()
    assert all(n_hits == 20 and len(texts) == 1 for n_hits, texts in seen)
    assert {"0", "12"} <= {min(texts) for _, texts in seen}


def test_a_search_sees_the_old_state_until_the_commit_and_then_the_new_one(
    collection: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(collection, "a", "b", text="old")
    transaction = collection.documents.transaction
    seen: list[list[str]] = []

    def look() -> None:
        hits = collection.search(vector_of("a"), 2)
        seen.append(sorted(f"{hit.id} {hit.text}" for hit in hits))

    @contextmanager
    def watched() -> Iterator[None]:
        with transaction():
            yield
            look()
        look()

    monkeypatch.setattr(collection.documents, "transaction", watched)
    add(collection, "a", "b", text="new")
    collection.delete(["a"])
    assert seen == [["a old", "b old"], ["a new", "b new"], ["a new", "b new"], ["b new"]]


def test_a_second_write_at_the_same_time_raises(collection: Main) -> None:
    add(collection, "a")
    with collection.documents.transaction():
        with pytest.raises(RuntimeError, match="two writes"):
            add(collection, "b")
        with pytest.raises(RuntimeError, match="two writes"):
            collection.delete(["a"])
        with pytest.raises(RuntimeError, match="two writes"):
            collection.adopt(collection.index.compacted())
        with pytest.raises(RuntimeError, match="closed during a write"):
            collection.abandon()
    check_holds(collection, "a")


def test_a_write_that_changes_nothing_writes_nothing(collection: Main) -> None:
    add(collection, "a")
    before, index = collection.documents.revision(), collection.index
    assert collection.delete(["missing"]) == 0
    assert collection.documents.revision() == before
    assert collection.index is index


def test_an_index_that_missed_a_delete_never_shows_what_is_gone(collection: Main) -> None:
    add(collection, "a", "b")
    missed = collection.collection.index
    collection.delete(["a"])
    collection.collection._settle(collection.documents.revision(), missed)
    assert [hit.id for hit in collection.search(vector_of("a"), 2)] == ["b"]


def test_a_compacted_index_gets_what_was_written_meanwhile_without_comparing_all_labels(
    collection: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = collection.collection
    add(collection, "a", "b", "c", "d")
    before = real.index
    collection.delete(["a"])  # The compaction begins with an older index.
    compacted = real.caught_up(real.compacted(before))
    add(collection, "b", "e", "f", text="new")
    collection.delete(["c", "f"])
    with pytest.raises(sqlite3.IntegrityError):
        with monkeypatch.context() as context:
            # A write that fails removes nothing.
            context.setattr(real.documents, "revise", refuse)
            collection.delete(["d"])
    with monkeypatch.context() as context:
        context.setattr(real.documents, "labels", refuse)
        real.adopt(compacted)
    assert sorted(real.index.labels) == real.documents.labels().tolist()
    check_holds(collection, "b", "d", "e")
    # Another index is compared whole.
    real.adopt(before)
    assert sorted(real.index.labels) == real.documents.labels().tolist()


def refuse(*_: object) -> str:
    raise sqlite3.IntegrityError("refused")
