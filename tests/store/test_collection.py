"""Database and index together: reopened, damaged, refused, killed."""

import logging
import multiprocessing
import os
import shutil
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from server.errors import InvalidRequest, StoreError
from server.manifest import Manifest
from server.store import Labels
from server.store.collection import Collection
from server.store.documents import Document
from server.types import Vectors

D = 8
SPAWN = multiprocessing.get_context("spawn")


def manifest(fingerprint: str = "model-a", dimension: int = D) -> Manifest:
    """What a collection reads of a manifest."""
    return cast(Manifest, SimpleNamespace(fingerprint=fingerprint, dimension=dimension))


def open_main(folder: Path) -> Collection:
    return Collection.open(folder, "main", manifest())


def vector_of(id: str) -> Vectors:
    """The same in every process."""
    return np.random.default_rng(zlib.crc32(id.encode())).standard_normal(D, dtype=np.float32)


def add(collection: Collection, *ids: str, text: str = "text") -> None:
    vectors = np.stack([vector_of(id) for id in ids])
    collection.add([Document(id, text) for id in ids], vectors)


def check_holds(collection: Collection, *ids: str) -> None:
    """Exactly these, in the database and in the index."""
    assert collection.count == collection._documents.count() == len(ids)
    assert [collection.search(vector_of(id), 1)[0].id for id in ids] == list(ids)
    assert collection.get(ids).keys() == set(ids)


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[Collection]:
    opened = open_main(tmp_path)
    yield opened
    opened.close()


def snapshot_of(folder: Path) -> Path:
    return folder / "collections" / "main" / "index.faiss"


def test_hits_carry_the_document_and_its_cosine(collection: Collection) -> None:
    assert collection.search(vector_of("a"), 3) == []
    document = Document("a", "民法典", "标题", {"年": 2020})
    collection.add([document, Document("b", "other")], np.stack([vector_of("a"), -vector_of("a")]))
    best, other = collection.search(vector_of("a") * 7, 3)
    assert (best.id, best.text, best.title, best.metadata) == ("a", "民法典", "标题", {"年": 2020})
    assert [best.score, other.score] == pytest.approx([1, -1])
    assert (collection.name, collection.count) == ("main", 2)


def test_an_update_replaces_the_document_in_searches(collection: Collection) -> None:
    add(collection, "a", "b")
    collection.add([Document("a", "new")], vector_of("moved")[None])
    assert collection.search(vector_of("moved"), 1)[0].text == "new"
    assert sorted(hit.id for hit in collection.search(vector_of("a"), 10)) == ["a", "b"]
    assert collection.unchanged({"a": "new", "b": "changed"}) == {"a"}


def test_deleted_documents_are_not_found(collection: Collection) -> None:
    add(collection, "a", "b", "c")
    assert collection.delete(["a", "missing"]) == 1
    check_holds(collection, "b", "c")


def test_an_id_twice_in_one_write_is_found_once(collection: Collection) -> None:
    add(collection, "a", "a")
    check_holds(collection, "a")


def test_a_write_that_fails_changes_neither_half(collection: Collection) -> None:
    add(collection, "a")
    with pytest.raises(InvalidRequest):
        collection.add([Document("b", "\ud800")], vector_of("b")[None])
    with pytest.raises(ValueError, match="not finite"):
        collection.add([Document("b", "b")], np.full((1, D), np.nan, dtype=np.float32))
    collection._documents._writer.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StoreError, match="disk is full"):
        collection.add([Document("a", "x" * 100_000)], vector_of("b")[None])
    check_holds(collection, "a")


def test_everything_is_found_after_reopening(tmp_path: Path) -> None:
    first = open_main(tmp_path)
    add(first, "a", "b", "c")
    first.delete(["b"])
    first.close()
    first.close()
    written = snapshot_of(tmp_path).stat()
    again = open_main(tmp_path)
    check_holds(again, "a", "c")
    again.close()
    assert snapshot_of(tmp_path).stat() == written, "nothing changed, nothing written"


def test_collections_of_one_folder_are_apart(tmp_path: Path) -> None:
    for name in ("laws", "news"):
        opened = Collection.open(tmp_path, name, manifest())
        add(opened, name)
        check_holds(opened, name)
        opened.close()


