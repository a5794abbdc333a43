"""Documents in real database files, which are also damaged as a disk or a program would."""

import errno
import json
import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from server.errors import InvalidRequest, StoreDamaged, StoreError
from server.store import database as database_module
from server.store.database import PAGE_BYTES
from server.store.documents import Documents
from server.store.filter_tree import parse
from server.store.records import Change, Chunk, ChunkRules, Document, Info, Span
from server.store.schema import SCHEMA_VERSION
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
    parts = documents.by_labels(change.added)
    assert [parts[label] for label in change.added.tolist()] == [
        Chunk(each.id, each.text, each.title, each.metadata, Span(0, len(each.text)), True)
        for each in (plain, full)
    ]


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
        name: documents.database.writer.execute(f"PRAGMA {name}").fetchone()[0]
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


def test_only_the_very_same_document_is_unchanged(documents: Documents) -> None:
    stored = [Document("a", "甲"), Document("b", "乙", "题", {"n": [1]}), Document("c", "丙")]
    add(documents, *stored)
    changed = Document("c", "丙", metadata={"n": 1})
    assert documents.unchanged([*stored[:2], changed, Document("d", "丁")]) == {"a", "b"}


def test_more_keys_than_one_query_takes(
    documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "KEYS_PER_QUERY", 3)
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
        documents.database.writer.execute("INSERT INTO parts VALUES (1, 1, 0, 1, x'00', 0)")


def test_writing_outside_a_transaction_is_our_bug(documents: Documents) -> None:
    with pytest.raises(AssertionError):
        documents.delete(["a"])


def test_a_newer_schema_is_refused_and_left_alone(documents: Documents, path: Path) -> None:
    documents.database.writer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
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
    content[3 * PAGE_BYTES :] = b"\xff" * (len(content) - 3 * PAGE_BYTES)
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
    pages = documents.database.writer.execute("PRAGMA page_count").fetchone()[0]
    documents.database.writer.execute(f"PRAGMA max_page_count = {pages}")
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
    documents.database.writer.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError) as failure:
        add(documents, Document("a", "a"))
    check_advice(failure.value, path, "permissions", "权限")


def test_a_file_system_without_wal_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # SQLite's way of access to network drives: it has no shared memory, so no WAL.
    monkeypatch.setattr(database_module, "quoted", lambda path: f"{path}?vfs=unix-dotfile&rest=")
    with pytest.raises(StoreError) as refusal:
        Documents(path, INFO)
    check_advice(refusal.value, path, "local disk", "本地磁盘")


def test_a_database_that_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as failure:
        Documents(tmp_path, INFO)
    check_advice(failure.value, tmp_path, "permissions", "权限")


# --- parts, filters and words -----------------------------------------------------------------------


def test_parts_come_back_with_their_text_and_place(documents: Documents, path: Path) -> None:
    with documents.transaction():
        change = documents.add(
            [Document("a", "甲乙丙丁戊", "题"), Document("b", "己")],
            vectors(3),
            [[Span(0, 3), Span(2, 5)], [Span(0, 1)]],
        )
    parts = documents.by_labels(change.added)
    assert [(part.id, part.text, part.span, part.whole) for part in parts.values()] == [
        ("a", "甲乙丙", (0, 3), False),
        ("a", "丙丁戊", (2, 5), False),
        ("b", "己", (0, 1), True),
    ]
    assert documents.count() == 2
    owners = documents.owners(change.added)
    assert len(owners) == 3 and len(set(owners.values())) == 2
    assert len(delete(documents, ["a"]).removed) == 2
    assert documents.labels().tolist() == [change.added[2]]


def test_how_documents_are_cut_is_kept(tmp_path: Path) -> None:
    info = Info("cut", "fingerprint-a", 4, ChunkRules(100, 10))
    Documents(tmp_path / "a", info).close()
    again = Documents(tmp_path / "a", None)
    assert again.info == info
    again.close()


def test_filters_select_documents_and_parts(documents: Documents) -> None:
    items = [Document(str(n), f"文本{n}", metadata={"n": n, "tag": ["x"]}) for n in range(6)]
    labels = add(documents, *items).added
    late = parse({"n": {"$gte": 4}})
    assert documents.labels(late).tolist() == labels[4:].tolist()
    assert documents.ids(late) == ["4", "5"]
    assert documents.count(late) == 2
    assert [each.id for _, each in documents.page(0, 1, late)] == ["4"]
    delete(documents, ["5"])
    add(documents, Document("4", "文本4", metadata={"n": 0}))
    assert documents.labels(late).tolist() == []
    assert documents.count(parse({"tag": "x"})) == 4


