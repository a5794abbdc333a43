"""Files that another program has changed: what `check` finds, and what opening refuses."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from server.errors import StoreDamaged
from server.store.collection import DATABASE_FILE, SNAPSHOT_FILE, Collection
from server.store.documents import Documents
from server.store.filters.tree import parse
from server.store.folder import INDEX, DataFolder
from server.store.records import Document, Info
from server.store.schema import SCHEMA_1, SCHEMA_VERSION, chunk_checksum, create, words_of
from server.store.search import Query, search
from server.store.upkeep.integrity import faults_of
from server.store.upkeep.maintenance import backup
from server.store.upkeep.restoring import restore
from server.store.vector_blob import packed

INFO = Info("laws", "model", 4)
FOREIGN = {
    "trigger": "CREATE TRIGGER t AFTER DELETE ON documents BEGIN DELETE FROM parts; END",
    "view": "CREATE VIEW v AS SELECT text FROM documents",
    "table": "CREATE TABLE notes (x)",
    "index": "CREATE INDEX i ON documents (text)",
    "virtual table": "CREATE VIRTUAL TABLE w USING fts5 (x)",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder of a collection with four documents."""
    with closing(DataFolder(tmp_path)) as folder:
        documents = [
            Document(str(n), f"第{n}条", metadata={"tenant": f"t{n}", "n": [n, None]})
            for n in range(4)
        ]
        vectors = np.random.default_rng(0).standard_normal((4, 4), dtype=np.float32)
        folder.create(INFO).add(documents, vectors)
    return tmp_path / "collections" / "laws"


def change(home: Path, statement: str, *parameters: object) -> None:
    """Change the database as another program may."""
    with closing(sqlite3.connect(home / DATABASE_FILE)) as database, database:
        database.execute(statement, parameters)


def faults(home: Path) -> str:
    found = faults_of(home, INDEX)
    assert all(fault.chinese != fault.english for fault in found)
    return "\n".join(fault.english for fault in found)


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
def test_foreign_objects_are_found_and_keep_the_collection_closed(home: Path, foreign: str) -> None:
    assert faults(home) == ""
    change(home, foreign)
    name = foreign.split()[2] if "VIRTUAL" not in foreign else "w"
    assert f"'{name}'" in faults(home) and "did not create" in faults(home)
    before = (home / DATABASE_FILE).read_bytes()
    with closing(DataFolder(home.parents[1])) as folder:
        assert list(folder.damaged) == ["laws"] and not folder.collections
    assert (home / DATABASE_FILE).read_bytes() == before


def test_trigger_with_the_name_of_a_table_is_foreign(home: Path) -> None:
    change(home, "DROP TABLE terms")
    change(home, "CREATE TRIGGER terms AFTER INSERT ON documents BEGIN DELETE FROM parts; END")
    change(home, "CREATE VIRTUAL TABLE terms USING fts5vocab (words, row)")
    assert "'terms'" in faults(home) and "did not create" in faults(home)


def test_words_of_another_text_are_found(home: Path) -> None:
    # SQLite's own check cannot notice: the index keeps no texts.
    change(
        home,
        "INSERT INTO words (words, rowid, text) VALUES ('delete', 2, ?)",
        words_of(None, "第1条"),
    )
    change(home, "INSERT INTO words (rowid, text) VALUES (2, ?)", words_of(None, "第9条"))
    assert faults(home) == "part 2 is indexed by other words than its own"


def test_missing_table_keeps_the_collection_closed(home: Path) -> None:
    change(home, "DROP TABLE attributes")
    with closing(DataFolder(home.parents[1])) as folder:
        assert "no table attributes" in folder.damaged["laws"].english