def test_an_old_snapshot_is_caught_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = open_main(tmp_path)
    add(first, "a", "b", "c")
    first.save()
    old = snapshot_of(tmp_path).read_bytes()
    first.delete(["a"])
    add(first, "d", "b")
    first.close()
    snapshot_of(tmp_path).write_bytes(old)
    again = open_main(tmp_path)
    check_holds(again, "b", "c", "d")
    again.close()
    assert not caplog.records


@pytest.mark.parametrize("damage", ["missing", "cut short", "empty", "garbage"])
def test_a_snapshot_of_no_use_is_rebuilt(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = open_main(tmp_path)
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
    again = open_main(tmp_path)
    check_holds(again, "a", "b", "c")
    again.close()
    assert "rebuilt from 3 documents" in caplog.text
    assert snapshot.read_bytes() == whole


def test_a_snapshot_newer_than_a_restored_database_is_rebuilt(tmp_path: Path) -> None:
    first = open_main(tmp_path)
    add(first, "a")
    first.close()
    database = tmp_path / "collections" / "main" / "documents.sqlite3"
    backup = shutil.copy(database, tmp_path / "backup")
    second = open_main(tmp_path)
    add(second, "lost")
    second.close()
    shutil.copy(backup, database)
    restored = open_main(tmp_path)
    check_holds(restored, "a")
    add(restored, "b")  # under the label that the lost one had
    check_holds(restored, "a", "b")
    restored.close()


def test_a_snapshot_of_another_database_is_rebuilt(tmp_path: Path) -> None:
    for folder, id in (("one", "a"), ("two", "b")):
        opened = open_main(tmp_path / folder)
        add(opened, id)
        opened.close()
    shutil.copy(snapshot_of(tmp_path / "one"), snapshot_of(tmp_path / "two"))
    two = open_main(tmp_path / "two")
    check_holds(two, "b")
    two.close()


def test_a_snapshot_that_cannot_be_written_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = open_main(tmp_path)
    add(first, "a")
    snapshot_of(tmp_path).mkdir()  # nothing can be renamed onto a folder
    with caplog.at_level(logging.WARNING):
        first.close()
    assert "no document is lost" in caplog.text
    snapshot_of(tmp_path).rmdir()
    again = open_main(tmp_path)
    check_holds(again, "a")
    again.close()


@pytest.mark.parametrize("other", [manifest("model-b"), manifest("model-a", D * 2)])
def test_another_model_is_refused_by_name_and_changes_nothing(
    tmp_path: Path, other: Manifest
) -> None:
    first = open_main(tmp_path)
    add(first, "a")
    first.close()
    with pytest.raises(StoreError) as refusal:
        Collection.open(tmp_path, "main", other)
    for message in (refusal.value.english, refusal.value.chinese):
        assert "model-a" in message and other.fingerprint in message and "--data" in message
    again = open_main(tmp_path)
    check_holds(again, "a")
    again.close()


@pytest.mark.parametrize("name", ["a", "Laws_2020.v1-x", "x" * 64, "...", ".hidden"])
def test_names_that_are_allowed(tmp_path: Path, name: str) -> None:
    opened = Collection.open(tmp_path, name, manifest())
    assert opened.name == name
    opened.close()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../x", "a b", "法律", "x" * 65, "a\n", "\0"]
)
def test_names_that_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError) as refusal:
        Collection.open(tmp_path, name, manifest())
    assert "集合名称" in refusal.value.chinese
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("in_the_way", ["data", "data/lock/x", "data/collections"])
def test_a_folder_that_cannot_be_used_is_reported(tmp_path: Path, in_the_way: str) -> None:
    path = tmp_path / in_the_way
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("in the way", encoding="utf-8")
    with pytest.raises(StoreError) as failure:
        open_main(tmp_path / "data")
    assert "cannot be used" in failure.value.english
    assert "无法使用" in failure.value.chinese


