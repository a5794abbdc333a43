"""The path of a database file: whether SQLite may open it, and how it stands in a URI."""

import stat
from pathlib import Path

from server.errors import StoreDamaged

FileKey = tuple[int, int]  # device and inode
# Ends of the names of the files that SQLite puts beside a database.
JOURNAL, WAL, SHARED = "-journal", "-wal", "-shm"


def beside(path: Path, end: str) -> Path:
    """Return the path of a file that SQLite puts beside a database."""
    return path.with_name(f"{path.name}{end}")


def file_key(path: Path) -> FileKey | None:
    """Return what tells a file from another one that takes its name; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def refuse_unsafe(path: Path) -> None:
    """Raise StoreDamaged for a database that SQLite must not open.

    It might wait for ever for a pipe. It deletes the log beside an empty file, also to read it, and the
    log may hold all documents.
    """
    for file in (path, *(beside(path, end) for end in (JOURNAL, WAL, SHARED))):
        try:
            found = file.stat()
        except OSError:
            continue  # SQLite says what is wrong with it
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            raise StoreDamaged("{path} is not a regular file; move it away", path=file)
        if file == path and not found.st_size:
            raise StoreDamaged("{path} is empty; restore the collection from a backup", path=path)


def is_missing(path: Path) -> bool:
    """Return whether there is no such file; what else is wrong with it, SQLite reports."""
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def quoted(path: Path) -> str:
    """Return a path as it stands inside an SQLite URI."""
    return str(path.resolve()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