def test_words_are_found_until_their_document_goes(documents: Documents) -> None:
    first, second = add(
        documents, Document("a", "劳动合同的解除", "民法"), Document("b", "房屋买卖合同")
    ).added.tolist()

    def found(query: str, filter: dict[str, object] | None = None) -> list[int]:
        matches = documents.words(query, 2, parse(filter) if filter else None)
        assert list(matches.scores) == sorted(matches.scores, reverse=True)
        assert all(0 < matches.shares) and all(matches.shares <= 1)
        return [int(label) for label in matches.labels]

    assert found("劳动合同") == [first, second], "more of its words, then fewer"
    assert found("房屋") == [second]
    assert sorted(found("合同")) == [first, second]
    assert found("劳") == [first]
    assert found("民法") == [first], "in the title"
    assert found("劳动合同", {"n": 1}) == []
    assert found("？") == found("") == []
    delete(documents, ["a"])
    assert found("劳动合同") == [second]
    assert found("民法") == found("劳") == []
    documents.database.writer.execute("INSERT INTO words (words) VALUES ('integrity-check')")


def test_words_that_another_version_indexed_are_indexed_again(
    documents: Documents, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    label = int(add(documents, Document("a", "劳动合同", "民法")).added[0])
    with documents.transaction():
        documents.note("words", "pairs-0")
        documents.database.writer.execute("INSERT INTO words (words) VALUES ('delete-all')")
    assert documents.words("民法", 1).labels.tolist() == []
    documents.close()
    again = Documents(path, None)
    assert "indexed again" in caplog.text
    assert again.words("民法", 1).labels.tolist() == [label]
    again.close()


def test_pages_follow_each_other_without_gap(documents: Documents) -> None:
    add(documents, *(Document(str(n), "x") for n in range(7)))
    seen: list[str] = []
    after = 0
    while page := documents.page(after, 3):
        seen += [document.id for _, document in page]
        after = page[-1][0]
    assert seen == [str(n) for n in range(7)]


# --- damage and age ---------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["text", "title", "metadata", "id"])
def test_a_document_changed_behind_our_back_is_refused(
    documents: Documents, path: Path, column: str
) -> None:
    label = add(documents, Document("a", "甲", "题", {"k": 1})).added
    value = '{"k": 2}' if column == "metadata" else "b"
    documents.database.writer.execute(f"UPDATE documents SET {column} = ?", (value,))
    with pytest.raises(StoreDamaged) as failure:
        documents.by_labels(label)
    check_advice(failure.value, path, "backup", "备份")


def test_title_that_was_lost_is_told_from_an_empty_one(documents: Documents) -> None:
    label = add(documents, Document("a", "甲", "")).added
    documents.database.writer.execute("UPDATE documents SET title = NULL")
    with pytest.raises(StoreDamaged):
        documents.by_labels(label)


def test_text_that_is_no_text_any_more_is_damage(documents: Documents, path: Path) -> None:
    add(documents, Document("a", "甲"))
    documents.database.writer.execute("UPDATE documents SET text = CAST(x'ff' AS TEXT)")
    with pytest.raises(StoreDamaged) as failure:
        documents.get(["a"])
    check_advice(failure.value, path, "backup", "备份")


@pytest.mark.parametrize(
    ("column", "value"),
    [("vector", vectors(1, 9).tobytes()), ("document", 2), ("begin", 1), ("end", 2)],
)
def test_a_vector_or_its_place_changed_behind_our_back_is_refused(
    documents: Documents, path: Path, column: str, value: object
) -> None:
    labels = add(documents, Document("a", "甲"), Document("b", "乙")).added
    documents.database.writer.execute(f"UPDATE parts SET {column} = ? WHERE label = 1", (value,))
    assert len(documents.vectors(labels[1:])) == 1
    with pytest.raises(StoreDamaged) as failure:
        documents.vectors(labels)
    check_advice(failure.value, path, "backup", "备份")


@pytest.mark.parametrize("change", ["begin = begin + 1", "end = end - 1", "document = 2"])
def test_a_chunk_moved_behind_our_back_is_refused(
    documents: Documents, path: Path, change: str
) -> None:
    label = add(documents, Document("a", "甲乙丙"), Document("b", "丁")).added[:1]
    documents.database.writer.execute(f"UPDATE parts SET {change} WHERE label = ?", label.tolist())
    with pytest.raises(StoreDamaged) as failure:
        documents.vectors(label)
    check_advice(failure.value, path, "backup", "备份")


def test_a_disk_that_refuses_to_read_is_not_called_damage(
    documents: Documents, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    corrupt = sqlite3.DatabaseError("database disk image is malformed")
    corrupt.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    with pytest.raises(StoreDamaged), documents.database.advising():
        raise corrupt
    # SQLite reports the same where the disk refuses; `tests/stress` has such a disk.
    monkeypatch.setattr(os, "pread", refuse)
    with pytest.raises(StoreError) as failure, documents.database.advising():
        raise corrupt
    assert type(failure.value) is StoreError
    check_advice(failure.value, path, "the disk failed: try again", "磁盘")


@pytest.mark.parametrize("info", [None, INFO])
def test_empty_file_is_damage_and_is_not_changed(path: Path, info: Info | None) -> None:
    path.touch()
    with pytest.raises(StoreDamaged) as failure:
        Documents(path, info)
    check_advice(failure.value, path, "backup", "备份")
    assert path.read_bytes() == b""
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_missing_file_is_not_created(path: Path) -> None:
    with pytest.raises(StoreDamaged) as failure:
        Documents(path, None)
    check_advice(failure.value, path, "is missing", "不存在")
    assert not path.exists()


def test_reading_creates_no_file_in_the_place_of_a_lost_one(
    documents: Documents, path: Path
) -> None:
    path.unlink()
    # The first reader was open before; the second one looks for the file.
    with documents.database.reading(), pytest.raises(StoreError):
        documents.count()
    assert not path.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("PRAGMA user_version = 0", "schema 0, which no server writes"),
        ("PRAGMA user_version = -2", "schema -2, which no server writes"),
        ("PRAGMA user_version = 1", "which this server did not create"),
        ("PRAGMA user_version = 3", "run the newer server"),
        ("DELETE FROM meta", "KeyError"),
        ("DELETE FROM meta WHERE key = 'name'", "KeyError: 'name'"),
        ("DELETE FROM meta WHERE key = 'words'", "KeyError: 'words'"),
        ("UPDATE meta SET value = 'x' WHERE key = 'identity'", "ValueError"),
        ("UPDATE meta SET value = '4.5' WHERE key = 'dimension'", "ValueError"),
        ("UPDATE meta SET value = '-4' WHERE key = 'dimension'", "outside 1 to"),
        ("UPDATE meta SET value = '5' WHERE key = 'dimension'", "4 numbers, not 5"),
        ("UPDATE meta SET value = '[' WHERE key = 'chunks'", "JSONDecodeError"),
        ("UPDATE meta SET value = '7' WHERE key = 'chunks'", "chunks are 7"),
        ("UPDATE meta SET value = '[10, 10]' WHERE key = 'chunks'", "overlap of 10"),
        ("UPDATE meta SET value = '[\"a\", 1]' WHERE key = 'chunks'", "chunks are"),
        ("DROP TABLE meta", "no table meta"),
        ("DROP TABLE parts", "no table parts"),
    ],
)
def test_description_that_is_damaged_is_reported_and_the_rows_stay(
    documents: Documents, path: Path, change: str, said: str
) -> None:
    add(documents, Document("a", "甲"))
    documents.close()
    with closing(sqlite3.connect(path)) as other:
        other.execute(change)
        other.commit()
        before = list(other.iterdump())
    with pytest.raises(StoreError, match=re.escape(said)) as failure:
        Documents(path, None)
    assert str(path) in failure.value.english and str(path) in failure.value.chinese
    with closing(sqlite3.connect(path)) as other:
        assert list(other.iterdump()) == before


