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
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from export.errors import CannotWrite
from export.onnx_file import WEIGHTS_FILE, OnnxFile
from server.errors import BadArtifact
from server.inference.manifest import (
    MANIFEST_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    Manifest,
    parse_manifest,
    read_manifest,
)
from server.system.atomic_file import sync_folder, sync_tree

# Name -> the content, in parts.
Files = Mapping[str, Iterable[bytes]]
ARTIFACT_FILES = {MODEL_FILE, WEIGHTS_FILE, TOKENIZER_FILE, MANIFEST_FILE}

# A scratch folder, `.NAME.RANDOM.tmp` beside the artifact NAME, has this mark as long as it has anything
# else. A folder without it is somebody else's, and is never touched.
MARK = ".inkwell-export-scratch"
# In a scratch folder: the artifact that is written, and the one that it replaces.
NEW, OLD = "new", "old"

# Of <fcntl.h> and <linux/fs.h>.
AT_FDCWD, RENAME_EXCHANGE = -100, 2
# The kernel, a container's filter or the file system (NFS, 9p, some FUSE) does not know the flag.
CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)


def settings_hash(settings: dict[str, Any]) -> str:
    """Return the identity of everything that went into an export, as one sha256."""
    return hashlib.sha256(canonical_json(settings)).hexdigest()


def canonical_json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True).encode()


def fingerprint(graph: OnnxFile, tokenizer: bytes, text_rules: dict[str, Any]) -> str:
    """Return the identity of the vector space: the same graph, vocabulary and text preparation.

    Instructions are left out: they are put before a text and do not change the space.
    """
    digest = hashlib.sha256()
    for file_digest in graph.sha256().values():
        digest.update(bytes.fromhex(file_digest))
    for part in (tokenizer, canonical_json(text_rules)):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:32]


def is_current(folder: Path, settings: str) -> bool:
    """Return whether `folder` holds an undamaged artifact made with the same settings."""
    try:
        return read_manifest(folder).settings_sha256 == settings
    except BadArtifact:
        return False


def check_same_model(folder: Path, model_id: str, checkpoint_sha256: str) -> None:
    """Refuse to replace the artifact of another model: two hubs' models may share a short name."""
    try:
        there = parse_manifest(folder / MANIFEST_FILE)
    except BadArtifact:
        return
    if there.model_id != model_id and there.checkpoint_sha256 != checkpoint_sha256:
        raise CannotWrite(
            "{folder} holds the artifact of {other}, another model than {model_id}; choose another folder "
            "with --out",
            folder=folder,
            other=there.model_id,
            model_id=model_id,
        )


def recover(folder: Path) -> None:
    """Tidy up after killed exports to `folder`, as far as this process has permission.

    Their scratch folders are removed. An old artifact that was moved aside comes back if nothing took
    its place.
    """
    folder = _real(folder)
    with contextlib.suppress(OSError), _locked(folder.parent):
        _recover(folder)


def check_replaceable(folder: Path) -> None:
    """Refuse, before any work, a folder that cannot be replaced or that holds something else.

    Changes nothing: missing parents of `folder` stay missing.
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
    others = sorted(set(names) - ARTIFACT_FILES)
    if others:
        raise CannotWrite(
            "{folder} holds {others}, which is no part of an artifact and would be lost; choose "
            "another --out",
            folder=folder,
            others=others[0],
        )


def write_artifact(folder: Path, graph: OnnxFile, tokenizer: bytes, manifest: Manifest) -> None:
    """Write the files beside `folder`, then move them there in one step."""
    folder = _real(folder)
    described = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    files = graph.files() | {TOKENIZER_FILE: (tokenizer,), MANIFEST_FILE: (described,)}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.parent):
            _recover(folder)
            # Again: an export takes minutes, and a file may have been saved there meanwhile.
            _check_nothing_lost(folder)
            _write(folder, files)
    except OSError as error:
        size = (graph.size + len(tokenizer) + len(described)) / 1e6
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


def _make_scratch(folder: Path) -> Path:
    """Make an empty folder beside `folder` under a name that no other one has."""
    return Path(tempfile.mkdtemp(".tmp", f".{folder.name}.", folder.parent))


def _try_scratch(folder: Path) -> None:
    """Try what a write does first, and undo it."""
    missing = [path for path in folder.parents if not path.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.parent):
            _make_scratch(folder).rmdir()
    finally:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other exports from writing in `folder`, where its file system has locks.

    What they left there is then known to come from a process that has ended. A process id would not
    show that: another container has its own ids.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _recover(folder: Path) -> None:
    # As `_make_scratch` names them, so that ".a.1.abcdefgh.tmp" belongs to the folder "a.1", not to "a".
    pattern = re.compile(rf"\.{re.escape(folder.name)}\.[a-z0-9_]{{8}}\.tmp")
    left = [
        path
        for path in folder.parent.iterdir()
        if pattern.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
    ]
    ours = [path for path in left if (path / MARK).exists()]
    # The last one to be moved aside is the last that was served.
    aside = [path / OLD for path in ours if (path / OLD).is_dir()]
    if aside and not os.path.lexists(folder):
        max(aside, key=lambda path: path.stat().st_ctime_ns).rename(folder)
    for path in left:
        if path in ours:
            _remove_scratch(path)
        else:
            # Killed before it had a mark, it is empty. This removes nothing else.
            with contextlib.suppress(OSError):
                path.rmdir()


def _remove_scratch(scratch: Path) -> None:
    """Remove a scratch folder, its mark last: a process killed meanwhile leaves a marked one."""
    for name in (NEW, OLD):
        shutil.rmtree(scratch / name, ignore_errors=True)
    with contextlib.suppress(OSError):
        if {path.name for path in scratch.iterdir()} == {MARK}:
            (scratch / MARK).unlink()
            scratch.rmdir()


# --- writing --------------------------------------------------------------------------------------


def _write(folder: Path, files: Files) -> None:
    scratch = _make_scratch(folder)
    try:
        (scratch / MARK).touch()
        new = scratch / NEW
        new.mkdir()
        for name, parts in files.items():
            with (new / name).open("wb") as file:
                file.writelines(parts)
        sync_tree(new)
        _replace_folder(folder, scratch)
        # Before the old files are removed: after a power cut one of the two must be there.
        sync_folder(folder.parent)
    finally:
        _remove_scratch(scratch)


def _replace_folder(folder: Path, scratch: Path) -> None:
    """Put the new artifact of `scratch` in the place of `folder`; an old one is then in `scratch`."""
    new, old = scratch / NEW, scratch / OLD
    if not os.path.lexists(folder):
        new.rename(folder)
    elif not _exchange(new, folder):
        # A folder cannot replace one with files in it, so the old one steps aside first. If the process
        # ends between the two renames, the next `recover` puts it back.
        folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            old.rename(folder)
            raise


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; returns False where that is not possible."""
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
