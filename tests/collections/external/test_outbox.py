"""Writes on disk until a vector database has them."""

import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.databases import outbox as outbox_module
from server.databases.outbox import Outbox, Record
from server.databases.outbox_folder import OutboxFolder
from server.databases.outbox_look import Look, outboxes_in
from server.databases.outbox_rows import Delete, Put, Write, prepared
from server.errors import InvalidRequest, StoreDamaged
from server.store.records import ChunkRules, Document, Info, Span

INFO = Info("laws", "f" * 16, 4, ChunkRules(100, 10))
RECORD = Record(INFO, "main", "inkwell_laws")


def put(id: str, text: str = "墨池 ink", *, chunks: int = 1) -> Put:
    document = Document(id, text, "标题", {"n": 10**30, "deep": [{"a": None}], "b": True})
    step = len(text) // chunks
    spans = [Span(n * step, (n + 1) * step) for n in range(chunks)]
    vectors = (np.arange(4 * chunks).reshape(chunks, 4) / 7).astype(np.float32)
    return Put(document, f"digest of {id}", spans, vectors)


def append(outbox: Outbox, *writes: Write) -> int:
    return outbox.append([prepared(write) for write in writes])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


def test_writes_come_out_as_they_went_in(path: Path) -> None:
    writes = [put("a\0é\U0001f600", "墨\0池 ink", chunks=2), put("b")]
    outbox = Outbox(path, RECORD)
    append(outbox, *writes)
    outbox.close()
    outbox = Outbox(path)
    assert outbox.record == RECORD
    batch = outbox.head(10, 1 << 20)
    for write, entry in zip(writes, batch.entries, strict=True):
        assert entry.document.is_same(write.document)
        assert entry.digest == write.digest
        assert [row.span for row in entry.rows] == write.spans
        assert all(row.vector.dtype == np.float32 for row in entry.rows)
        assert (np.stack([row.vector for row in entry.rows]) == write.vectors).all()
        assert all(row.words for row in entry.rows)
    assert batch.entries[1].rows[0].words["ink"] == 1
    # A single character is asked for too, wherever it stands.
    assert batch.entries[1].rows[0].words["墨"] == 1
    outbox.remove(batch)
    assert outbox.waiting == (0, 0, None)
    outbox.close()


def test_labels_only_grow_also_when_the_clock_goes_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = []
    for seconds in (1_700_000_000.0, 1_600_000_000.0, 1_700_000_000.0):
        monkeypatch.setattr(outbox_module, "wall_s", lambda seconds=seconds: seconds)
        outbox = Outbox(path, None if path.exists() else RECORD)
        append(outbox, put("a", chunks=3), put("b"))
        batch = outbox.head(10, 1 << 20)
        labels += [row.label for entry in batch.entries for row in entry.rows]
        outbox.remove(batch)
        outbox.close()
    assert len(labels) == 12
    assert all(one < other for one, other in zip(labels, labels[1:], strict=False))
    assert labels[0] == 1_700_000_000_000_000 << 10
    assert labels[-1] < 2**63


def test_batches_have_each_id_once_and_one_kind(path: Path) -> None:
    outbox = Outbox(path, RECORD)
    append(outbox, put("a"), put("b"), put("a"), Delete("b"), Delete("c"), put("c"))
    batches = []
    while (batch := outbox.head(10, 1 << 20)).size:
        batches.append([entry.document.id for entry in batch.entries] or list(batch.removed))
        outbox.remove(batch)
    assert batches == [["a", "b"], ["a"], ["b", "c"], ["c"]]
    outbox.close()


def test_batches_are_bounded_in_documents_and_bytes(path: Path) -> None:
    outbox = Outbox(path, RECORD)
    append(outbox, *(put(str(n)) for n in range(5)))
    assert outbox.head(2, 1 << 20).size == 2
    assert outbox.head(5, 1).size == 1
    outbox.close()


def test_what_waits_is_known_by_id(path: Path) -> None:
    outbox = Outbox(path, RECORD)
    append(outbox, put("a", "first"), put("b"), put("a", "second"), Delete("b"))
    found = outbox.latest(["a", "b", "c", "a"])
    assert found.keys() == {"a", "b"}
    assert found["b"] is None
    assert found["a"] is not None and found["a"].text == "second"
    assert {id for id, document in outbox.every_latest() if document is None} == {"b"}
    assert outbox.waiting.writes == 4
    outbox.close()


