"""Database files of documents: reopened, of another version, locked, full, missing, or no such file."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from server.errors import StoreDamaged, StoreError
from server.store import schema
from server.store.documents import Documents
from server.store.filters.tree import parse
from server.store.records import Document, Info
from server.store.schema import PARTS, SCHEMA_VERSION, chunk_checksum
from server.store.sqlite import database as database_module
from server.store.sqlite.stored_text import unpacked as unpacked_text
from server.store.upkeep.integrity import faults_in
from server.store.vector_blob import rounded, unpacked
from tests.support.stored_documents import INFO, add, check_advice, vectors


def test_commits_reach_the_disk_before_they_return(documents: Documents) -> None:
    settings = {
        name: documents.database.writer.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys")
    }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


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


def test_a_newer_schema_is_refused_and_left_alone(documents: Documents, path: Path) -> None:
    documents.database.writer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    documents.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="newer server") as refusal:
        Documents(path, INFO)
    assert "新版" in refusal.value.chinese
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_reported(path: Path) -> None:
    path.write_bytes(b"not a database, " * 1000)
    with pytest.raises(StoreError) as failure:
        Documents(path, INFO)
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
        ("PRAGMA user_version = 5", "run the newer server"),
        ("DELETE FROM meta", "KeyError"),
        ("DELETE FROM meta WHERE key = 'name'", "KeyError: 'name'"),
        ("DELETE FROM meta WHERE key = 'words'", "KeyError: 'words'"),
        ("UPDATE meta SET value = 'x' WHERE key = 'identity'", "ValueError"),
        ("UPDATE meta SET value = '4.5' WHERE key = 'dimension'", "ValueError"),
        ("UPDATE meta SET value = '-4' WHERE key = 'dimension'", "outside 1 to"),
        ("UPDATE meta SET value = '5' WHERE key = 'dimension'", "10 bytes, not 12"),
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
        assert documents.vectors(documents.labels()).tobytes() == rounded(stored[:2]).tobytes()
        assert documents.get(["id1"])["id1"] == Document("id1", "劳动合同1", None, {"n": 1})
        assert sorted(documents.words("劳动合同", 2).labels.tolist()) == [1, 2]
        assert documents.labels(parse({"n": 1})).tolist() == [2]
        documents.close()
    documents = Documents(path, None)
    assert add(documents, Document("new", "new")).added.tolist() == [4], "3 was used"
    documents.close()


def as_version_2(path: Path) -> None:
    """Rewrite a closed file as the version before this one left it: vectors in float32."""
    with closing(sqlite3.connect(path)) as old:
        old.execute("DROP INDEX parts_of_document")
        old.execute("ALTER TABLE parts RENAME TO new_parts")
        for statement in PARTS:
            old.execute(statement.format(vector_bytes=16))
        rows = old.execute("SELECT label, document, begin, end, vector FROM new_parts").fetchall()
        for label, document, begin, end, blob in rows:
            vector = unpacked([blob], 4).tobytes()
            checksum = chunk_checksum(document, begin, end, vector)
            row = (label, document, begin, end, vector, checksum)
            old.execute("INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?)", row)
        old.execute("UPDATE sqlite_sequence SET seq = 9 WHERE name = 'parts'")
        old.execute("DROP TABLE new_parts")
        old.commit()
    as_version_3(path)
    with closing(sqlite3.connect(path)) as old:
        old.execute("PRAGMA user_version = 2")


def as_version_3(path: Path) -> None:
    """Rewrite a closed file as a version left it that kept texts only as they are."""
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        rows = old.execute("SELECT text, number FROM documents").fetchall()
        old.execute("PRAGMA writable_schema = ON")
        old.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, 'text ANY', 'text TEXT')"
            " WHERE type = 'table' AND name = 'documents'"
        )
        old.execute("PRAGMA user_version = 3")
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        plain = [(unpacked_text(kept), number) for kept, number in rows]
        old.executemany("UPDATE documents SET text = ? WHERE number = ?", plain)


def test_a_file_of_version_2_keeps_its_labels_and_halves_its_vectors(
    documents: Documents, path: Path
) -> None:
    add(documents, *(Document(id, f"劳动合同{id}", None, {"of": id}) for id in "abc"))
    with documents.transaction():
        documents.delete(["b"])
    labels = documents.labels()
    stored = documents.vectors(labels)
    documents.close()
    as_version_2(path)
    for _ in range(2):
        again = Documents(path, None)
        assert again.labels().tolist() == labels.tolist()
        assert again.vectors(labels).tobytes() == stored.tobytes()
        assert again.labels(parse({"of": "c"})).tolist() == [3]
        assert sorted(again.words("劳动合同", 2).labels.tolist()) == [1, 3]
        assert faults_in(again) == []
        again.close()
    again = Documents(path, None)
    assert add(again, Document("new", "new")).added.tolist() == [10], "9 was used"
    again.close()


LONG = "用人单位自用工之日起即与劳动者建立劳动关系，应当订立书面劳动合同。" * 3


def test_texts_of_version_3_stay_as_they_are_and_new_ones_are_packed(
    documents: Documents, path: Path
) -> None:
    old = [Document("short", "墨池"), Document("long", LONG, "劳动法", {"n": 1})]
    add(documents, *old)
    documents.close()
    as_version_3(path)
    again = Documents(path, None)
    assert again.get(["short", "long"]) == {each.id: each for each in old}
    add(again, new := Document("new", LONG + "乙"))
    kinds: dict[str, str] = dict(again.database.rows("SELECT id, typeof(text) FROM documents"))
    assert kinds == {"short": "text", "long": "text", "new": "blob"}
    again.close()
    again = Documents(path, None)
    assert again.get(["new", "long"]) == {"new": new, "long": old[1]}
    assert sorted(again.ids(parse({"$text": {"$contains": "书面劳动合同"}}))) == ["long", "new"]
    assert again.ids(parse({"$text": {"$prefix": LONG[:9]}, "n": 1})) == ["long"]
    assert faults_in(again) == []
    with again.transaction():
        again.delete(["new", "long"])
    assert faults_in(again) == []
    again.close()


def test_a_packed_text_that_is_damaged_is_reported(documents: Documents, path: Path) -> None:
    add(documents, Document("a", LONG), Document("b", "乙"))
    writer = documents.database.writer
    ((kept,),) = writer.execute("SELECT text FROM documents WHERE id = 'a'").fetchall()
    for damaged in (kept[:-1], kept + b"x", b"\3" + kept[1:], b"", kept[:9] + b"!" + kept[10:], 7):
        writer.execute("UPDATE documents SET text = ? WHERE id = 'a'", (damaged,))
        with pytest.raises(StoreDamaged, match="document 'a'"):
            documents.get(["a"])
        assert any("document 'a'" in str(fault) for fault in faults_in(documents))
    assert documents.get(["b"])["b"].text == "乙"


def test_a_damaged_vector_of_version_2_is_still_damaged(documents: Documents, path: Path) -> None:
    add(documents, Document("a", "甲"), Document("b", "乙"))
    documents.close()
    as_version_2(path)
    with closing(sqlite3.connect(path)) as old:
        changed = np.array([1, float("nan"), 0, 0], dtype="<f4").tobytes()
        old.execute("UPDATE parts SET vector = ? WHERE label = 2", (changed,))
        old.commit()
    again = Documents(path, None)
    assert len(again.vectors(np.array([1]))) == 1
    with pytest.raises(StoreDamaged, match="the vector of part 2"):
        again.vectors(np.array([2]))
    again.close()


def test_a_migration_that_a_kill_interrupts_leaves_the_old_file(
    documents: Documents, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(documents, *(Document(id, id) for id in "abc"))
    labels = documents.labels()
    documents.close()
    as_version_2(path)

    def killed(stored: bytes) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(schema, "from_float32", killed)
        Documents(path, None)
    with closing(sqlite3.connect(path)) as old:
        assert old.execute("PRAGMA user_version").fetchone() == (2,)
        assert old.execute("SELECT DISTINCT length(vector) FROM parts").fetchall() == [(16,)]
    again = Documents(path, None)
    assert again.labels().tolist() == labels.tolist()
    again.close()
