"""Backups from anywhere: what they claim is checked, and nothing in them runs or is adopted."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from server.errors import BadSettings, StoreDamaged, StoreError
from server.inference.cpu_provenance import NOTE, note_of, provenance_here, read_provenances
from server.store.collection import DATABASE_FILE, Collection
from server.store.filters.tree import parse
from server.store.folder import INDEX, DataFolder
from server.store.records import ChunkRules, Document, Info, Listed, Span
from server.store.schema import SCHEMA_1, chunk_checksum, document_checksum
from server.store.search import Query, search
from server.store.sqlite.database import PAGE_BYTES
from server.store.upkeep import backup_file, database_file
from server.store.upkeep.database_file import copy
from server.store.upkeep.integrity import faults_of
from server.store.upkeep.restoring import restore
from server.types import Vectors
from tests.store.test_folder_files import opened

INFO = Info("laws", "model", 4, ChunkRules(10, 2))
TEXTS = [f"第{n}条 劳动合同的解除" for n in range(6)]
GOOD = [
    Document(f"id-{n}", text, f"题{n}", {"tenant": f"t{n % 2}", "deep": [[{"n": n}]]})
    for n, text in enumerate(TEXTS)
]


def vectors(number: int) -> Vectors:
    return np.random.default_rng(0).standard_normal((number, 4), dtype=np.float32)


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """A backup of six documents of two chunks each; "id-5" was stored twice."""
    with closing(DataFolder(tmp_path / "source")) as folder:
        collection = folder.create(INFO)
        collection.add(GOOD[-1:], vectors(1))
        spans = [[Span(0, 5), Span(3, len(document.text))] for document in GOOD]
        collection.add(GOOD, vectors(12), spans)
    copy(tmp_path / "source/collections/laws" / DATABASE_FILE, tmp_path / "backup")
    return tmp_path / "backup"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def change(path: Path, *statements: str) -> None:
    """Change a backup as another program may."""
    with closing(sqlite3.connect(path)) as changed, changed:
        changed.create_function("document_checksum", 4, document_checksum)
        changed.create_function("chunk_checksum", 4, chunk_checksum)
        for statement in statements:
            changed.execute(statement)


def sign(path: Path) -> None:
    """Give changed rows the checksums that they need."""
    change(
        path,
        "UPDATE documents SET checksum = document_checksum(id, text, title, metadata)",
        "UPDATE parts SET checksum = chunk_checksum(document, begin, end, vector)",
    )


def check_restored(data: Path, name: str = "laws") -> None:
    """The collection is the one of the backup, sound, and takes documents."""
    home = data / "collections" / name
    assert faults_of(home, INDEX) == []
    with closing(DataFolder(data)) as folder:
        collection = folder.collections[name]
        assert collection.documents.get([each.id for each in GOOD]) == {
            each.id: each for each in GOOD
        }
        filter = parse({"tenant": "t1", "deep.n": {"$gt": 2}})
        query = Query("hybrid", 9, vectors(12)[7], "劳动合同", filter=filter)
        (hits,) = search(collection, [query])
        assert {hit.id for hit in hits} == {"id-3", "id-5"}
        assert hits[0].id == "id-3" and hits[0].span == (3, len(TEXTS[3]))
        dense = search(collection, [Query("dense", 1, vectors(12)[7])])[0][0]
        assert dense.id == "id-3" and dense.score == pytest.approx(1, abs=1e-3)
        collection.add([Document("new", "新的")], vectors(1))
        assert collection.count == 7
        with closing(sqlite3.connect(collection.path)) as file:
            kinds = {kind for (kind,) in file.execute("SELECT type FROM sqlite_master")}
            assert kinds == {"table", "index"}


def refused(data: Path, backup: Path, kind: type[StoreError | BadSettings], said: str) -> None:
    with pytest.raises(kind) as refusal:
        restore(data, backup, None, force=True)
    for language in (refusal.value.english, refusal.value.chinese):
        assert str(backup) in language
        assert len(language) < 1000 and language.isprintable()
    assert said in refusal.value.english
    left = list((data / "collections").iterdir()) if data.exists() else []
    assert left == []


def test_backup_becomes_the_same_collection(data: Path, backup: Path) -> None:
    assert restore(data, backup, None, force=False) == Listed("laws", 6, "model")
    assert str(backup) not in opened()
    (file,) = (data / "collections/laws").iterdir()
    # The version numbers of the format: 1 where no log belongs to the file.
    assert file.read_bytes()[18:20] == b"\1\1"
    check_restored(data)
    with closing(Collection(data / "collections/laws", INDEX)) as collection:
        assert collection.info == INFO
    restore(data, backup, "copy", force=False)
    check_restored(data, "copy")


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".next-x",
        f".removed-{'0' * 32}",
        f".new-{'0' * 32}",
        "../x",
        "/tmp",
        "a\n",
        "长 短",
    ],
)
def test_name_in_a_backup_reaches_no_other_folder(data: Path, backup: Path, name: str) -> None:
    restore(data, backup, "precious", force=False)
    before = sorted(data.rglob("*"))
    with closing(sqlite3.connect(backup)) as file, file:
        file.execute("UPDATE meta SET value = ? WHERE key = 'name'", (name,))
    for force in (False, True):
        with pytest.raises(BadSettings, match="give a name with --collection") as refusal:
            restore(data, backup, None, force=force)
        assert refusal.value.english.isprintable()
    assert sorted(data.rglob("*")) == before
    restore(data, backup, "named", force=False)
    check_restored(data, "named")
    check_restored(data, "precious")


FOREIGN = [
    "CREATE TRIGGER a AFTER INSERT ON documents BEGIN DELETE FROM parts; END",
    "CREATE TRIGGER b AFTER UPDATE ON meta BEGIN DELETE FROM documents; END",
    "CREATE TRIGGER c INSTEAD OF INSERT ON v BEGIN DELETE FROM documents; END",
    "CREATE TABLE extra (x DEFAULT (randomblob(9)))",
    "CREATE INDEX every ON documents (text, id, metadata)",
    "CREATE VIRTUAL TABLE other USING fts5 (x)",
]


def test_foreign_objects_neither_run_nor_come_along(data: Path, backup: Path) -> None:
    change(backup, "CREATE VIEW v AS SELECT 1 AS x", *FOREIGN)
    restore(data, backup, None, force=False)
    check_restored(data)


def test_stored_numbers_filters_and_words_are_made_again(data: Path, backup: Path) -> None:
    change(
        backup,
        f"UPDATE sqlite_sequence SET seq = {2**63 - 1}",
        "UPDATE attributes SET value = 't0' WHERE value = 't1'",
        "DELETE FROM attributes WHERE key = 'deep.n'",
        "INSERT INTO words (words) VALUES ('delete-all')",
        "INSERT OR REPLACE INTO meta VALUES ('copied_through', '99'), ('complete', 'yes')",
        "ANALYZE",
    )
    restore(data, backup, None, force=False)
    check_restored(data)


def test_backup_of_version_1_is_restored(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "old"
    with closing(sqlite3.connect(path)) as file, file:
        for statement in SCHEMA_1:
            file.execute(statement.format(vector_bytes=16))
        meta = {"name": "laws", "fingerprint": "model", "dimension": "4", "identity": "0" * 32}
        file.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        for document, vector in zip(GOOD, vectors(6), strict=True):
            row = (document.id, document.text, document.title, json.dumps(document.metadata))
            file.execute("INSERT INTO documents VALUES (NULL, ?,?,?,?,?)", (*row, vector.tobytes()))
        file.execute("PRAGMA user_version = 1")
    assert restore(data, path, None, force=False).documents == 6
    assert faults_of(data / "collections/laws", INDEX) == []
    with closing(DataFolder(data)) as folder:
        collection = folder.collections["laws"]
        assert collection.documents.get(["id-3"])["id-3"] == GOOD[3]
        (hit,) = search(collection, [Query("dense", 1, vectors(6)[3])])[0]
        assert hit.id == "id-3" and hit.whole and hit.score == pytest.approx(1, abs=1e-3)


# --- backups that are refused -----------------------------------------------------------------------

# Each with the fault that is named; the rows have the checksums that they need.
SIGNED = {
    "vector not finite": (
        "UPDATE parts SET vector = x'0000c07f000000000000000000000000' WHERE label = 5",
        "part 5 has a vector that no model gives",
    ),
    "vector too long": (
        "UPDATE parts SET vector = x'ffff7f7fffff7f7fffff7f7fffff7f7f' WHERE label = 5",
        "part 5 has a vector that no model gives",
    ),
    "chunk outside": ("UPDATE parts SET end = 999 WHERE label = 5", "part 3 to 999 is outside its"),
    "chunk backwards": ("UPDATE parts SET begin = 9, end = 4 WHERE label = 5", "part 9 to 4 is"),
    "no chunk": ("DELETE FROM parts WHERE document = 4", "document 'id-2' has no part"),
    "chunk of nothing": ("DELETE FROM documents WHERE number = 7", "document number 7 is missing"),
    "chunks in another order": (
        "UPDATE parts SET document = 10 - document WHERE document > 2",
        "document 'id-1' has no part",
    ),
    "no id": ("UPDATE documents SET id = '' WHERE number = 4", "document '' is not what"),
    "long id": (
        "UPDATE documents SET id = replace(hex(zeroblob(9999)), '0', 'x') WHERE number = 4",
        "is not what was written",
    ),
    "metadata that is no object": (
        "UPDATE documents SET metadata = '[]' WHERE number = 4",
        "document 'id-2' cannot be stored: metadata is no object",
    ),
    "metadata that is no JSON": (
        "UPDATE documents SET metadata = '{' WHERE number = 4",
        "document 'id-2' cannot be stored",
    ),
    "metadata with NaN": (
        "UPDATE documents SET metadata = '{\"a\": NaN}' WHERE number = 4",
        "metadata has NaN",
    ),
    "metadata of an endless number": (
        "UPDATE documents SET metadata = '{\"a\": 1e999}' WHERE number = 4",
        "not JSON",
    ),
    "metadata with half a character": (
        'UPDATE documents SET metadata = \'{"a": "\\ud800"}\' WHERE number = 4',
        "lone surrogate",
    ),
    "deep metadata": (
        "UPDATE documents SET metadata = '{\"a\": ' || replace(hex(zeroblob(125)), '0', '[') ||"
        " replace(hex(zeroblob(125)), '0', ']') || '}' WHERE number = 4",
        "nested deeper than 200 levels",
    ),
    "very deep metadata": (
        "UPDATE documents SET metadata = replace(hex(zeroblob(99999)), '00', '{\"\":')"
        " WHERE number = 4",
        "document 'id-2' cannot be stored",
    ),
    "model": ("UPDATE meta SET value = 'a' || char(27) WHERE key = 'fingerprint'", "its model is"),
    "setting": (
        "UPDATE meta SET value = hex(zeroblob(9999)) WHERE key = 'chunks'",
        "a setting has 19998 characters",
    ),
    "chunk rules": (
        "UPDATE meta SET value = '[1000000000, 0]' WHERE key = 'chunks'",
        "its chunks have 1000000000 tokens",
    ),
}
NO_BACKUP = {
    "version 0": ("PRAGMA user_version = 0", "it holds no collection"),
    "another version": ("PRAGMA user_version = 1", "no table documents of ours"),
    "dimension": ("UPDATE meta SET value = '0' WHERE key = 'dimension'", "outside 1 to"),
    "another dimension": ("UPDATE meta SET value = '5' WHERE key = 'dimension'", ""),
    "no model": ("DELETE FROM meta WHERE key = 'fingerprint'", "KeyError: 'fingerprint'"),
    "chunk rules": ("UPDATE meta SET value = '[3, 3]' WHERE key = 'chunks'", "overlap of 3"),
    "no table": ("DROP TABLE parts", "no table parts of ours"),
    "a column more": ("ALTER TABLE parts ADD COLUMN x TEXT", "no table parts of ours"),
    "a view for a table": ("ALTER TABLE documents RENAME TO d", "no table documents of ours"),
}


@pytest.mark.parametrize(("statement", "said"), SIGNED.values(), ids=SIGNED)
def test_rows_are_checked_whatever_their_checksums(
    data: Path, backup: Path, statement: str, said: str
) -> None:
    change(backup, "PRAGMA ignore_check_constraints = ON", "PRAGMA foreign_keys = OFF", statement)
    sign(backup)
    refused(data, backup, StoreDamaged, said)


@pytest.mark.parametrize(
    ("statement", "most", "said"),
    [
        ("INSERT INTO meta VALUES ('x', printf('%.*c', {}, 'x'))", 4096, "a setting has 4097"),
        (
            "UPDATE meta SET value = printf('%.*c', {}, 'm') WHERE key = 'fingerprint'",
            128,
            "its model is named",
        ),
        ("UPDATE meta SET value = '[{}, 0]' WHERE key = 'chunks'", 1_000_000, "1000001 tokens"),
        ("UPDATE documents SET id = printf('%.*c', {}, 'i') WHERE number = 4", 512, "is not what"),
    ],
    ids=["setting", "model", "chunk rules", "id"],
)
def test_limits_of_a_backup_are_the_last_values_that_are_taken(
    data: Path, backup: Path, statement: str, most: int, said: str
) -> None:
    change(backup, statement.format(most))
    sign(backup)
    assert restore(data / "taken", backup, None, force=False).documents == 6
    change(backup, "DELETE FROM meta WHERE key = 'x'", statement.format(most + 1))
    sign(backup)
    refused(data / "refused", backup, StoreDamaged, said)


@pytest.mark.parametrize(("statement", "said"), NO_BACKUP.values(), ids=NO_BACKUP)
def test_what_is_no_collection_is_no_backup(
    data: Path, backup: Path, statement: str, said: str
) -> None:
    change(backup, statement)
    refused(data, backup, StoreDamaged if not said else BadSettings, said)
    assert not data.exists() or not said


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            "UPDATE documents SET text = text || '。' WHERE number = 4",
            "document 'id-2' is not what",
        ),
        ("UPDATE parts SET begin = 1 WHERE label = 5", "part 5 is not what was written"),
        ("UPDATE parts SET end = end - 1 WHERE label = 5", "part 5 is not what was written"),
        ("UPDATE parts SET document = 2 WHERE label = 5", "part 5 is not what was written"),
    ],
)
def test_rows_without_their_checksums_are_damage(
    data: Path, backup: Path, statement: str, said: str
) -> None:
    change(backup, statement)
    refused(data, backup, StoreDamaged, said)


def test_view_in_the_place_of_a_table_is_never_asked(data: Path, backup: Path) -> None:
    """The view would answer for ever."""
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i, i FROM n"
    change(backup, "DROP TABLE meta", f"CREATE VIEW meta (key, value) AS {endless}")
    refused(data, backup, BadSettings, "no table meta of ours")


def test_page_that_stands_in_two_places_is_refused(data: Path, backup: Path) -> None:
    """Such pages would make terabytes of documents of a small file."""
    rows = "WITH RECURSIVE n (i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 160)"
    change(
        backup,
        f"{rows} INSERT INTO documents SELECT i, i, hex(zeroblob(2000)), NULL, '{{}}', 0 FROM n",
    )
    with closing(sqlite3.connect(backup)) as file:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'documents'"
        root = (file.execute(query).fetchone()[0] - 1) * PAGE_BYTES
    content = bytearray(backup.read_bytes())
    assert content[root] == 5, "an inner page"
    first, second = (root + int.from_bytes(content[root + at : root + at + 2]) for at in (12, 14))
    content[second : second + 4] = content[first : first + 4]
    backup.write_bytes(content)
    refused(data, backup, StoreDamaged, "2nd reference to page")


def test_id_that_comes_twice_is_refused(data: Path, backup: Path) -> None:
    row = ("id-2", TEXTS[3], "题3", json.dumps(GOOD[3].metadata, ensure_ascii=False))
    change(backup, f"UPDATE documents SET checksum = {document_checksum(*row)} WHERE id = 'id-3'")
    # Beside the index that would refuse it.
    backup.write_bytes(backup.read_bytes().replace(b"id-3", b"id-2"))
    refused(data, backup, StoreDamaged, "document 'id-2' comes twice")


def test_row_beyond_the_limit_is_refused(
    data: Path, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_file, "MOST_ROW_BYTES", 10_000)
    change(backup, "UPDATE documents SET text = hex(zeroblob(9999)) WHERE number = 4")
    sign(backup)
    refused(data, backup, StoreDamaged, "too big")


def test_text_of_a_damaged_document_is_not_repeated(data: Path, backup: Path) -> None:
    change(backup, "UPDATE documents SET text = CAST(text || x'ff' AS TEXT) WHERE number = 4")
    refused(data, backup, StoreDamaged, "it cannot be read")
    with pytest.raises(StoreDamaged) as refusal:
        restore(data, backup, None, force=True)
    assert "劳动" not in refusal.value.english


def test_limits_of_metadata_are_those_of_replies() -> None:
    deep: object = {}
    for _ in range(backup_file.MOST_LEVELS - 1):
        deep = {"a": deep}
    assert backup_file._metadata(json.dumps(deep)) == deep


# --- the place --------------------------------------------------------------------------------------


def as_folder(home: Path) -> None:
    home.mkdir()


def as_file(home: Path) -> None:
    home.write_text("someone's notes")


def as_link(home: Path) -> None:
    home.symlink_to("nowhere")


@pytest.mark.parametrize("make", [as_folder, as_file, as_link])
def test_nothing_that_exists_is_touched_without_force(
    data: Path, backup: Path, make: Callable[[Path], None]
) -> None:
    DataFolder(data).close()
    home = data / "collections/laws"
    make(home)
    successor = data / f"collections/.next-{'0' * 32}-laws"
    successor.mkdir()
    before = [(path, path.lstat()) for path in sorted(data.rglob("*"))]
    with pytest.raises(BadSettings, match="--force"):
        restore(data, backup, None, force=False)
    assert [(path, path.lstat()) for path in sorted(data.rglob("*"))] == before


def test_refused_backup_creates_no_data_folder(data: Path, backup: Path) -> None:
    change(backup, "UPDATE meta SET value = '.' WHERE key = 'name'")
    with pytest.raises(BadSettings):
        restore(data, backup, None, force=True)
    assert not data.exists()


def test_database_of_a_killed_server_is_restored_with_its_log(data: Path, tmp_path: Path) -> None:
    """Its last documents are in the log beside it."""
    with closing(DataFolder(tmp_path / "source")) as folder:
        folder.create(INFO).add(GOOD, vectors(6))
        copied = shutil.copytree(tmp_path / "source/collections/laws", tmp_path / "copied")
    assert (copied / f"{DATABASE_FILE}-wal").stat().st_size > 0
    assert restore(data, copied / DATABASE_FILE, None, force=False).documents == 6
    (tmp_path / "link").symlink_to(copied / DATABASE_FILE)
    assert restore(data, tmp_path / "link", "linked", force=False).documents == 6


@pytest.mark.parametrize("kinds", [1, 3])
def test_the_kinds_of_cpu_that_computed_the_vectors_are_restored(
    tmp_path: Path, kinds: int
) -> None:
    # As long as with a real model: the short vectors of other tests hid that it was refused.
    note = None
    for kind in np.eye(kinds, 512, dtype=np.float32):
        note = note_of(note, provenance_here(np.tile(kind, (5, 1))))[NOTE]
    with closing(DataFolder(tmp_path / "source")) as folder:
        spans = [[Span(0, len(GOOD[0].text))]]
        folder.create(INFO).add(GOOD[:1], vectors(1), spans, {NOTE: note or ""})
    copy(tmp_path / "source/collections/laws" / DATABASE_FILE, tmp_path / "backup")
    assert restore(tmp_path / "data", tmp_path / "backup", None, force=False).documents == 1
    with closing(DataFolder(tmp_path / "data")) as folder:
        found = folder.collections["laws"].documents.noted(NOTE)
    assert found == note and len(read_provenances(found)) == kinds


def test_a_note_of_cpus_that_is_too_long_counts_as_missing(
    backup: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_file, "MOST_NOTE", 10)
    change(backup, "INSERT INTO meta VALUES ('computed_by', 'more than ten')")
    restore(data, backup, None, force=False)
    check_restored(data)
    with closing(DataFolder(data)) as folder:
        assert folder.collections["laws"].documents.noted(NOTE) is None