VERSION_1 = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
    """CREATE TABLE documents (
        label INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        text TEXT NOT NULL,
        title TEXT,
        metadata TEXT NOT NULL,
        vector BLOB NOT NULL CHECK (length(vector) = 16)
    ) STRICT""",
    "PRAGMA user_version = 1",
)


def test_a_file_of_version_1_becomes_one_of_this_version(path: Path) -> None:
    old = sqlite3.connect(path)
    for statement in VERSION_1:
        old.execute(statement)
    meta = {"name": "laws", "fingerprint": "f", "dimension": "4", "identity": "0" * 32}
    old.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
    stored = vectors(3)
    for n, vector in enumerate(stored):
        row = (f"id{n}", f"劳动合同{n}", None, json.dumps({"n": n}), vector.tobytes())
        old.execute(
            "INSERT INTO documents (id, text, title, metadata, vector) VALUES (?,?,?,?,?)", row
        )
    old.execute("DELETE FROM documents WHERE id = 'id2'")
    old.commit()
    old.close()
    for _ in range(2):
        documents = Documents(path, None)
        assert documents.info == Info("laws", "f", 4, None)
        assert documents.identity.int == 0
        assert documents.labels().tolist() == [1, 2]
        assert documents.vectors(documents.labels()).tobytes() == stored[:2].tobytes()
        assert documents.get(["id1"])["id1"] == Document("id1", "劳动合同1", None, {"n": 1})
        assert sorted(documents.words("劳动合同", 2).labels.tolist()) == [1, 2]
        assert documents.labels(parse({"n": 1})).tolist() == [2]
        documents.close()
    documents = Documents(path, None)
    assert add(documents, Document("new", "new")).added.tolist() == [4], "3 was used"
    documents.close()
