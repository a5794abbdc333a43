"""One SQLite file: connections, transactions, its schema's version, copies, and advice when it fails.

One connection writes. Each reading thread borrows another one from a pool: it sees what was committed,
never a running transaction, and waits for no writer (WAL). `documents.py` says what the tables mean,
and `schema.py` defines them.
"""

import sqlite3
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from server.errors import DiskFull, Overloaded, StoreDamaged, StoreError
from server.messages.message import Message
from server.store import read_limit
from server.store.idle_connections import IdleConnections
from server.system.atomic_file import install
from server.system.open_files import can_open

KEYS_PER_QUERY = 1000  # SQLite's own limit has been 999 (until 3.32) and is 32,766
# A vector of 512 numbers has 2 KB; a page of 4 KB, SQLite's default, would hold only one.
PAGE_BYTES = 16_384
# Steps of SQLite's machine between two looks at the limit of a read: a millisecond.
STEPS_BETWEEN_CHECKS = 20_000
# For readers to end before the log is shortened; other writes wait meanwhile.
SHORT_WAIT_MS = 100
# Open files of a database that is written and read: itself twice, its log, and what its connections share.
FILES_A_DATABASE = 4
FILES_RETRY_S = 5

# SQLite's primary result codes that a person can act on, with the error class and the advice.
ADVICE: dict[int, tuple[type[StoreError], Message]] = {
    sqlite3.SQLITE_FULL: (DiskFull, Message("the disk is full: free some space and try again")),
    sqlite3.SQLITE_IOERR: (
        StoreError,
        Message("the disk does not work: check it, and the free space and quota"),
    ),
    sqlite3.SQLITE_CORRUPT: (
        StoreDamaged,
        Message(
            "the database is damaged: restore it from a backup, or move the collection's folder away"
            " and index the documents again"
        ),
    ),
    sqlite3.SQLITE_BUSY: (
        StoreError,
        Message(
            "another program (a backup, an SQLite shell?) keeps the database locked: end it, try again"
        ),
    ),
    sqlite3.SQLITE_READONLY: (
        StoreError,
        Message(
            "the database cannot be written: check the owner and permissions of the data folder, and"
            " whether its disk is mounted read-only"
        ),
    ),
}
ADVICE[sqlite3.SQLITE_NOTADB] = ADVICE[sqlite3.SQLITE_CORRUPT]
ADVICE[sqlite3.SQLITE_LOCKED] = ADVICE[sqlite3.SQLITE_BUSY]
ADVICE[sqlite3.SQLITE_CANTOPEN] = ADVICE[sqlite3.SQLITE_PERM] = ADVICE[sqlite3.SQLITE_READONLY]

Connection = sqlite3.Connection
READERS: IdleConnections[Connection] = IdleConnections()
_numbers = count()
Rows = list[tuple[Any, ...]]
RowByRow = Generator[tuple[Any, ...], None, None]
Create = Callable[[Connection], None]
Migrate = Callable[[Connection, int], None]


