"""The documents and their vectors in SQLite: the truth, from which the index is derived.

A row never changes. Writing a document again deletes its row and inserts another, which gets a
new label, and a label is never used twice: whoever holds a label holds one version of a document.

One connection writes, and each reading thread borrows another from a pool: a reader sees what was
committed, never a transaction under way, and waits for no writer (WAL).
"""

import json
import sqlite3
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from server.errors import InvalidRequest, StoreError
from server.store import Labels
from server.types import Vectors

SCHEMA_VERSION = 1
# AUTOINCREMENT is what keeps a label from being used twice. STRICT, and the vector's length in
# bytes: a row of another shape would be found only when the index is rebuilt, too late.
SCHEMA = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
    """CREATE TABLE documents (
        label INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        text TEXT NOT NULL,
        title TEXT,
        metadata TEXT NOT NULL,
        vector BLOB NOT NULL CHECK (length(vector) = {vector_bytes})
    ) STRICT""",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
KEYS_PER_QUERY = 1000  # SQLite's own limit has been 999 (until 3.32) and is 32,766

# SQLite's primary result codes that a person can do something about, and what.
ADVICE = {
    sqlite3.SQLITE_FULL: (
        "the disk is full: free some space and try again",
        "磁盘已满：请释放空间后重试",
    ),
    sqlite3.SQLITE_IOERR: (
        "the disk does not work: check it, and the free space and quota",
        "磁盘读写失败：请检查磁盘、剩余空间与配额",
    ),
    sqlite3.SQLITE_CORRUPT: (
        "the database is damaged: restore it from a backup, or move the collection's folder away"
        " and index the documents again",
        "数据库已损坏：请从备份恢复，或移走该集合的文件夹后重新索引文档",
    ),
    sqlite3.SQLITE_BUSY: (
        "another program (a backup, an SQLite shell?) keeps the database locked: end it, try again",
        "数据库被其他程序（备份或 SQLite 命令行？）锁定：请结束该程序后重试",
    ),
    sqlite3.SQLITE_READONLY: (
        "the database cannot be written: check the owner and permissions of the data folder, and"
        " whether its disk is mounted read-only",
        "数据库不可写：请检查数据文件夹的所有者与权限，以及磁盘是否以只读方式挂载",
    ),
}
ADVICE[sqlite3.SQLITE_NOTADB] = ADVICE[sqlite3.SQLITE_CORRUPT]
ADVICE[sqlite3.SQLITE_LOCKED] = ADVICE[sqlite3.SQLITE_BUSY]
ADVICE[sqlite3.SQLITE_CANTOPEN] = ADVICE[sqlite3.SQLITE_PERM] = ADVICE[sqlite3.SQLITE_READONLY]


@dataclass(frozen=True, slots=True)
class Document:
    """What the caller stores; `metadata` is any JSON object."""

    id: str
    text: str
    title: str | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Info:
    """Written into a database when it is made.

    fingerprint, dimension: of the model whose vectors it holds.
    """

    name: str
    fingerprint: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Change:
    """Labels that a write made and unmade, both int64.

    added: (B,), in the order of the documents. removed: of the versions that were replaced; where
    one id came twice, also the label just given to the first of the two.
    """

    added: Labels
    removed: Labels