def test_texts_that_are_not_utf_8_keep_the_collection_closed(home: Path) -> None:
    # Filters compare texts by their bytes.
    with closing(sqlite3.connect(home / "other")) as other, other:
        other.execute("PRAGMA encoding = 'UTF-16le'")
        create(other, {"name": "laws", "fingerprint": "model", "dimension": "4"})
        other.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    (home / "other").replace(home / DATABASE_FILE)
    assert "UTF-16le, not in UTF-8" in faults(home)


def test_changed_definition_of_a_table_is_foreign(home: Path) -> None:
    change(home, "ALTER TABLE documents ADD COLUMN extra TEXT")
    assert "'documents'" in faults(home)


def test_statistics_of_sqlite_are_not_foreign(home: Path) -> None:
    change(home, "ANALYZE")
    assert faults(home) == ""


def test_triggers_in_a_file_of_version_1_do_not_run(tmp_path: Path) -> None:
    path = tmp_path / DATABASE_FILE
    with closing(sqlite3.connect(path)) as database, database:
        for statement in SCHEMA_1:
            database.execute(statement.format(vector_bytes=16))
        meta = {"name": "laws", "fingerprint": "model", "dimension": "4", "identity": "0" * 32}
        database.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        database.execute("CREATE TRIGGER t BEFORE INSERT ON meta BEGIN DELETE FROM documents; END")
        database.execute("PRAGMA user_version = 1")
    with pytest.raises(StoreDamaged, match="'t'"):
        Documents(path, None)


CHANGES = {
    "deleted": (
        "DELETE FROM attributes WHERE document = 2 AND key = 'tenant'",
        "document '1': filters miss 'tenant' = 't1'",
    ),
    "added": (
        "INSERT INTO attributes VALUES ('tenant', 't0', 3)",
        "document '2': filters read 'tenant' = 't0', not of its metadata",
    ),
    "changed": (
        "UPDATE attributes SET value = 't0' WHERE value = 't3'",
        "document '3': filters miss 'tenant' = 't3' of its metadata\n"
        "document '3': filters read 'tenant' = 't0', not of its metadata",
    ),
    "another type": (
        "UPDATE attributes SET value = '2' WHERE value = 2",
        "document '2': filters miss 'n' = 2 of its metadata\n"
        "document '2': filters read 'n' = '2', not of its metadata",
    ),
    "of no document": (
        "INSERT INTO attributes VALUES ('tenant', 't0', 99)",
        "filters read rows of document number 99",
    ),
}


@pytest.mark.parametrize(("statement", "fault"), CHANGES.values(), ids=CHANGES)
def test_rows_that_filters_read_are_compared_with_metadata(
    home: Path, statement: str, fault: str
) -> None:
    change(home, statement)
    assert fault in faults(home)


FILTERED = {
    "a value": "UPDATE attributes SET value = 'a' WHERE key = 'tenant' AND value = 'b'",
    "a missing row": "DELETE FROM attributes WHERE key = 'secret'",
}


@pytest.mark.parametrize("change", FILTERED.values(), ids=FILTERED)
def test_rows_that_filters_read_show_no_tenant_the_documents_of_another(
    tmp_path: Path, change: str
) -> None:
    folder = DataFolder(tmp_path)
    collection = folder.create(INFO)
    ours = Document("ours", "合同", metadata={"tenant": "a"})
    theirs = Document("theirs", "合同", metadata={"tenant": "b", "secret": True})
    rows = np.eye(2, 4, dtype=np.float32)
    collection.add([ours, theirs], rows)
    documents = collection.documents
    filter = parse({"tenant": "a"} if "UPDATE" in change else {"secret": {"$ne": True}})
    query = Query("hybrid", 9, rows[0], "合同", filter=filter)
    assert [hit.id for hit in search(collection, [query])[0]] == ["ours"]
    documents.database.writer.execute(change)
    # What was read before the change is in memory.
    assert [hit.id for hit in search(collection, [query])[0]] == ["ours"]
    folder.close()
    folder = DataFolder(tmp_path)
    collection = folder.collections[INFO.name]
    documents = collection.documents
    for read in (
        lambda: search(collection, [query]),
        lambda: documents.page(0, 9, filter),
        lambda: collection.delete_where(filter),
    ):
        with pytest.raises(StoreDamaged, match="what filters read of document 'theirs'"):
            read()
    assert documents.count() == 2
    folder.close()