class Database:
    """One file: created by `create` if it is missing, and brought to the current schema by `migrate`.

    Writes come from one thread at a time, inside `transaction`; reads from any thread. Every method
    raises StoreError with advice when the disk or the file fails.
    """

    def __init__(
        self,
        path: Path,
        version: int,
        create: Create,
        migrate: Migrate,
        busy_timeout_s: float = 5.0,
    ) -> None:
        """Open the file.

        version: of the schema that `create` makes; `migrate` gets the version of an older file.
        """
        self.path = path
        self._busy_timeout_s = busy_timeout_s
        self._number = next(_numbers)
        with self.advising():
            self.writer = self._connect()
            try:
                self._prepare(version, create, migrate)
            except BaseException:
                self.writer.close()
                raise

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Store all writes in the block when it ends, or none if anything raises."""
        with self.advising():
            self.writer.execute("BEGIN IMMEDIATE")
            try:
                yield self.writer
                self.writer.execute("COMMIT")
            except BaseException:
                # subtle: after some failures, a full disk among them, SQLite has rolled back.
                if self.writer.in_transaction:
                    self.writer.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection for reading."""
        with self.advising():
            reader = READERS.take(self._number) or self._reader()
            try:
                yield reader
            finally:
                READERS.keep(self._number, reader)

    def _reader(self) -> Connection:
        reader = self._connect()
        # 16 MB: looking clauses up among 63,762 texts took 8 ms with it and 12 with 2 MB.
        reader.execute("PRAGMA cache_size = -16000")
        reader.set_progress_handler(read_limit.passed, STEPS_BETWEEN_CHECKS)
        return reader

    def rows(self, query: str, parameters: Sequence[object] = ()) -> Rows:
        """Return all rows of a query."""
        with self.reading() as reader:
            return reader.execute(query, parameters).fetchall()

    def rows_of(self, query: str, keys: Sequence[object]) -> Rows:
        """Return the rows of `query`, which ends in IN, for all keys."""
        return list(self.each_of(query, keys))

    def each(self, query: str, parameters: Sequence[object] = ()) -> RowByRow:
        """Yield the rows of a query one by one: texts are large, and the caller may keep parts of them."""
        with self.reading() as reader:
            yield from reader.execute(query, parameters)

    def each_of(self, query: str, keys: Sequence[object]) -> RowByRow:
        """Yield the rows of `query`, which ends in IN, for all keys."""
        with self.reading() as reader:
            for start in range(0, len(keys), KEYS_PER_QUERY):
                some = keys[start : start + KEYS_PER_QUERY]
                marks = ",".join("?" * len(some))
                yield from reader.execute(f"{query} ({marks})", some)

    def shorten_log(self) -> None:
        """Move the log into the file and cut it to nothing, if no reader is in its way.

        Called like a write. SQLite itself keeps a log at its largest size.
        """
        with self.advising():
            self.writer.execute(f"PRAGMA busy_timeout = {SHORT_WAIT_MS}")
            try:
                self.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                self.writer.execute(f"PRAGMA busy_timeout = {round(1000 * self._busy_timeout_s)}")

    def complaints(self) -> list[str]:
        """Return what SQLite's own check of the whole file finds wrong."""
        found = [str(row[0]) for row in self.rows("PRAGMA integrity_check(20)")]
        return [] if found == ["ok"] else found

    def close(self) -> None:
        """Close the connections; no other call may be running."""
        READERS.close(self._number)
        self.writer.close()

    def close_whole(self) -> None:
        """Close so that the file alone holds everything, without a log beside it."""
        with self.advising():
            READERS.close(self._number)
            self.writer.execute("PRAGMA journal_mode = DELETE")
            self.writer.close()

    def _connect(self) -> Connection:
        connection = sqlite3.connect(
            self.path,
            timeout=self._busy_timeout_s,
            isolation_level=None,  # this file begins and ends transactions
            check_same_thread=False,
        )
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _prepare(self, version: int, create: Create, migrate: Migrate) -> None:
        found = self.writer.execute("PRAGMA user_version").fetchone()[0]
        if found > version:
            raise StoreError(
                "{path} has schema {found}, this server knows up to {version}; run the newer server "
                "that wrote it, or give another --data folder",
                path=self.path,
                found=found,
                version=version,
            )
        self.writer.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        mode = self.writer.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise StoreError(
                "{path} is on a file system without shared memory (a network drive?); give a --data "
                "folder on a local disk",
                path=self.path,
            )
        self.writer.execute("PRAGMA synchronous = FULL")
        if found < version:
            with self.transaction() as writer:
                if found:
                    migrate(writer, found)
                else:
                    create(writer)
                writer.execute(f"PRAGMA user_version = {version}")

    @contextmanager
    def advising(self) -> Iterator[None]:
        with _advising(self.path):
            yield


def copy(source: Path, target: Path) -> None:
    """Copy a database, whole, consistent and checked, also while a server writes to it.

    The copy appears at `target` when it is complete, not before.
    """
    scratch = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with (
            _advising(source),
            closing(sqlite3.connect(f"file:{_quoted(source)}?mode=ro", uri=True)) as old,
        ):
            with _advising(scratch), closing(sqlite3.connect(scratch)) as new:
                old.backup(new)
                # The copy is one file, and may be read where no log can be written.
                new.execute("PRAGMA journal_mode = DELETE")
                if new.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                    raise StoreDamaged(
                        "{source} is damaged: no copy was made; see what `check` says",
                        source=source,
                    )
        install(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)


def peek(path: Path, query: str) -> Rows:
    """Return rows of a database that another process may be using; no file is created or changed.

    subtle: a database that no process has open has no log, and SQLite would create one to read it.
    With `immutable` it does not.
    """
    alone = not path.with_name(f"{path.name}-wal").exists()
    uri = f"file:{_quoted(path)}?mode=ro" + ("&immutable=1" if alone else "")
    with _advising(path), closing(sqlite3.connect(uri, uri=True)) as connection:
        return connection.execute(query).fetchall()


def _quoted(path: Path) -> str:
    """Return a path as it stands inside an SQLite URI."""
    return str(path.resolve()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


@contextmanager
def _advising(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        # The primary code is the low byte. Errors of Python itself have none: our bugs, and text that is
        # no UTF-8, which this server never writes.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_INTERRUPT and (late := read_limit.late()) is not None:
            raise late from error
        if code == sqlite3.SQLITE_CANTOPEN and not can_open(FILES_A_DATABASE):
            raise Overloaded(
                "the server has as many files open as the system allows it; try again later, or raise"
                " the limit (LimitNOFILE=, ulimit -n)",
                retry_after_s=FILES_RETRY_S,
            ) from error
        advice = ADVICE.get(sqlite3.SQLITE_CORRUPT if "decode to UTF-8" in str(error) else code)
        if advice is None:
            raise
        kind, what_to_do = advice
        raise kind(
            "{path}: {error}; {advice}", path=path, error=error, advice=what_to_do
        ) from error
