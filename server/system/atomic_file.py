"""Replaces a file whole and durably: after a crash or a power cut there is the old one or the new one.

The content is written beside the file and forced to the disk, takes its name in one step, and then the
folder is forced to the disk, because the name stands in the folder and not in the file.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path, *, scratch: Path | None = None, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Yield a file that takes the place of `path` when the block ends; if it raises, `path` stays.

    scratch: see `scratch_for`. mode: of the new file, less the umask.
    """
    with scratch_for(path, scratch=scratch, mode=mode) as (scratch, file):
        yield file
        file.flush()
        os.fsync(file.fileno())
        _take_name(scratch, path)


@contextmanager
def scratch_for(
    path: Path, *, scratch: Path | None = None, mode: int = 0o666
) -> Iterator[tuple[Path, BinaryIO]]:
    """Yield a new, empty file in the folder of `path` and its path; it is gone when the block ends.

    scratch: its path, `.NAME.tmp` unless given. The name is fixed, so killed processes leave one file at
    most, and the next process deletes it. Raises OSError, EBUSY while another process writes `path`.
    """
    scratch = scratch or path.with_name(f".{path.name}.tmp")
    with _locked(scratch, mode) as file:
        try:
            yield scratch, file
        finally:
            if _is_named(file, scratch):
                with suppress(OSError):
                    scratch.unlink()


def _locked(scratch: Path, mode: int) -> BinaryIO:
    """Return a new file of this name, which this process alone writes."""
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        file = open(os.open(scratch, flags, mode), "wb")
        try:
            _lock(file, scratch)
            if _is_named(file, scratch):
                if os.fstat(file.fileno()).st_size == 0:
                    return file
                # A killed process left it, perhaps with another mode.
                scratch.unlink()
        except BaseException:
            file.close()
            raise
        # The process that had it has renamed or deleted it meanwhile.
        file.close()


def _lock(file: BinaryIO, scratch: Path) -> None:
    """Lock an open file; the kernel frees it however the process ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        # subtle: no waiting, for this process may be the one that has it: export --pair A A.
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(scratch)) from None
    except OSError:
        # This file system has no locks.
        return


def _is_named(file: BinaryIO, path: Path) -> bool:
    """Return whether this open file still has this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


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