class Documents:
    """One database file, made if it is missing.

    info: what the file says, not what it was opened with; comparing is the caller's part.
    identity: random, of this very database; tells whether a snapshot was derived from it.
    Writes come from one thread at a time, reads from any. Every method raises StoreError with
    advice when the disk or the file gives out.
    """

    info: Info
    identity: uuid.UUID

    def __init__(self, path: Path, info: Info, busy_timeout_s: float = 5.0) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        # deque.pop and append are atomic, so the pool needs no lock.
        self._readers: deque[sqlite3.Connection] = deque()
        with self._advising():
            self._writer = self._connect()
            try:
                self._prepare(info)
            except BaseException:
                self._writer.close()
                raise

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes in the block are stored when it ends, or none if anything raises."""
        with self._advising():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._writer.execute("COMMIT")
            except BaseException:
                # subtle: after some failures, a full disk among them, SQLite has rolled back.
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def add(self, documents: Sequence[Document], vectors: Vectors) -> Change:
        """Store each document with its row of `vectors`, float32 (B, D), in place of its id's last.

        Inside `transaction`. A text that is no Unicode (a lone surrogate) is an InvalidRequest; NUL
        is a character like any other.
        """
        assert self._writer.in_transaction
        assert vectors.shape == (len(documents), self.info.dimension)
        rows = [_row(document) for document in documents]
        blobs = np.ascontiguousarray(vectors, dtype="<f4")
        added: list[int] = []
        removed: list[int] = []
        for row, blob in zip(rows, blobs, strict=True):
            removed += self._delete(row[0])
            cursor = self._writer.execute(
                "INSERT INTO documents (id, text, title, metadata, vector) VALUES (?, ?, ?, ?, ?)",
                (*row, blob.tobytes()),
            )
            assert cursor.lastrowid is not None
            added.append(cursor.lastrowid)
        return Change(np.array(added, dtype=np.int64), np.array(removed, dtype=np.int64))

    def delete(self, ids: Sequence[str]) -> Change:
        """Forget these documents, inside `transaction`; ids that are not there are skipped."""
        assert self._writer.in_transaction
        removed = [label for id in ids for label in self._delete(id)]
        return Change(np.empty(0, dtype=np.int64), np.array(removed, dtype=np.int64))

    def get(self, ids: Sequence[str]) -> dict[str, Document]:
        """By id, those that are there."""
        rows = self._select("SELECT id, text, title, metadata FROM documents WHERE id IN", ids)
        return {row[0]: _document(*row) for row in rows}

    def by_labels(self, labels: Labels) -> dict[int, Document]:
        """By label, those that are still there."""
        rows = self._select(
            "SELECT label, id, text, title, metadata FROM documents WHERE label IN", labels.tolist()
        )
        return {row[0]: _document(*row[1:]) for row in rows}

    def unchanged(self, texts: Mapping[str, str]) -> set[str]:
        """Of these texts by id, the ids that are stored with this very text."""
        rows = self._select("SELECT id, text FROM documents WHERE id IN", list(texts))
        return {id for id, text in rows if texts[id] == text}

    def labels(self) -> Labels:
        """Of all documents, int64 (N,), ascending."""
        with self._reading() as reader:
            # SQLite reads them from the index on id, 40 bytes a row; hence sorted here.
            rows = reader.execute("SELECT label FROM documents")
            return np.sort(np.fromiter((label for (label,) in rows), dtype=np.int64))

    def vectors(self, labels: Labels) -> Vectors:
        """As stored, float32 (B, D), of labels that must all be there."""
        asked = labels.tolist()
        rows = dict(self._select("SELECT label, vector FROM documents WHERE label IN", asked))
        found = np.frombuffer(b"".join(rows[label] for label in asked), dtype="<f4")
        return found.reshape(len(asked), self.info.dimension)

    def last_label(self) -> int:
        """The greatest label ever given, whether its document is still there or not."""
        with self._reading() as reader:
            row = reader.execute("SELECT max(seq) FROM sqlite_sequence").fetchone()
            return int(row[0] or 0)

    def count(self) -> int:
        with self._reading() as reader:
            return int(reader.execute("SELECT count(*) FROM documents").fetchone()[0])

    def close(self) -> None:
        """When no other call is under way."""
        while self._readers:
            self._readers.pop().close()
        self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=self._busy_timeout_s,
            isolation_level=None,  # transactions begin and end where this file says so
            check_same_thread=False,
        )
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _prepare(self, info: Info) -> None:
        version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self._path} has schema {version}, this server knows up to {SCHEMA_VERSION};"
                " run the newer server that wrote it, or give another --data folder",
                f"{self._path} 的数据库结构版本为 {version}，本服务器最高支持 {SCHEMA_VERSION}；"
                "请使用写入它的新版服务器，或用 --data 指定另一个文件夹",
            )
        mode = self._writer.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise StoreError(
                f"{self._path} is on a file system without shared memory (a network drive?);"
                " give a --data folder on a local disk",
                f"{self._path} 所在的文件系统不支持共享内存（网络盘？）；"
                "请用 --data 指定本地磁盘上的文件夹",
            )
        self._writer.execute("PRAGMA synchronous = FULL")
        if version == 0:
            self._create(info)
        meta = dict(self._writer.execute("SELECT key, value FROM meta").fetchall())
        self.info = Info(meta["name"], meta["fingerprint"], int(meta["dimension"]))
        self.identity = uuid.UUID(meta["identity"])

    def _create(self, info: Info) -> None:
        meta = {
            "name": info.name,
            "fingerprint": info.fingerprint,
            "dimension": str(info.dimension),
            "identity": str(uuid.uuid4()),
        }
        with self.transaction():
            for statement in SCHEMA:
                self._writer.execute(statement.format(vector_bytes=4 * info.dimension))
            self._writer.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())

    def _delete(self, id: str) -> list[int]:
        rows = self._writer.execute("DELETE FROM documents WHERE id = ? RETURNING label", (id,))
        return [label for (label,) in rows.fetchall()]

    def _select(self, query: str, keys: Sequence[object]) -> list[tuple[Any, ...]]:
        """Rows of `query`, which ends in IN, for all keys."""
        rows = []
        with self._reading() as reader:
            for start in range(0, len(keys), KEYS_PER_QUERY):
                some = keys[start : start + KEYS_PER_QUERY]
                marks = ",".join("?" * len(some))
                rows += reader.execute(f"{query} ({marks})", some).fetchall()
        return rows

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._advising():
            try:
                reader = self._readers.pop()
            except IndexError:
                reader = self._connect()
            try:
                yield reader
            finally:
                self._readers.append(reader)

    @contextmanager
    def _advising(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            # The primary code is the low byte. What Python raises itself, our bugs, has no code.
            advice = ADVICE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
            if advice is None:
                raise
            english, chinese = advice
            raise StoreError(
                f"{self._path}: {error}; {english}", f"{self._path}：{error}；{chinese}"
            ) from error


def _row(document: Document) -> tuple[str, str, str | None, str]:
    """Columns of a document; raises InvalidRequest for what cannot be stored and read back."""
    name = ascii(document.id)
    try:
        metadata = json.dumps(document.metadata, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise InvalidRequest(
            f"metadata of document {name} is not JSON: {error}", param="metadata"
        ) from None
    row = (document.id, document.text, document.title, metadata)
    for param, value in zip(("id", "text", "title", "metadata"), row, strict=True):
        try:
            (value or "").encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                f"{param} of document {name} has a lone surrogate at character {error.start},"
                " which is half a character and not text",
                param=param,
            ) from None
    return row


def _document(id: str, text: str, title: str | None, metadata: str) -> Document:
    return Document(id, text, title, json.loads(metadata))
