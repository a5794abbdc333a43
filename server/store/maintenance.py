"""Maintains collections on the disk: back up, restore, list and check.

None of it needs the model. A backup may run beside a server; the others lock the folder.
"""

import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from server.errors import BadSettings, StoreDamaged, StoreError
from server.messages.message import Message
from server.store.collection import DATABASE_FILE
from server.store.database import copy
from server.store.documents import Documents
from server.store.folder import COPIED, INDEX
from server.store.folder_layout import FolderLayout, check_name
from server.store.folder_lock import FolderLock, unusable
from server.store.integrity import faults_in, faults_of
from server.store.records import Listed


def names(data: Path) -> list[str]:
    """Return the names of the collections in a data folder."""
    return FolderLayout(data).names()


def collections(data: Path, known: Mapping[str, str]) -> list[Listed]:
    """List the collections of a folder.

    known: ids of models by their fingerprint.
    """
    found: list[Listed] = []
    if not names(data):
        return found
    with closing(FolderLock(data, "")):
        for name in names(data):
            with closing(Documents(_home(data) / name / DATABASE_FILE, None)) as documents:
                model = documents.info.fingerprint
                found.append(Listed(name, documents.count(), known.get(model, model)))
    return found


def backup(data: Path, name: str, target: Path) -> int:
    """Copy a collection into one file, which replaces another; returns its size in bytes."""
    source = _existing(data, name)
    if target.resolve().is_relative_to(_home(data).resolve()):
        raise BadSettings(
            "{target} is inside {data}, where it would be lost with it; name a place elsewhere",
            target=target,
            data=data,
        )
    if not target.parent.is_dir() or target.is_dir():
        raise BadSettings(
            "{target} cannot be written: it must be a file in a folder that exists", target=target
        )
    copy(source, target)
    return target.stat().st_size


def _home(data: Path) -> Path:
    return data / "collections"


def _existing(data: Path, name: str) -> Path:
    found = names(data)
    if name not in found:
        raise BadSettings(
            "{data} has no collection {name}, only {found}",
            data=data,
            name=name,
            found=tuple(found) or Message("none"),
        )
    return _home(data) / name / DATABASE_FILE


# --- restoring ----------------------------------------------------------------------------------------


def restore(data: Path, file: Path, name: str | None, *, force: bool) -> Listed:
    """Make a collection of a backup, under its own name or another.

    force: whether to replace a collection of that name, whole or not at all.
    """
    if name is not None:
        check_name(name)
    if not file.is_file():
        raise BadSettings("there is no file {file}", file=file)
    with closing(FolderLock(data, "")):
        layout = FolderLayout(data)
        try:
            layout.prepare()
            with layout.staging() as staged:
                restored = _copied(file, staged / DATABASE_FILE, name)
                if restored.name not in layout.names():
                    layout.place(staged, layout.home(restored.name))
                elif force:
                    with layout.replacing(restored.name, staged):
                        pass
                else:
                    raise BadSettings(
                        "{data} has a collection {name} already: give --force to replace it, or "
                        "another name with --collection",
                        data=data,
                        name=restored.name,
                    )
        except OSError as error:
            raise unusable(data, error) from error
    return restored


def _copied(file: Path, copied: Path, name: str | None) -> Listed:
    """Copy a backup, check it and give it its name; raises BadSettings where it is no backup."""
    try:
        copy(file, copied)
        documents = Documents(copied, None)
    except Exception as error:
        # An SQLite file of another program may lack anything.
        if isinstance(error, StoreError) and not isinstance(error, StoreDamaged):
            raise
        why = str(error.__cause__ or error) or type(error).__name__
        raise BadSettings(
            "{file} is no sound backup of a collection: {why}", file=file, why=why
        ) from error
    with closing(documents):
        if faults := faults_in(documents):
            raise StoreDamaged(
                "{file} is damaged, {number} faults: {first}",
                file=file,
                number=len(faults),
                first=faults[0],
            )
        name = documents.info.name if name is None else name
        with documents.transaction():
            documents.note("name", name)
            # So a snapshot of the old collection cannot be taken for one of this.
            documents.note("identity", str(uuid.uuid4()))
            documents.note(COPIED, "0")
        found = Listed(name, documents.count(), documents.info.fingerprint)
        documents.database.close_whole()
    return found


# --- checking -----------------------------------------------------------------------------------------


def check(data: Path, name: str | None, say: Callable[[Message], object]) -> bool:
    """Examine one collection or all, and say what was found; whether nothing is wrong."""
    if name is not None:
        _existing(data, name)
    if not names(data):
        say(Message("no collections"))
        return True
    sound = True
    with closing(FolderLock(data, "")):
        for each in names(data) if name is None else [name]:
            faults = faults_of(_home(data) / each, INDEX)
            sound = sound and not faults
            say(
                Message(
                    "{name}: {number} faults" if faults else "{name}: sound",
                    name=each,
                    number=len(faults),
                )
            )
            for fault in faults:
                say(Message("  - {fault}", fault=fault))
    return sound