OTHERS = {
    "numbers used up": (
        f"UPDATE sqlite_sequence SET seq = {2**63 - 1} WHERE name = 'parts'",
        f"parts has no numbers left after {2**63 - 1}",
    ),
    "parts of no document": (
        "DELETE FROM documents WHERE number = 2",
        "document number 2 is missing",
    ),
    "another name": (
        "UPDATE meta SET value = 'other' WHERE key = 'name'",
        "holds the collection other; rename the folder to other",
    ),
}


@pytest.mark.parametrize(("statement", "fault"), OTHERS.values(), ids=OTHERS)
def test_other_changes_are_named(home: Path, statement: str, fault: str) -> None:
    change(home, statement)
    assert fault in faults(home)


NAN = np.float16("nan").tobytes()


def store_vector(home: Path, label: int, vector: list[float]) -> None:
    """Put a vector in place of another one, with the checksum that it needs."""
    numbers = np.array(vector, dtype=np.float32)
    (blob,) = packed(np.nan_to_num(numbers)[None])
    for place in np.flatnonzero(np.isnan(numbers)).tolist():
        blob = blob[: 2 + 2 * place] + NAN + blob[4 + 2 * place :]
    checksum = chunk_checksum(label, 0, 3, blob)
    change(home, "UPDATE parts SET vector = ?, checksum = ? WHERE label = ?", blob, checksum, label)


def test_vector_that_is_not_finite_is_damage_although_its_checksum_fits(home: Path) -> None:
    store_vector(home, 2, [1, float("nan"), 0, 0])
    assert "the vector of part 2 is not what was written" in faults(home)
    (home / SNAPSHOT_FILE).unlink()
    with pytest.raises(StoreDamaged, match="the vector of part 2"):
        Collection(home, INDEX)


def test_vector_of_a_length_that_no_model_gives_is_found(home: Path) -> None:
    store_vector(home, 3, [3e38, 3e38, 0, 0])
    assert faults(home) == "part 3 has a vector that no model gives"


OTHER_WORDS = (
    "UPDATE words_docsize SET sz = x'7f' WHERE id = 1",
    "UPDATE words_data SET block = x'0409' WHERE id = 1",
    "INSERT INTO words (rowid, text) VALUES (1, 'stray')",
)


@pytest.mark.parametrize("statement", OTHER_WORDS, ids=["length", "sum of lengths", "places"])
def test_index_of_words_is_compared_with_the_texts(
    home: Path, tmp_path: Path, statement: str
) -> None:
    change(home, statement)
    assert "words than" in faults(home)
    # A backup has the texts, of which the index is made.
    backup(tmp_path, "laws", tmp_path / "backup")
    restore(tmp_path, tmp_path / "backup", None, force=True)
    assert faults(home) == ""


def test_index_of_words_is_that_of_the_texts_after_many_writes(home: Path) -> None:
    with closing(DataFolder(home.parents[1])) as folder:
        collection = folder.collections["laws"]
        for n in range(40):
            documents = [Document(str(n % 7), f"第{n}条 {'a b ' * n}", f"标题{n}")]
            collection.add(documents, np.ones((1, 4), dtype=np.float32))
            collection.delete([str(n % 5)])
    assert faults(home) == ""


def test_collection_without_documents_is_sound_before_and_after_it_had_some(home: Path) -> None:
    with closing(DataFolder(home.parents[1])) as folder:
        folder.create(replace(INFO, name="empty"))
        folder.collections["laws"].delete([str(n) for n in range(4)])
    assert faults(home) == faults(home.with_name("empty")) == ""
