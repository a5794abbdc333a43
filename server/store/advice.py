"""What errors of SQLite mean, and the advice that goes with each."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.errors import DiskFull, StoreDamaged, StoreError
from server.messages.message import Message

# Characters of SQLite's own message. It may quote what a foreign file says.
MOST_SAID = 200

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


def brief(error: BaseException) -> str:
    """Return what an error says, without the stored text that it may quote, and not too long."""
    return one_line(str(error).partition(" with text ")[0])[:MOST_SAID]


def one_line(said: str) -> str:
    """Return a text without line ends."""
    return " ".join(str(said).split())


@contextmanager
def advising(path: Path) -> Iterator[None]:
    """Turn errors of SQLite in the block into StoreError, with advice on what to do."""
    try:
        yield
    except sqlite3.Error as error:
        # The primary code is the low byte. Errors of Python itself have none: our bugs, and text that is
        # no UTF-8, which this server never writes.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        advice = ADVICE.get(sqlite3.SQLITE_CORRUPT if "decode to UTF-8" in str(error) else code)
        if advice is None:
            raise
        kind, what_to_do = advice
        raise kind(
            "{path}: {error}; {advice}", path=path, error=brief(error), advice=what_to_do
        ) from error
