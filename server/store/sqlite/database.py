"""One SQLite file: connections, transactions, and its schema's version.

One connection writes. Each reading thread borrows another one from a pool. It reads what was committed,
never a running transaction, and waits for no writer (WAL). Inside `snapshot` all reads of a thread come
from one moment. `documents.py` says what the tables mean, and `schema.py` defines them.
"""

import sqlite3
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

from server.errors import StoreDamaged, StoreError
from server.store.filters.functions import FUNCTIONS
from server.store.sqlite import read_limit
from server.store.sqlite.advice import advising, one_line
from server.store.sqlite.database_path import (
    WAL,
    FileKey,
    beside,
    file_key,
    is_missing,
    quoted,
    refuse_unsafe,
)
from server.system.idle_connections import IdleConnections

KEYS_PER_QUERY = 1000  # SQLite's own limit has been 999 (until 3.32) and is 32,766
# A page of 4 KB, SQLite's default, would hold one vector of 1,024 numbers and waste half.
PAGE_BYTES = 16_384
# Steps of SQLite's machine between two looks at the limit of a read: a millisecond.
STEPS_BETWEEN_CHECKS = 20_000
# For readers to end before the log is shortened; other writes wait meanwhile.
SHORT_WAIT_MS = 100

Connection = sqlite3.Connection
READERS: IdleConnections[Connection] = IdleConnections()
_numbers = count()
Rows = list[tuple[Any, ...]]
RowByRow = Generator[tuple[Any, ...], None, None]
Create = Callable[[Connection], None]
Migrate = Callable[[Connection, int], None]
Verify = Callable[[Connection], None]


