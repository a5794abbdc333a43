"""Puts an artifact on disk, whole or not at all, and recognises one that is already there."""

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from export.errors import CannotWrite
from server.errors import BadArtifact
from server.inference.manifest import (
    MANIFEST_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    Manifest,
    read_manifest,
)

# Of <fcntl.h> and <linux/fs.h>.
AT_FDCWD, RENAME_EXCHANGE = -100, 2
# The kernel, a container's filter or the file system (NFS, 9p, some of FUSE) does not know the flag.
CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)


def settings_hash(settings: dict[str, Any]) -> str:
    """Identity of everything that went into an export, as one sha256."""
    return hashlib.sha256(canonical_json(settings)).hexdigest()


def canonical_json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True).encode()


def fingerprint(model: bytes, tokenizer: bytes, text_rules: dict[str, Any]) -> str:
    """Identity of the vector space: the same graph, vocabulary and text preparation.

    Instructions are left out: they are put before a text, they do not change the space.
    """
    digest = hashlib.sha256()
    for part in (model, tokenizer, canonical_json(text_rules)):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:32]


def is_current(folder: Path, settings: str) -> bool:
    """Whether `folder` holds an undamaged artifact made with the same settings."""
    try:
        return read_manifest(folder).settings_sha256 == settings
    except BadArtifact:
        return False


def recover(folder: Path) -> None:
    """Tidy up after exports to `folder` that were killed, as far as this process may.

    Scratch folders go. An old artifact that had stepped aside comes back if nothing took its place.
    """
    folder = _real(folder)
    with contextlib.suppress(OSError), _locked(folder.parent):
        _recover(folder)


def check_replaceable(folder: Path) -> None:
    """Refuse, before any work, to put an artifact where something would be lost, or where it cannot go.

    Leaves everything as it is, the missing parents of `folder` included.
    """
    if os.path.ismount(folder):
        raise CannotWrite(
            "{folder} is a mount point, which cannot be replaced; choose a folder in it with --out",
            folder=folder,
        )
    try:
        _check_nothing_lost(folder)
        _try_scratch(_real(folder))
    except OSError as error:
        raise _cannot_write(folder, error) from None


def _check_nothing_lost(folder: Path) -> None:
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    others = sorted(set(names) - {MODEL_FILE, TOKENIZER_FILE, MANIFEST_FILE})
    if others:
        raise CannotWrite(
            "{folder} holds {others}, which is no part of an artifact and would be lost; choose "
            "another --out",
            folder=folder,
            others=others[0],
        )


def write_artifact(folder: Path, model: bytes, tokenizer: bytes, manifest: Manifest) -> None:
    """Write the three files beside `folder`, then move them there in one step."""
    folder = _real(folder)
    files = {
        MODEL_FILE: model,
        TOKENIZER_FILE: tokenizer,
        MANIFEST_FILE: msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n",
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.parent):
            _recover(folder)
            # Again: an export takes minutes, and somebody may have saved something there meanwhile.
            _check_nothing_lost(folder)
            _write(folder, files)
    except OSError as error:
        size = sum(map(len, files.values())) / 1e6
        if error.errno == errno.ENOSPC:
            raise CannotWrite(
                "no space left to write {size:.0f} MB beside {folder}; free some and run again",
                size=size,
                folder=folder,
            ) from None
        raise _cannot_write(folder, error) from None


# --- what lies beside the folder ------------------------------------------------------------------


def _real(folder: Path) -> Path:
    # Not Path.resolve, which raises RuntimeError for links in a circle.
    return Path(os.path.realpath(folder))


def _beside(folder: Path, kind: str) -> Path:
    return folder.with_name(f".{folder.name}.{os.getpid()}.{kind}")


def _try_scratch(folder: Path) -> None:
    """Make what a write makes first, and take it away again."""
    scratch = _beside(folder, "tmp")
    made = [path for path in (scratch, *scratch.parents) if not path.exists()]
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        with _locked(folder.parent):
            pass
    finally:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold off other exports that write in `folder`, where its file system has locks.

    What they left there is then known to be of a process that has ended, which a process id would
    not tell: another container has ids of its own.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _recover(folder: Path) -> None:
    # Digits only: ".a.1.7.tmp" is of the folder "a.1", not of "a".
    pattern = re.compile(rf"\.{re.escape(folder.name)}\.[0-9]+\.(tmp|old)")
    left = [path for path in folder.parent.iterdir() if pattern.fullmatch(path.name)]
    # The last one to be moved aside is the last that was served.
    left.sort(key=lambda path: (path.suffix == ".old", path.stat().st_ctime_ns))
    if left and left[-1].suffix == ".old" and not os.path.lexists(folder):
        left.pop().rename(folder)
    for path in left:
        shutil.rmtree(path, ignore_errors=True)


# --- writing --------------------------------------------------------------------------------------


def _write(folder: Path, files: dict[str, bytes]) -> None:
    scratch = _beside(folder, "tmp")
    try:
        scratch.mkdir()
        for name, content in files.items():
            _write_durably(scratch / name, content)
        _sync(scratch)
        old = _replace_folder(folder, scratch)
        # Before the old files go: after a power cut one of the two must be there.
        _sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        # A file system that cannot do this for a folder says EINVAL.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(handle)


def _replace_folder(folder: Path, scratch: Path) -> Path:
    """Put `scratch` in the place of `folder`; returns where the old one now is."""
    if not os.path.lexists(folder):
        scratch.rename(folder)
        return scratch
    if _exchange(scratch, folder):
        return scratch
    # A folder cannot replace one with files in it, so the old one steps aside first. If the process
    # ends between the two renames, the next `recover` puts it back.
    aside = _beside(folder, "old")
    folder.rename(aside)
    try:
        scratch.rename(folder)
    except OSError:
        aside.rename(folder)
        raise
    return aside


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; False where that is not possible."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    renameat2.argtypes = [
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_uint,
    ]
    paths = os.fsencode(one), os.fsencode(other)
    if renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in CANNOT_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))


def _cannot_write(folder: Path, error: OSError) -> CannotWrite:
    return CannotWrite("cannot write {folder}: {strerror}", folder=folder, strerror=error.strerror)
