"""Opens files whose folder somebody else may have filled: regular files only, and never more than a limit.

Opening a named pipe would wait for its other end, and reading a device might never end.
"""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path


class FileTooLarge(OSError):
    """Raised for a file with more than `most` bytes."""

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        self.most = most


def open_regular(path: Path) -> BufferedReader:
    """Return the file opened for reading; raises OSError at once if it is not a regular file."""
    # NONBLOCK is for a pipe without a writer; it changes nothing for regular files.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_limited(path: Path, most: int) -> bytes:
    """Return the content of a regular file; raises FileTooLarge beyond `most` bytes, else OSError."""
    with open_regular(path) as file:
        # subtle: not by the size that the file system states, which may change or be 0.
        content = file.read(most + 1)
    if len(content) > most:
        raise FileTooLarge(path, most)
    return content
