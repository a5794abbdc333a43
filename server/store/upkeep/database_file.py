"""Database files that this process does not serve: copied, looked into, and read row by row."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from server.errors import StoreDamaged, StoreError
from server.store.sqlite.advice import advising
from server.store.sqlite.database import Rows
from server.store.sqlite.database_path import (
    JOURNAL,
    SHARED,
    WAL,
    beside,
    file_key,
    quoted,
    refuse_unsafe,
)
from server.system.atomic_file import install, scratch_for

# Of a file from elsewhere. A document of this size would have 50,000 chunks or more.
MOST_ROW_BYTES = 256 * 1024 * 1024
MAGIC = b"SQLite format 3\0"


def copy(source: Path, target: Path) -> None:
    """Copy a database, whole, consistent and checked, also while a server writes to it.

    The copy appears at `target` when it is complete, not before. Raises OSError where `target` cannot
    be written.
    """
    with closing(held(source)) as old:
        copy_held(old, source, target)


def held(source: Path) -> sqlite3.Connection:
    """Return a connection that sees a database as it is now, until it is closed; from any thread.

    The file may be moved or deleted meanwhile.
    """
    refuse_unsafe(source)
    file = file_key(source)
    uri = f"file:{quoted(source)}?mode=ro"
    with advising(source), ExitStack() as stack:
        old = stack.enter_context(closing(sqlite3.connect(uri, uri=True, check_same_thread=False)))
        old.execute("BEGIN")
        old.execute("SELECT count(*) FROM sqlite_master").fetchone()
        # subtle: SQLite opens the log now, by its name. After a swap it is that of another file.
        if file_key(source) != file:
            raise StoreError("{path} was replaced just now; try again", path=source)
        stack.pop_all()
        return old


def copy_held(old: sqlite3.Connection, source: Path, target: Path) -> None:
    """Copy what a held connection sees; `copy` says how."""
    with scratch_for(target) as (scratch, _):
        for end in (JOURNAL, WAL, SHARED):
            # A killed backup left them; SQLite would take them for parts of this one.
            beside(scratch, end).unlink(missing_ok=True)
        with advising(source), advising(scratch), closing(sqlite3.connect(scratch)) as new:
            old.backup(new)
            # The copy is one file, and may be read where no log can be written.
            new.execute("PRAGMA journal_mode = DELETE")
            if new.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise StoreDamaged(
                    "{source} is damaged: no copy was made; see what `check` says", source=source
                )
        install(scratch, target)


class ForeignFile:
    """A file that this server may not have written, open for reading, as it was at one moment.

    Views, triggers and functions in it get no rights, and a row has a limit. The caller names the
    tables that it reads, and checks what they are. n_missing: bytes that its end lacks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        refuse_unsafe(path)
        self.n_missing = 0
        # subtle: see `peek`. A file with a log is one of a running or killed server, and the log is
        # a part of it. It stands beside the file, not beside a link to it.
        path = path.resolve()
        alone = not any(beside(path, end).exists() for end in (WAL, JOURNAL))
        if alone:
            self.n_missing = _n_missing(path)
        uri = f"file:{quoted(path)}?mode=ro" + ("&immutable=1" if alone else "")
        with advising(path):
            self._connection = sqlite3.connect(uri, uri=True, isolation_level=None)
            self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_ROW_BYTES)
            self._connection.execute("PRAGMA trusted_schema = OFF")
            self._connection.execute("PRAGMA cell_size_check = ON")
            self._connection.execute("BEGIN")

    def rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query one after the other."""
        with advising(self.path):
            # subtle: `yield from` would close the cursor of a reader that stops, after the file is closed.
            for row in self._connection.execute(query):  # noqa: UP028
                yield row

    def close(self) -> None:
        self._connection.close()


def _n_missing(path: Path) -> int:
    """Return how many bytes of the last pages a database lacks; 0 for a file that is none.

    SQLite takes what is missing of the last page for zeros.
    """
    with path.open("rb") as file:
        head = file.read(32)
        size = file.seek(0, os.SEEK_END)
    if len(head) < 32 or not head.startswith(MAGIC):
        return 0
    # Of the format: 1 stands for 65,536.
    page_bytes, n_pages = int.from_bytes(head[16:18]), int.from_bytes(head[28:32])
    return max(0, n_pages * (1 << 16 if page_bytes == 1 else page_bytes) - size)


def peek(path: Path, query: str) -> Rows:
    """Return rows of a database that another process may be using; no file is created or changed.

    subtle: a database that no process has open has no log, and SQLite would create one to read it.
    With `immutable` it does not.
    """
    refuse_unsafe(path)
    alone = not beside(path, WAL).exists()
    uri = f"file:{quoted(path)}?mode=ro" + ("&immutable=1" if alone else "")
    with advising(path), closing(sqlite3.connect(uri, uri=True)) as connection:
        return connection.execute(query).fetchall()
