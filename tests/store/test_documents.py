"""Real database files; what the disk or another program does to them is done to them here."""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from server.errors import InvalidRequest, StoreError
from server.store import documents as documents_module
from server.store.documents import SCHEMA_VERSION, Change, Document, Documents, Info
from server.types import Vectors

INFO = Info("laws", "fingerprint-a", 4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "documents.sqlite3"


@pytest.fixture
def documents(path: Path) -> Iterator[Documents]:
    opened = Documents(path, INFO, busy_timeout_s=0)
    yield opened
    opened.close()


def vectors(n: int, seed: int = 0) -> Vectors:
    return np.random.default_rng(seed).standard_normal((n, 4), dtype=np.float32)


def add(documents: Documents, *items: Document) -> Change:
    with documents.transaction():
        return documents.add(items, vectors(len(items)))


def delete(documents: Documents, ids: Sequence[str]) -> Change:
    with documents.transaction():
        return documents.delete(ids)


def test_documents_come_back_as_they_were_stored(documents: Documents) -> None:
    plain = Document("a", "民法典")
    full = Document(
        "b", "a\0b\r\n\ufeff😀", "标题\0", {"年": [2020, 1.5, None, True, {"深": "\0"}]}
    )
    change = add(documents, plain, full)
    assert documents.get(["b", "missing", "a"]) == {"a": plain, "b": full}
    assert documents.by_labels(change.added) == dict(
        zip(change.added.tolist(), [plain, full], strict=True)
    )


def test_vectors_come_back_bit_for_bit_in_the_order_asked(documents: Documents) -> None:
    stored = vectors(3)
    stored[1] = [0.0, -0.0, 1e-45, 3e38]
    with documents.transaction():
        change = documents.add([Document(id, id) for id in "abc"], stored)
    found = documents.vectors(change.added[::-1])
    assert found.dtype == np.float32
    assert found.tobytes() == stored[::-1].tobytes()


def test_everything_is_there_after_reopening(documents: Documents, path: Path) -> None:
    add(documents, Document("a", "甲"), Document("b", "乙"))
    documents.close()
    again = Documents(path, Info("other", "fingerprint-b", 8))
    assert again.info == INFO, "the file says what it is, whatever it was opened for"
    assert again.identity == documents.identity
    assert again.count() == 2
    assert again.get(["b"])["b"].text == "乙"
    again.close()


def test_two_databases_have_different_identities(documents: Documents, tmp_path: Path) -> None:
    other = Documents(tmp_path / "other.sqlite3", INFO)
    assert other.identity != documents.identity
    other.close()


def test_commits_reach_the_disk_before_they_return(documents: Documents) -> None:
    settings = {
        name: documents._writer.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys")
    }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_writing_an_id_again_replaces_it_under_a_new_label(documents: Documents) -> None:
    first = add(documents, Document("a", "old"), Document("b", "kept"))
    second = add(documents, Document("a", "new"))
    assert second.removed.tolist() == [first.added[0]]
    assert second.added[0] > first.added.max()
    assert documents.get(["a"])["a"].text == "new"
    assert documents.labels().tolist() == [first.added[1], second.added[0]]


def test_an_id_twice_in_one_write_keeps_the_last(documents: Documents) -> None:
    change = add(documents, Document("a", "first"), Document("a", "last"))
    assert change.removed.tolist() == [change.added[0]]
    assert documents.get(["a"])["a"].text == "last"
    assert documents.count() == 1


def test_a_label_is_never_used_twice(documents: Documents, path: Path) -> None:
    last = add(documents, Document("a", "a")).added[0]
    delete(documents, ["a"])
    assert documents.last_label() == last
    documents.close()
    again = Documents(path, INFO)
    assert add(again, Document("a", "a")).added[0] > last
    again.close()


def test_deleting_skips_ids_that_are_not_there(documents: Documents) -> None:
    change = add(documents, Document("a", "a"), Document("b", "b"))
    gone = delete(documents, ["b", "missing", "b"])
    assert gone.removed.tolist() == [change.added[1]]
    assert not len(gone.added)
    assert documents.by_labels(change.added).keys() == {change.added[0]}


def test_only_the_very_same_text_is_unchanged(documents: Documents) -> None:
    add(documents, Document("a", "甲"), Document("b", "乙"))
    assert documents.unchanged({"a": "甲", "b": "乙 ", "c": "丙"}) == {"a"}


def test_more_keys_than_one_query_takes(
    documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents_module, "KEYS_PER_QUERY", 3)
    ids = [str(n) for n in range(10)]
    change = add(documents, *(Document(id, id) for id in ids))
    assert list(documents.get(ids)) == ids
    assert len(documents.vectors(change.added)) == 10


def test_an_empty_database_answers_everything(documents: Documents) -> None:
    assert documents.count() == documents.last_label() == 0
    assert documents.labels().dtype == np.int64
    assert documents.vectors(documents.labels()).shape == (0, 4)
    assert documents.get([]) == {}


def test_a_transaction_that_raises_stores_nothing(documents: Documents) -> None:
    add(documents, Document("a", "old"))
    with pytest.raises(RuntimeError), documents.transaction():
        documents.add([Document("a", "new"), Document("b", "b")], vectors(2))
        raise RuntimeError
    assert documents.count() == 1
    assert documents.get(["a"])["a"].text == "old"
    add(documents, Document("b", "works again"))


def test_readers_see_only_what_was_committed(documents: Documents) -> None:
    add(documents, Document("a", "old"))
    with documents.transaction():
        documents.add([Document("a", "new")], vectors(1))
        assert documents.get(["a"])["a"].text == "old"
    assert documents.get(["a"])["a"].text == "new"


@pytest.mark.parametrize(
    ("document", "param"),
    [
        (Document("\ud800", "text"), "id"),
        (Document("a", "half \udc00"), "text"),
        (Document("a", "text", "\ud83d"), "title"),
        (Document("a", "text", metadata={"\ud800": 1}), "metadata"),
        (Document("a", "text", metadata={"x": float("nan")}), "metadata"),
    ],
)
def test_what_is_not_text_is_refused_and_nothing_stored(
    documents: Documents, document: Document, param: str
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        add(documents, Document("good", "good"), document)
    assert refusal.value.param == param
    assert param in refusal.value.message
    refusal.value.message.encode()
    assert documents.count() == 0


def test_vectors_of_another_width_are_our_bug(documents: Documents) -> None:
    with pytest.raises(AssertionError), documents.transaction():
        documents.add([Document("a", "a")], np.zeros((1, 5), dtype=np.float32))
    with pytest.raises(sqlite3.IntegrityError), documents.transaction():
        documents._writer.execute("INSERT INTO documents VALUES (1, 'a', 'a', NULL, '{}', x'00')")


def test_writing_outside_a_transaction_is_our_bug(documents: Documents) -> None:
    with pytest.raises(AssertionError):
        documents.delete(["a"])


def test_a_newer_schema_is_refused_and_left_alone(documents: Documents, path: Path) -> None:
    documents._writer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    documents.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="newer server") as refusal:
        Documents(path, INFO)
    assert "新版" in refusal.value.chinese
    assert path.read_bytes() == before


def check_advice(error: StoreError, path: Path, english: str, chinese: str) -> None:
    assert str(path) in error.english and str(path) in error.chinese
    assert english in error.english
    assert chinese in error.chinese


def test_a_file_that_is_no_database_is_reported(path: Path) -> None:
    path.write_bytes(b"not a database, " * 1000)
    with pytest.raises(StoreError) as failure:
        Documents(path, INFO)
    check_advice(failure.value, path, "restore it from a backup", "从备份恢复")


def test_damaged_pages_are_reported(documents: Documents, path: Path) -> None:
    add(documents, *(Document(str(n), "text " * 100) for n in range(500)))
    documents.close()
    content = bytearray(path.read_bytes())
    content[3 * 4096 :] = b"\xff" * (len(content) - 3 * 4096)
    path.write_bytes(content)
    with pytest.raises(StoreError) as failure:
        damaged = Documents(path, INFO)
        try:
            damaged.get([str(n) for n in range(500)])
        finally:
            damaged.close()
    check_advice(failure.value, path, "restore it from a backup", "从备份恢复")


def test_a_full_disk_is_reported_and_stores_nothing(documents: Documents, path: Path) -> None:
    add(documents, Document("a", "a"))
    pages = documents._writer.execute("PRAGMA page_count").fetchone()[0]
    documents._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError) as failure:
        add(documents, Document("b", "small"), Document("c", "x" * 100_000))
    check_advice(failure.value, path, "free some space", "释放空间")
    assert documents.get(["a", "b", "c"]).keys() == {"a"}


def test_a_locked_database_is_reported(documents: Documents, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError) as failure:
        add(documents, Document("a", "a"))
    check_advice(failure.value, path, "another program", "其他程序")
    other.execute("ROLLBACK")
    other.close()
    add(documents, Document("a", "a"))


def test_a_database_that_cannot_be_written_is_reported(documents: Documents, path: Path) -> None:
    documents._writer.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError) as failure:
        add(documents, Document("a", "a"))
    check_advice(failure.value, path, "permissions", "权限")


def test_a_file_system_without_wal_is_refused() -> None:
    # SQLite's database in memory stands in for a network drive: it has no WAL either.
    with pytest.raises(StoreError) as refusal:
        Documents(Path(":memory:"), INFO)
    check_advice(refusal.value, Path(":memory:"), "local disk", "本地磁盘")


def test_a_database_that_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as failure:
        Documents(tmp_path, INFO)
    check_advice(failure.value, tmp_path, "permissions", "权限")