@pytest.mark.parametrize("first_damaged_byte", [0, 3 * 4096])
def test_a_damaged_database_is_reported_and_the_folder_let_go(
    tmp_path: Path, first_damaged_byte: int
) -> None:
    first = open_main(tmp_path)
    add(first, *(str(n) for n in range(300)), text="text " * 50)
    first.close()
    database = tmp_path / "collections" / "main" / "documents.sqlite3"
    whole = database.read_bytes()
    damage = b"\xff" * (len(whole) - first_damaged_byte)
    for _ in range(2):
        database.write_bytes(whole[:first_damaged_byte] + damage)
        with pytest.raises(StoreError) as failure:
            open_main(tmp_path)
        assert "damaged" in failure.value.english
        assert "已损坏" in failure.value.chinese
    database.write_bytes(whole)
    again = open_main(tmp_path)
    assert again.count == 300
    again.close()


def hold(folder: Path, pipe: Connection) -> None:
    opened = open_main(folder)
    pipe.send(os.getpid())
    pipe.recv()
    opened.close()


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    ours, theirs = SPAWN.Pipe()
    holder = SPAWN.Process(target=hold, args=(tmp_path, theirs))
    holder.start()
    pid = ours.recv()
    with pytest.raises(StoreError) as refusal:
        Collection.open(tmp_path, "another", manifest())
    assert f"process {pid};" in refusal.value.english
    assert f"进程 {pid} " in refusal.value.chinese
    ours.send("go")
    holder.join()
    open_main(tmp_path).close()


def test_a_refused_opening_lets_go_of_the_folder(tmp_path: Path) -> None:
    open_main(tmp_path).close()
    for _ in range(2):
        with pytest.raises(StoreError, match="model-b"):
            Collection.open(tmp_path, "main", manifest("model-b"))
    first = open_main(tmp_path)
    with pytest.raises(StoreError, match=f"process {os.getpid()};"):
        open_main(tmp_path)
    first.close()


def write_forever(folder: Path, run: int, pipe: Connection) -> None:
    """Every round adds, rewrites and deletes, and only then tells."""
    collection = open_main(folder)
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
        told = [ours.recv() for _ in range(rounds)]
        writer.kill()
        writer.join()
        while ours.poll():
            try:
                told.append(ours.recv())
            except EOFError:
                break
        acknowledged |= {f"{run}.{n}.{i}" for n in told for i in (1, 2, 3)}

        collection = open_main(tmp_path)
        assert collection.get(sorted(acknowledged)).keys() == acknowledged
        assert not collection.get([f"{run}.{n}.0" for n in told])
        assert int(collection.get(["counter"])["counter"].text) >= run * 1000 + told[-1]
        assert all(collection.search(vector_of(id), 1)[0].id == id for id in acknowledged)
        assert collection.count == collection._documents.count()
        collection.close()


def test_searches_never_see_half_an_update(collection: Collection) -> None:
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
    for version in range(1, 40):
        add(collection, *ids, text=str(version))
    written.set()
    for thread in threads:
        thread.join()
    assert all(n_hits == 20 and len(texts) == 1 for n_hits, texts in seen)
    assert {"0", "39"} <= {min(texts) for _, texts in seen}


def test_a_search_between_commit_and_swap_sees_the_old_state_whole(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(collection, "a", "b", text="old")
    transaction = collection._documents.transaction
    seen: list[str] = []

    @contextmanager
    def searched_after_commit() -> Iterator[None]:
        with transaction():
            yield
        seen.extend(f"{hit.id} {hit.text}" for hit in collection.search(vector_of("a"), 2))

    monkeypatch.setattr(collection._documents, "transaction", searched_after_commit)
    add(collection, "a", "b", text="new")
    collection.delete(["a"])
    assert sorted(seen[:2]) == ["a old", "b old"]
    assert sorted(seen[2:]) == ["a new", "b new"]


def test_a_search_that_a_whole_write_overtakes_asks_the_new_index(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(collection, "a", text="old")
    by_labels = collection._documents.by_labels

    def overtaken(labels: Labels) -> dict[int, Document]:
        monkeypatch.undo()
        add(collection, "a", text="new")
        return by_labels(labels)

    monkeypatch.setattr(collection._documents, "by_labels", overtaken)
    assert [hit.text for hit in collection.search(vector_of("a"), 1)] == ["new"]


def test_an_index_that_missed_a_delete_never_shows_what_is_gone(collection: Collection) -> None:
    add(collection, "a", "b")
    missed = collection._index
    collection.delete(["a"])
    collection._index = missed
    assert [hit.id for hit in collection.search(vector_of("a"), 2)] == ["b"]
