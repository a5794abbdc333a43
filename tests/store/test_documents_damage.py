"""Documents whose rows or pages a disk or another program has changed: they are refused."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from server.errors import StoreDamaged, StoreError
from server.store.documents import Documents
from server.store.records import Document
from server.store.sqlite.database import PAGE_BYTES
from server.store.vector_blob import packed
from tests.support.stored_documents import INFO, add, check_advice, vectors


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
    [("vector", packed(vectors(1, 9))[0]), ("document", 2), ("begin", 1), ("end", 2)],
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