class Database:
    """One file, brought to the current schema by `migrate`.

    Writes come from one thread at a time, inside `transaction`; reads from any thread. Every method
    raises StoreError with advice when the disk or the file fails.
    """

    def __init__(
        self,
        path: Path,
        version: int,
        create: Create | None,
        migrate: Migrate,
        busy_timeout_s: float = 5.0,
    ) -> None:
        """Open the file; `create` makes it where it is missing, and None raises StoreDamaged there.

        version: of the schema that `create` makes; `migrate` gets the version of an older file. A
        file that cannot be opened is not changed.
        """
        self.path = path
        self._busy_timeout_s = busy_timeout_s
        self._number = next(_numbers)
        self._turn = deque(["to write"])  # taken by the transaction that runs
        self._verify: Verify | None = None
        self._verified_schema = -1
        self._file: FileKey | None = None
        missing = is_missing(path)
        if missing and create is None:
            raise StoreDamaged("{path} is missing; restore the collection from a backup", path=path)
        with self.advising():
            self.writer = self._connect("rwc" if missing else "rw")
            self._file = file_key(path)
            try:
                found = 0 if missing else self._known_version(version)
                self._prepare()
                if found < version:
                    with self.transaction() as writer:
                        if missing:
                            assert create is not None
                            create(writer)
                        else:
                            migrate(writer, found)
                        writer.execute(f"PRAGMA user_version = {version}")
            except BaseException:
                self.close_unchanged()
                raise

    def guard(self, verify: Verify) -> None:
        """Verify the objects in the file now, and again whenever a program has changed them.

        verify: raises StoreDamaged for objects that the file should not have. From now on nothing
        is read or written before they are verified.
        """
        self._verify = verify
        with self.advising():
            self._check_schema(self.writer)

    def _check_schema(self, connection: Connection) -> None:
        if self._verify is not None:
            ((found,),) = connection.execute("PRAGMA schema_version")
            if found != self._verified_schema:
                self._verify(connection)
                self._verified_schema = found

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Store all writes in the block when it ends, or none if anything raises.

        Two blocks at once are a bug of the caller: the second one raises RuntimeError.
        """
        # subtle: two threads that share a connection end the process, not only their calls.
        try:
            turn = self._turn.pop()
        except IndexError:
            raise RuntimeError(f"{self.path}: two writes at the same time") from None
        try:
            with self.advising():
                self.writer.execute("BEGIN IMMEDIATE")
                try:
                    self._check_schema(self.writer)
                    yield self.writer
                    self.writer.execute("COMMIT")
                except BaseException:
                    # subtle: after some failures, a full disk among them, SQLite has rolled back.
                    if self.writer.in_transaction:
                        self.writer.execute("ROLLBACK")
                    raise
        finally:
            self._turn.append(turn)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all reads of this thread in the block see the database at one moment.

        The log cannot shrink meanwhile, so the block should be short, and nothing in it may wait. A block
        inside another one sees the moment of the outer one.
        """
        snapshots = _snapshots.get()
        if self in snapshots:
            yield
            return
        with self.reading() as reader:
            reader.execute("BEGIN")
            token = _snapshots.set({**snapshots, self: reader})
            try:
                yield
            finally:
                _snapshots.reset(token)
                reader.execute("ROLLBACK")  # nothing was written

    def hold(self) -> "HeldSnapshot":
        """Return a snapshot of this moment that stays open between calls; close it."""
        with self.advising():
            reader = self._reader(only_read=True)
            try:
                self._check_schema(reader)
                return HeldSnapshot(self, reader)
            except BaseException:
                reader.close()
                raise

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection for reading: that of the snapshot, where this thread has one open."""
        with self.advising():
            if self in (snapshots := _snapshots.get()):
                yield snapshots[self]
                return
            reader = READERS.take(self._number) or self._reader()
            try:
                self._check_schema(reader)
                yield reader
            finally:
                if reader.in_transaction:
                    reader.close()  # its snapshot did not end: the disk failed
                else:
                    READERS.keep(self._number, reader)

    def _reader(self, *, only_read: bool = False) -> Connection:
        reader = self._connect("ro" if only_read else "rw")
        # 16 MB: looking clauses up among 63,762 texts took 8 ms with it and 12 with 2 MB.
        reader.execute("PRAGMA cache_size = -16000")
        reader.set_progress_handler(read_limit.passed, STEPS_BETWEEN_CHECKS)
        return reader

    def rows(self, query: str, parameters: Sequence[object] = ()) -> Rows:
        """Return all rows of a query."""
        with self.reading() as reader:
            return reader.execute(query, parameters).fetchall()

    def rows_of(self, query: str, keys: Sequence[object]) -> Rows:
        """Return the rows of `query`, which ends in IN, for all keys, from one moment."""
        with self.snapshot():
            return list(self.each_of(query, keys))

    def each(self, query: str, parameters: Sequence[object] = ()) -> RowByRow:
        """Yield the rows of a query one by one: texts are large, and the caller may keep parts of them."""
        with self.reading() as reader:
            yield from reader.execute(query, parameters)

    def each_of(self, query: str, keys: Sequence[object]) -> RowByRow:
        """Yield the rows of `query`, which ends in IN, for all keys; in a snapshot, from its moment."""
        with self.reading() as reader:
            for start in range(0, len(keys), KEYS_PER_QUERY):
                some = keys[start : start + KEYS_PER_QUERY]
                marks = ",".join("?" * len(some))
                yield from reader.execute(f"{query} ({marks})", some)

    def shorten_log(self) -> None:
        """Move the log into the file and cut it to nothing, if no reader is in its way.

        Called like a write. SQLite itself keeps a log at its largest size.
        """
        self._check_idle()
        with self.advising():
            self.writer.execute(f"PRAGMA busy_timeout = {SHORT_WAIT_MS}")
            try:
                self.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                self.writer.execute(f"PRAGMA busy_timeout = {round(1000 * self._busy_timeout_s)}")

    def complaints(self) -> list[str]:
        """Return what SQLite's own check of the whole file finds wrong."""
        found = [one_line(row[0]) for row in self.rows("PRAGMA integrity_check(20)")]
        return [] if found == ["ok"] else found

    def close(self) -> None:
        """Close the connections; no other call may be running."""
        self._check_idle()
        READERS.close(self._number)
        self.writer.close()

    def close_unchanged(self) -> None:
        """Close the connections and leave the log beside the file, which may be damaged."""
        # subtle: the last connection that is closed moves the log into the file and deletes it, unless it
        # may only read.
        log = beside(self.path, WAL)
        if is_missing(log) or not log.stat().st_size:
            return self.close()
        try:
            last = sqlite3.connect(f"file:{quoted(self.path)}?mode=ro", uri=True)
        except sqlite3.Error:
            # The folder was moved, and nothing in it is needed any more.
            return self.close()
        with closing(last):
            with suppress(sqlite3.Error):
                last.execute("PRAGMA user_version").fetchone()
            self.close()

    def close_whole(self) -> None:
        """Close so that the file alone holds everything, without a log beside it."""
        self._check_idle()
        with self.advising():
            READERS.close(self._number)
            self.writer.execute("PRAGMA journal_mode = DELETE")
            self.writer.close()

    @property
    def in_place(self) -> bool:
        """Whether the file of this name is the one that was opened."""
        return file_key(self.path) == self._file

    def _check_idle(self) -> None:
        # subtle: as with two writes, closing a connection in use ends the process.
        if not self._turn:
            raise RuntimeError(f"{self.path}: closed during a write")

    def _connect(self, mode: str = "rw") -> Connection:
        refuse_unsafe(self.path)
        # subtle: without a mode SQLite would create a file that is missing, also to read it.
        connection = sqlite3.connect(
            f"file:{quoted(self.path)}?mode={mode}",
            uri=True,
            timeout=self._busy_timeout_s,
            isolation_level=None,  # this file begins and ends transactions
            check_same_thread=False,
        )
        for name, (n_arguments, function) in FUNCTIONS.items():
            connection.create_function(name, n_arguments, function, deterministic=True)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        if self._file is not None and not self.in_place:
            # A folder was moved while it is open, and another one has its name.
            connection.close()
            raise StoreError(
                "{path} is another file now than the one that was opened; start the server again, and"
                " let no other program move its files",
                path=self.path,
            )
        return connection

    def _known_version(self, version: int) -> int:
        """Return the version of the file's schema; raises StoreError where it is not known."""
        found = int(self.writer.execute("PRAGMA user_version").fetchone()[0])
        if found > version:
            raise StoreError(
                "{path} has schema {found}, this server knows up to {version}; run the newer server "
                "that wrote it, or give another --data folder",
                path=self.path,
                found=found,
                version=version,
            )
        if found < 1:
            # A file that is being created gets its version in the transaction that fills it.
            raise StoreDamaged(
                "{path} has schema {found}, which no server writes: the disk or another program has "
                "changed it; restore the collection from a backup",
                path=self.path,
                found=found,
            )
        return found

    def _prepare(self) -> None:
        self.writer.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        mode = self.writer.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise StoreError(
                "{path} is on a file system without shared memory (a network drive?); give a --data "
                "folder on a local disk",
                path=self.path,
            )
        self.writer.execute("PRAGMA synchronous = FULL")

    @contextmanager
    def advising(self) -> Iterator[None]:
        with advising(self.path):
            yield


