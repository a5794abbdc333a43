"""Writes to a collection in a vector database, on the disk of this server until the database has them.

How this works. A write is appended here in one transaction, which is on the disk before it is acknowledged.
The head of the queue is read, sent, and removed after the database has taken it. A kill between the last two
steps sends it a second time, which changes nothing there: see `database`. Writes are never put in another
order, so of one document the last write counts.

Labels come from a clock that only grows: microseconds since 1970, with room for 1,024 chunks in each, and never
less than the last label. So labels of two servers that write to one collection are in the order of their writes.

A write that the database refuses stays at the head, and what follows waits behind it. It may be set aside: it
stays in the file, with the reason, and is not sent any more.
"""

import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from server.clock import wall_s
from server.databases.database import Entry
from server.databases.outbox_rows import (
    COLUMNS,
    INSERT,
    TABLE,
    Columns,
    Damaged,
    PreparedWrite,
    document_of,
    entry_of,
)
from server.errors import StoreDamaged, StoreError
from server.store.records import Document, Info
from server.store.schema import info_of, meta_of
from server.store.sqlite.damage import damaged
from server.store.sqlite.database import Connection, Database
from server.store.sqlite.database_path import WAL, beside

VERSION = 2
META = "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID"
# Keys of `meta` besides those of `Info`.
DATABASE, THERE, LAST_LABEL, REFUSAL = "database", "there", "last_label", "refusal"
IDENTITY = "identity"
# Labels of a microsecond, as a number of bits.
LABEL_BITS = 10
OF_HEAD = "FROM writes WHERE aside IS NULL ORDER BY number LIMIT ?"


@dataclass(frozen=True, slots=True)
class Record:
    """What this server knows of a collection in a vector database.

    info: as its clients know it. database: the name of the database in the settings. there: the name of the
    collection in the database.
    """

    info: Info
    database: str
    there: str


class Batch(NamedTuple):
    """The next writes to send: documents to store or ids to remove, each id once.

    last: number of the last. bytes: that they take in the file.
    """

    entries: Sequence[Entry]
    removed: Sequence[str]
    last: int
    bytes: int

    @property
    def size(self) -> int:
        return len(self.entries) + len(self.removed)


class Waiting(NamedTuple):
    """What waits. at_s: when the first was acknowledged, seconds since 1970; None where none waits."""

    writes: int
    bytes: int
    at_s: float | None

    @property
    def oldest_s(self) -> float | None:
        """For how long the first has waited."""
        return None if self.at_s is None else max(wall_s() - self.at_s, 0.0)


class Aside(NamedTuple):
    """A write that was set aside. document: None for a deletion, and for a damaged one."""

    id: str
    document: Document | None
    reason: str


