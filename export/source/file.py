"""Reads files of a model's folder: regular files up to a size, in which nothing is trusted.

A link to a file is followed, because the caches of hubs consist of links.
"""

import os
from io import BufferedReader
from pathlib import Path

from export.errors import CorruptFile, NoSuchModel
from server.system.regular_file import FileTooLarge, open_regular, read_limited

# Of settings in JSON. The largest known list a hundred thousand labels.
MOST_SETTINGS = 8 * 1024 * 1024
# Of vocabularies, tokenizers and lists of shards. A vocabulary of 262,144 tokens takes 33 MB.
MOST_TABLE = 64 * 1024 * 1024


def exists(path: Path) -> bool:
    """Return whether there is something at `path`, also a link to nothing; raises CorruptFile."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unreadable(path, error) from None
    return True


def read_file(path: Path, most: int) -> bytes:
    """Return the content of a regular file of up to `most` bytes; raises an ExportError."""
    try:
        return read_limited(path, most)
    except OSError as error:
        raise _unreadable(path, error) from None


def open_file(path: Path) -> BufferedReader:
    """Return a regular file opened for reading; raises an ExportError."""
    try:
        return open_regular(path)
    except OSError as error:
        raise _unreadable(path, error) from None


def check_file(path: Path) -> None:
    """Raise an ExportError unless `path` is a regular file that may be read."""
    open_file(path).close()


def check_size(path: Path, most: int | None) -> None:
    """Raise CorruptFile for a file with more than `most` bytes; None allows any."""
    if most is not None and path.stat().st_size > most:
        raise _unreadable(path, FileTooLarge(path, most))


def _unreadable(path: Path, error: OSError) -> CorruptFile | NoSuchModel:
    if isinstance(error, FileTooLarge):
        return CorruptFile(
            "{path} has more than {most:,} bytes, the most that is read of such a file",
            path=path,
            most=error.most,
        )
    if isinstance(error, FileNotFoundError):
        if path.is_symlink():
            return CorruptFile("{path} is a link to a file that does not exist", path=path)
        return NoSuchModel("{path} does not exist", path=path)
    return CorruptFile("{path} cannot be read: {strerror}", path=path, strerror=error.strerror)