class HeldSnapshot:
    """A snapshot that outlives the call that opened it, for a reply that is sent piece by piece.

    The log cannot shrink until it is closed. It may be read from any thread, from one at a time. It is opened
    only to read, so the database may be closed, moved or deleted before it.
    """

    def __init__(self, database: Database, reader: Connection) -> None:
        self._database, self._reader = database, reader
        # Taken by the read that runs, and for good by what closes the connection.
        self._turn = deque(["to read"])
        self._ended = False
        reader.execute("BEGIN")
        # The moment is that of the first read.
        reader.execute("SELECT count(*) FROM sqlite_master").fetchone()

    @contextmanager
    def here(self) -> Iterator[None]:
        """Let all reads of this thread in the block see the snapshot; not after `close`."""
        turn = self._turn.pop()
        try:
            with self._database.advising():
                token = _snapshots.set({**_snapshots.get(), self._database: self._reader})
                try:
                    yield
                finally:
                    _snapshots.reset(token)
        finally:
            self._turn.append(turn)
            if self._ended:
                self.close()

    def close(self) -> None:
        """Close the snapshot; a read that runs closes it when it ends."""
        # subtle: closing a connection in use ends the process. Each step on the deque is one for all threads.
        self._ended = True
        with suppress(IndexError):
            self._turn.pop()
            self._reader.close()


# The connections of the snapshots that are open, each thread's its own.
_snapshots: ContextVar[Mapping[Database, Connection]] = ContextVar(
    "snapshots", default=MappingProxyType({})
)


@contextmanager
def in_memory() -> Iterator[Connection]:
    """Yield an empty database that no file holds."""
    with closing(sqlite3.connect(":memory:")) as connection:
        yield connection
