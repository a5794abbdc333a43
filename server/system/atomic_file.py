"""Replaces a file whole and durably: after a crash or a power cut there is the old one or the new one.

The content is written beside the file and forced to the disk, takes its name in one step, and then the
folder is forced to the disk, because the name stands in the folder and not in the file.
"""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path, *, scratch: Path | None = None, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Yield a file that takes the place of `path` when the block ends; if it raises, `path` stays.

    scratch: where it is written first, in the same folder; a new name unless given. One that a killed
    process left there is overwritten. mode: of the new file, less the umask.
    """
    scratch = scratch or path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _take_name(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def install(scratch: Path, path: Path) -> None:
    """Put the finished file `scratch` in the place of `path`, which is in the same folder."""
    _sync_file(scratch)
    _take_name(scratch, path)


def sync_tree(folder: Path) -> None:
    """Make a folder durable: the content of its files, and their names."""
    for path in folder.iterdir():
        _sync_file(path)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where this process may open the folder."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        # subtle: a folder that this user may write in but not list. The name has been changed by now, so an
        # error would tell the caller that nothing was written.
        return
    try:
        os.fsync(handle)
    except OSError as error:
        # A file system that cannot do this for a folder reports EINVAL.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(handle)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _take_name(scratch: Path, path: Path) -> None:
    scratch.replace(path)
    sync_folder(path.parent)
