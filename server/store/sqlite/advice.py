"""Advice for people when SQLite fails: its errors become errors that say what to do."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.errors import DiskFull, Overloaded, StoreDamaged, StoreError
from server.messages.message import Message
from server.store.sqlite import read_limit
from server.system.open_files import can_open
from server.system.read_error import read_error

# Open files of a database that is written and read: itself twice, its log, and what its connections share.
FILES_A_DATABASE = 4
FILES_RETRY_S = 5
# Characters of SQLite's own message. It may quote what a foreign file says.
MOST_SAID = 200

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


@contextmanager
def advising(path: Path) -> Iterator[None]:
    """Turn errors of SQLite in the block into errors that say what to do."""
    try:
        yield
    except sqlite3.Error as error:
        # The primary code is the low byte. Errors of Python itself have none.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_INTERRUPT and (late := read_limit.late()) is not None:
            raise late from error
        if code == sqlite3.SQLITE_CANTOPEN and not can_open(FILES_A_DATABASE):
            raise Overloaded(
                "the server has as many files open as the system allows it; try again later, or raise"
                " the limit (LimitNOFILE=, ulimit -n)",
                retry_after_s=FILES_RETRY_S,
            ) from error
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


def brief(error: BaseException) -> str:
    """Return what an error says, without the stored text that it may quote, and not too long."""
    return one_line(str(error).partition(" with text ")[0])[:MOST_SAID]


def one_line(said: str) -> str:
    """Return a text without line ends."""
    return " ".join(str(said).split())