class Outbox:
    """The file of one collection. Methods block, and may be called from any thread.

    identity: random, of this very file: a collection that takes the name of another has its own.
    """

    def __init__(self, path: Path, record: Record | None = None) -> None:
        """Open the file; record: for a file to be created. Raises StoreError."""
        self.path = path
        self._lock = threading.Lock()
        create = None if record is None else lambda writer: _create(writer, record)
        self._database = Database(path, VERSION, create, _migrate)
        try:
            meta: dict[str, str] = dict(self._database.rows("SELECT key, value FROM meta"))
            self.record = Record(info_of(meta), meta[DATABASE], meta[THERE])
            self.identity = meta[IDENTITY]
            self._last_label = int(meta[LAST_LABEL])
            self._refusal: str | None = meta.get(REFUSAL)
            rows = self._database.rows(
                "SELECT count(*), coalesce(sum(bytes), 0), min(at) FROM writes WHERE aside IS NULL"
            )
            self._count(*rows[0])
        except StoreError:
            self._database.close_unchanged()
            raise
        except Exception as error:
            self._database.close_unchanged()
            raise StoreDamaged(
                "{path} holds no record of a collection that can be read ({why}); move its folder away, and "
                "create the collection again, which finds its documents in the vector database",
                path=path,
                why=f"{type(error).__name__}: {error}",
            ) from error

    def close(self) -> None:
        """Close the file; no other call may be running."""
        self._database.close()

    @property
    def waiting(self) -> Waiting:
        """How much waits, as of the last write; no disk is read."""
        return self._waiting

    # --- appending ------------------------------------------------------------------------------------

    def append(self, writes: Sequence[PreparedWrite]) -> int:
        """Append writes, all or none; on return they are on the disk. Returns the number of the last."""
        number = 0
        with self._lock:
            with self._database.transaction() as writer:
                at, last = int(wall_s() * 1e6), self._last_label
                for write in writes:
                    label = None
                    if write.chunks:
                        label = max(last + 1, at << LABEL_BITS)
                        last = label + write.chunks - 1
                    row = (at, write.id, label, write.bytes, *write.rest)
                    number = writer.execute(INSERT, row).lastrowid or 0
                _note(writer, LAST_LABEL, str(last))
            self._last_label = last
            self._add(len(writes), sum(write.bytes for write in writes))
        return number

    # --- sending --------------------------------------------------------------------------------------

    def head(self, most: int, most_bytes: int) -> Batch:
        """Return the next writes to send: at least one where any waits, `most` of one kind at most.

        most_bytes: after which no other is added.
        """
        rows: list[Columns] = []
        ids: set[str] = set()
        n_bytes = 0
        for row in self._database.rows(f"SELECT number, id, label, bytes {OF_HEAD}", (most,)):
            _, id, label, size = row
            if rows and ((rows[0][2] is None) != (label is None) or n_bytes + size > most_bytes):
                break
            if id in ids:
                break
            rows.append(row)
            ids.add(id)
            n_bytes += size
        if not rows:
            return Batch([], [], 0, 0)
        if rows[0][2] is None:
            return Batch([], [id for _, id, *_ in rows], rows[-1][0], n_bytes)
        whole = self._database.rows(f"SELECT {COLUMNS} {OF_HEAD}", (len(rows),))
        with self._checking():
            entries = [entry for row in whole if (entry := entry_of(row)) is not None]
        return Batch(entries, [], rows[-1][0], n_bytes)

    def remove(self, batch: Batch) -> None:
        """Forget writes that the database has taken: those of the head, up to the last of a batch."""
        with self._lock:
            with self._database.transaction() as writer:
                head = "DELETE FROM writes WHERE number <= ? AND aside IS NULL"
                writer.execute(head, (batch.last,))
                writer.execute("DELETE FROM meta WHERE key = ?", (REFUSAL,))
            self._refusal = None
            self._add(-batch.size, -batch.bytes)

    # --- what the database refused --------------------------------------------------------------------

    @property
    def refusal(self) -> str | None:
        """What the database said of the write at the head, which stopped the sending; None while all is well."""
        return self._refusal

    def note_refusal(self, reason: str) -> None:
        """Keep what the database said of the write at the head."""
        with self._lock, self._database.transaction() as writer:
            _note(writer, REFUSAL, reason)
            self._refusal = reason

    def set_aside(self) -> str | None:
        """Set aside the write at the head, which was refused; returns its document's id, None for none."""
        with self._lock:
            if (reason := self._refusal) is None:
                return None
            with self._database.transaction() as writer:
                found = writer.execute(f"SELECT number, id, bytes {OF_HEAD}", (1,)).fetchone()
                number, id, n_bytes = found
                writer.execute("UPDATE writes SET aside = ? WHERE number = ?", (reason, number))
                writer.execute("DELETE FROM meta WHERE key = ?", (REFUSAL,))
            self._refusal = None
            self._add(-1, -n_bytes)
        return str(id)

    def aside(self, limit: int) -> list[Aside]:
        """Return writes that were set aside, oldest first."""
        rows = self._database.rows(
            f"SELECT {COLUMNS}, aside FROM writes WHERE aside IS NOT NULL ORDER BY number LIMIT ?",
            (limit,),
        )
        return [Aside(row[1], _readable(row[:-1]), row[-1]) for row in rows]

    def n_aside(self) -> int:
        """Return how many writes were set aside."""
        rows = self._database.rows("SELECT count(*) FROM writes WHERE aside IS NOT NULL")
        return int(rows[0][0])

    def forget_aside(self) -> int:
        """Delete the writes that were set aside; returns how many there were."""
        with self._lock, self._database.transaction() as writer:
            return int(writer.execute("DELETE FROM writes WHERE aside IS NOT NULL").rowcount)

    # --- reading what waits ---------------------------------------------------------------------------

    def latest(self, ids: Sequence[str]) -> dict[str, Document | None]:
        """Return the last waiting write of these ids that have one: the document, None for a deletion."""
        with self._checking():
            return {row[1]: document_of(row) for row in self._latest(ids)}

    def latest_entries(self, ids: Sequence[str]) -> dict[str, Entry | None]:
        """Return the same with the chunks of each document."""
        with self._checking():
            return {row[1]: entry_of(row) for row in self._latest(ids)}

    def every_latest(self) -> Iterator[tuple[str, Document | None]]:
        """Yield the last waiting write of every id, one at a time."""
        query = (
            f"SELECT {COLUMNS} FROM writes WHERE number IN"
            " (SELECT max(number) FROM writes WHERE aside IS NULL GROUP BY id)"
        )
        for row in self._database.each(query):
            with self._checking():
                yield row[1], document_of(row)

    def _latest(self, ids: Sequence[str]) -> list[Columns]:
        if not self.waiting.writes:
            return []
        query = "SELECT number, id FROM writes WHERE aside IS NULL AND id IN"
        numbers = self._database.rows_of(query, list(dict.fromkeys(ids)))
        last = {id: number for number, id in sorted(numbers)}
        return self._database.rows_of(
            f"SELECT {COLUMNS} FROM writes WHERE number IN", list(last.values())
        )

    def bytes_on_disk(self) -> int:
        """Return the size of the file with its log."""
        files = (self.path, beside(self.path, WAL))
        return sum(each.stat().st_size for each in files if each.exists())

    # --- inside ---------------------------------------------------------------------------------------

    @contextmanager
    def _checking(self) -> Iterator[None]:
        try:
            yield
        except Damaged as error:
            raise damaged(self.path, f"the waiting document {ascii(str(error))}") from None

    def _add(self, writes: int, n_bytes: int) -> None:
        """Count writes that came or went; the lock is held."""
        first, was = self._database.rows(f"SELECT at {OF_HEAD}", (1,)), self._waiting
        self._count(was.writes + writes, was.bytes + n_bytes, first[0][0] if first else None)

    def _count(self, writes: int, n_bytes: int, at: int | None) -> None:
        self._waiting = Waiting(writes, n_bytes, None if at is None else at / 1e6)


def _create(writer: Connection, record: Record) -> None:
    for statement in (META, *TABLE):
        writer.execute(statement)
    own = {DATABASE: record.database, THERE: record.there, LAST_LABEL: "0"}
    own[IDENTITY] = str(uuid.uuid4())
    writer.executemany("INSERT INTO meta VALUES (?, ?)", {**meta_of(record.info), **own}.items())


def _migrate(writer: Connection, version: int) -> None:
    assert version == 1
    # Files of version 1 had no identity.
    _note(writer, IDENTITY, str(uuid.uuid4()))


def _readable(row: Columns) -> Document | None:
    try:
        return document_of(row)
    except Damaged:
        return None


def _note(writer: Connection, key: str, value: str) -> None:
    writer.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
