"""Maintains collections on the disk: back up, list and check; `restoring` brings a backup back.

None of it needs the model. A backup may run beside a server; the others lock the folder.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from server.errors import BadSettings, NoDataFolder, StoreError
from server.messages.message import Message
from server.store.collection import DATABASE_FILE
from server.store.collection_name import folder_name
from server.store.documents import Documents
from server.store.folder import INDEX
from server.store.folder_layout import FolderLayout
from server.store.folder_lock import COLLECTIONS, FolderLock, unusable
from server.store.naming import names_file
from server.store.naming.renaming import prepared
from server.store.records import Listed
from server.store.upkeep.backup_file import writing
from server.store.upkeep.database_file import copy
from server.store.upkeep.integrity import faults_of


def check_folder(data: Path) -> None:
    """Raise NoDataFolder where there is none; a command that only reads must not create it."""
    if not FolderLayout(data).path.is_dir():
        raise NoDataFolder(
            "there is no data folder {data}; check --data, or fill one with `index FILE`", data=data
        )


def names(data: Path) -> list[str]:
    """Return the names of the collections in a data folder."""
    return FolderLayout(data).names()


def collections(data: Path, known: Mapping[str, str]) -> tuple[list[Listed], dict[str, StoreError]]:
    """List the collections of a folder, and by name the error of each that cannot be opened.

    known: ids of models by their fingerprint.
    """
    found: list[Listed] = []
    damaged: dict[str, StoreError] = {}
    with _settled(data) as all_names:
        for name in all_names:
            try:
                with closing(
                    Documents(_home(data) / folder_name(name) / DATABASE_FILE, None)
                ) as documents:
                    model = documents.info.fingerprint
                    found.append(Listed(name, documents.count(), known.get(model, model)))
            except StoreError as error:
                damaged[name] = error
    return found, damaged


@contextmanager
def _settled(data: Path) -> Iterator[list[str]]:
    """Lock the folder, undo a replacement that was interrupted, and yield the names."""
    check_folder(data)
    with closing(FolderLock(data, "")):
        layout = FolderLayout(data)
        try:
            prepared(data, layout)
        except OSError as error:
            raise unusable(data, error) from error
        yield layout.names()


def backup(data: Path, name: str, target: Path) -> int:
    """Copy a collection into one file, which replaces another; returns its size in bytes."""
    source = _home(data) / folder_name(_existing(data, name)) / DATABASE_FILE
    if target.resolve().is_relative_to(_home(data).resolve()):
        raise BadSettings(
            "{target} is inside {data}, where it would be lost with it; name a place elsewhere",
            target=target,
            data=data,
        )
    with writing(target):
        copy(source, target)
        return target.stat().st_size


def _home(data: Path) -> Path:
    return data / COLLECTIONS


def _existing(data: Path, name: str) -> str:
    """Return the collection's own name, also where an alias of it is given; raises BadSettings."""
    check_folder(data)
    found = names(data)
    if name not in found:
        name = names_file.read(data).aliases.get(name, name)
    if name not in found:
        raise BadSettings(
            "{data} has no collection {name}, only {found}",
            data=data,
            name=name,
            found=tuple(found) or Message("none"),
        )
    return name


# --- checking -----------------------------------------------------------------------------------------


def check(data: Path, name: str | None, say: Callable[[Message], object]) -> bool:
    """Examine one collection or all, and say what was found; whether nothing is wrong."""
    sound = True
    with _settled(data) as all_names:
        if name is not None:
            name = _existing(data, name)
        elif not all_names:
            say(Message("no collections"))
        for each in all_names if name is None else [name]:
            faults = faults_of(_home(data) / folder_name(each), INDEX)
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
