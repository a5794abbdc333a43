"""One SQLite file: connections, transactions, its schema's version, copies, and advice when it fails.

One connection writes. Each reading thread borrows another one from a pool. It reads what was committed,
never a running transaction, and waits for no writer (WAL). Inside `snapshot` all reads of a thread come
from one moment. `documents.py` says what the tables mean, and `schema.py` defines them.
"""

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any

from server.errors import DiskFull, StoreDamaged, StoreError
from server.messages.message import Message
from server.system.atomic_file import install, scratch_for
from server.system.read_error import read_error

KEYS_PER_QUERY = 1000  # SQLite's own limit has been 999 (until 3.32) and is 32,766
# A vector of 512 numbers has 2 KB; a page of 4 KB, SQLite's default, would hold only one.
PAGE_BYTES = 16_384
# Characters of SQLite's own message. It may quote what a foreign file says.
MOST_SAID = 200
# Of a file from elsewhere. A document of this size would have 50,000 chunks or more.
MOST_ROW_BYTES = 256 * 1024 * 1024

# SQLite's primary result codes that a person can act on, with the error class and the advice.
ADVICE: dict[int, tuple[type[StoreError], Message]] = {
    sqlite3.SQLITE_FULL: (DiskFull, Message("the disk is full: free some space and try again")),
    sqlite3.SQLITE_IOERR: (
        StoreError,
        Message(
            "the disk failed: try again; if it fails again, check the disk, its free space and quota"
        ),
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

# Parts of messages that have no code of their own: a text that is no UTF-8, which this server never writes,
# and a list of tables that was sound when the file was opened, or seemed so.
SAID_OF_DAMAGE = (
    "decode to UTF-8",
    "no such table",
    "no such fts5 table",
    "vtable constructor failed",
)

Connection = sqlite3.Connection
Rows = list[tuple[Any, ...]]
Create = Callable[[Connection], None]
Migrate = Callable[[Connection, int], None]


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
        # deque.pop and append are atomic, so the pool needs no lock.
        self._readers: deque[sqlite3.Connection] = deque()
        self._turn = deque(["to write"])  # taken by the transaction that runs
        missing = _is_missing(path)
        if missing and create is None:
            raise StoreDamaged("{path} is missing; restore the collection from a backup", path=path)
        if not missing:
            _check_not_empty(path)
        with self.advising():
            self.writer = self._connect(create=missing)
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

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection for reading: that of the snapshot, where this thread has one open."""
        with self.advising():
            if self in (snapshots := _snapshots.get()):
                yield snapshots[self]
                return
            try:
                reader = self._readers.pop()
            except IndexError:
                reader = self._connect()
                # 16 MB: looking clauses up among 63,762 texts took 8 ms with it and 12 with 2 MB.
                reader.execute("PRAGMA cache_size = -16000")
            try:
                yield reader
            finally:
                if reader.in_transaction:
                    reader.close()  # its snapshot did not end: the disk failed
                else:
                    self._readers.append(reader)

    def rows(self, query: str, parameters: Sequence[object] = ()) -> Rows:
        """Return all rows of a query."""
        with self.reading() as reader:
            return reader.execute(query, parameters).fetchall()

    def rows_of(self, query: str, keys: Sequence[object]) -> Rows:
        """Return the rows of `query`, which ends in IN, for all keys, from one moment."""
        rows = []
        with self.snapshot(), self.reading() as reader:
            for start in range(0, len(keys), KEYS_PER_QUERY):
                some = keys[start : start + KEYS_PER_QUERY]
                marks = ",".join("?" * len(some))
                rows += reader.execute(f"{query} ({marks})", some).fetchall()
        return rows

    def complaints(self) -> list[str]:
        """Return what SQLite's own check of the whole file finds wrong."""
        found = [one_line(row[0]) for row in self.rows("PRAGMA integrity_check(20)")]
        return [] if found == ["ok"] else found

    def close(self) -> None:
        """Close the connections; no other call may be running."""
        self._check_idle()
        while self._readers:
            self._readers.pop().close()
        self.writer.close()

    def close_unchanged(self) -> None:
        """Close the connections and leave the log beside the file, which may be damaged."""
        # subtle: the last connection that is closed moves the log into the file and deletes it, unless it
        # may only read.
        log = self.path.with_name(f"{self.path.name}-wal")
        if _is_missing(log) or not log.stat().st_size:
            return self.close()
        try:
            last = sqlite3.connect(f"file:{_quoted(self.path)}?mode=ro", uri=True)
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
            while self._readers:
                self._readers.pop().close()
            self.writer.execute("PRAGMA journal_mode = DELETE")
            self.writer.close()

    def _check_idle(self) -> None:
        # subtle: as with two writes, closing a connection in use ends the process.
        if not self._turn:
            raise RuntimeError(f"{self.path}: closed during a write")

    def _connect(self, *, create: bool = False) -> Connection:
        # subtle: without a mode SQLite would create a file that is missing, also to read it.
        connection = sqlite3.connect(
            f"file:{_quoted(self.path)}?mode={'rwc' if create else 'rw'}",
            uri=True,
            timeout=self._busy_timeout_s,
            isolation_level=None,  # this file begins and ends transactions
            check_same_thread=False,
        )
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
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
        with _advising(self.path):
            yield


# The connections of the snapshots that are open, each thread's its own.
_snapshots: ContextVar[Mapping[Database, Connection]] = ContextVar(
    "snapshots", default=MappingProxyType({})
)


def _is_missing(path: Path) -> bool:
    """Return whether there is no such file; what else is wrong with it, SQLite reports."""
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _check_not_empty(path: Path) -> None:
    """Raise StoreDamaged for a file without bytes, before SQLite opens it.

    subtle: SQLite deletes the log beside such a file, also to read it. The log may hold all documents.
    """
    try:
        size = path.stat().st_size
    except OSError:
        # SQLite reports what is wrong.
        return
    if not size:
        raise StoreDamaged("{path} is empty; restore the collection from a backup", path=path)


def copy(source: Path, target: Path) -> None:
    """Copy a database, whole, consistent and checked, also while a server writes to it.

    The copy appears at `target` when it is complete, not before. Raises OSError where `target` cannot
    be written.
    """
    _check_not_empty(source)
    with scratch_for(target) as (scratch, _):
        for suffix in ("-journal", "-wal", "-shm"):
            # A killed backup left them; SQLite would take them for parts of this one.
            scratch.with_name(f"{scratch.name}{suffix}").unlink(missing_ok=True)
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


class ForeignFile:
    """A file that this server may not have written, open for reading, as it was at one moment.

    Views, triggers and functions in it get no rights, and a row has a limit. The caller names the
    tables that it reads, and checks what they are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # subtle: see `peek`. A file with a log is one of a running or killed server, and the log is
        # a part of it. It stands beside the file, not beside a link to it.
        path = path.resolve()
        _check_not_empty(path)
        logs = [path.with_name(f"{path.name}{suffix}") for suffix in ("-wal", "-journal")]
        alone = not any(log.exists() for log in logs)
        uri = f"file:{_quoted(path)}?mode=ro" + ("&immutable=1" if alone else "")
        with _advising(path):
            self._connection = sqlite3.connect(uri, uri=True, isolation_level=None)
            self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_ROW_BYTES)
            self._connection.execute("PRAGMA trusted_schema = OFF")
            self._connection.execute("PRAGMA cell_size_check = ON")
            self._connection.execute("BEGIN")

    def rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query one after the other."""
        with _advising(self.path):
            # subtle: `yield from` would close the cursor of a reader that stops, after the file is closed.
            for row in self._connection.execute(query):  # noqa: UP028
                yield row

    def close(self) -> None:
        self._connection.close()


@contextmanager
def temporary() -> Iterator[Connection]:
    """Yield an empty database, which is gone at the end; it may be larger than the memory."""
    with closing(sqlite3.connect("")) as connection:
        yield connection


def peek(path: Path, query: str) -> Rows:
    """Return rows of a database that another process may be using; no file is created or changed.

    subtle: a database that no process has open has no log, and SQLite would create one to read it.
    With `immutable` it does not.
    """
    _check_not_empty(path)
    alone = not path.with_name(f"{path.name}-wal").exists()
    uri = f"file:{_quoted(path)}?mode=ro" + ("&immutable=1" if alone else "")
    with _advising(path), closing(sqlite3.connect(uri, uri=True)) as connection:
        return connection.execute(query).fetchall()


def _quoted(path: Path) -> str:
    """Return a path as it stands inside an SQLite URI."""
    return str(path.resolve()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def brief(error: BaseException) -> str:
    """Return what an error says, without the stored text that it may quote, and not too long."""
    return one_line(str(error).partition(" with text ")[0])[:MOST_SAID]


def one_line(said: str) -> str:
    return " ".join(str(said).split())


@contextmanager
def _advising(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        # The primary code is the low byte. Errors of Python itself have none.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        said: Exception = error
        if any(each in str(error) for each in SAID_OF_DAMAGE):
            code = sqlite3.SQLITE_CORRUPT
        if code == sqlite3.SQLITE_CORRUPT and (refusal := read_error(path)):
            code, said = sqlite3.SQLITE_IOERR, refusal
        advice = ADVICE.get(code)
        if advice is None:
            raise
        kind, what_to_do = advice
        raise kind(
            "{path}: {error}; {advice}", path=path, error=brief(said), advice=what_to_do
        ) from error