def test_refused_write_can_be_set_aside(path: Path) -> None:
    outbox = Outbox(path, RECORD)
    append(outbox, put("bad"), put("good"))
    assert outbox.set_aside() is None
    outbox.note_refusal("too long")
    outbox.close()
    outbox = Outbox(path)
    assert outbox.refusal == "too long"
    assert outbox.set_aside() == "bad"
    assert outbox.refusal is None
    assert [entry.document.id for entry in outbox.head(10, 1 << 20).entries] == ["good"]
    (aside,) = outbox.aside(10)
    assert (aside.id, aside.reason) == ("bad", "too long")
    assert aside.document is not None and aside.document.is_same(put("bad").document)
    assert outbox.latest(["bad"]) == {}
    # Taking the others leaves it where it is.
    outbox.remove(outbox.head(10, 1 << 20))
    assert (outbox.waiting.writes, outbox.n_aside()) == (0, 1)
    assert outbox.forget_aside() == 1
    outbox.close()


def test_requests_append_while_a_thread_delivers(path: Path) -> None:
    outbox = Outbox(path, RECORD)
    stop, taken = threading.Event(), list[str]()

    def deliver() -> None:
        while not stop.is_set() or outbox.waiting.writes:
            batch = outbox.head(3, 1 << 20)
            taken.extend(entry.document.id for entry in batch.entries)
            if batch.size:
                outbox.remove(batch)

    thread = threading.Thread(target=deliver)
    thread.start()
    ids = [f"{n}" for n in range(60)]
    try:
        for id in ids:
            append(outbox, put(id))
    finally:
        stop.set()
        thread.join()
    assert taken == ids
    outbox.close()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(max_size=5), max_size=6))
def test_counts_of_what_waits_are_those_of_the_file(
    tmp_path_factory: object, ids: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("outbox")  # type: ignore[attr-defined]
    outbox = Outbox(folder / "outbox.db", RECORD)
    writes: list[Write] = [put(id) if n % 2 else Delete(id) for n, id in enumerate(ids)]
    try:
        append(outbox, *writes)
        outbox.remove(outbox.head(2, 1 << 20))
    except InvalidRequest:
        assert any("\ud800" <= letter <= "\udfff" for id in ids for letter in id)
    waiting = outbox.waiting
    outbox.close()
    outbox = Outbox(folder / "outbox.db")
    assert outbox.waiting == waiting
    outbox.close()


def test_damaged_row_is_noticed(path: Path) -> None:
    outbox = Outbox(path, RECORD)
    append(outbox, put("a"))
    outbox.close()
    with sqlite3.connect(path) as other:
        other.execute("UPDATE writes SET text = 'something else'")
    other.close()
    outbox = Outbox(path)
    with pytest.raises(StoreDamaged, match="the waiting document 'a'"):
        outbox.head(10, 1 << 20)
    outbox.close()


def test_file_that_is_no_outbox_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE meta (key TEXT, value TEXT)")
        other.execute("PRAGMA user_version = 1")
    other.close()
    with pytest.raises(StoreDamaged, match="holds no record of a collection"):
        Outbox(path)


def test_outboxes_are_looked_into_without_being_opened(tmp_path: Path) -> None:
    folder = OutboxFolder(tmp_path)
    outbox = folder.create(RECORD)
    append(outbox, put("a"), put("b"))
    outbox.note_refusal("too long")
    outbox.set_aside()
    outbox.note_refusal("too short")
    found = outboxes_in(tmp_path)
    assert found == [Look("laws", "main", 1, 1, "too short")]
    folder.close()
    assert outboxes_in(tmp_path) == found
    assert outboxes_in(tmp_path / "nowhere") == []
    (tmp_path / "external" / "laws" / "outbox.db").write_bytes(b"something else" * 100)
    (broken,) = outboxes_in(tmp_path)
    assert isinstance(broken.error, StoreDamaged)


def test_folder_keeps_what_cannot_be_opened(tmp_path: Path) -> None:
    folder = OutboxFolder(tmp_path)
    for name in ("laws", "cases"):
        folder.create(Record(Info(name, "f", 4), "main", f"inkwell_{name}"))
    folder.close()
    broken = tmp_path / "external" / "laws" / "outbox.db"
    broken.write_bytes(b"something else" * 100)
    folder = OutboxFolder(tmp_path)
    assert list(folder.outboxes) == ["cases"] and list(folder.damaged) == ["laws"]
    assert broken.read_bytes() == b"something else" * 100
    folder.remove("cases")
    folder.close()
    assert sorted(path.name for path in (tmp_path / "external").iterdir()) == ["laws"]


def test_unfinished_creation_leaves_nothing(tmp_path: Path) -> None:
    OutboxFolder(tmp_path).create(RECORD).close()
    left = tmp_path / "external" / (".new-" + "0" * 32)
    left.mkdir()
    folder = OutboxFolder(tmp_path)
    assert list(folder.outboxes) == ["laws"]
    assert not left.exists()
    folder.close()
