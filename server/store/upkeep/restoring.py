"""Restores a collection from a backup: a new database is written from its rows, then takes its place.

Without `force` nothing that exists is touched. With it the old collection is replaced whole, or not at
all.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

from server.errors import BadSettings, InvalidRequest, StartupError, StoreDamaged, StoreError
from server.messages.message import Message
from server.store.collection import DATABASE_FILE
from server.store.documents import Documents
from server.store.folder_layout import FolderLayout
from server.store.folder_lock import FolderLock, unusable
from server.store.naming.renaming import prepared
from server.store.passages.words import ChunkWords
from server.store.records import COMPUTED_BY, Listed
from server.store.schema import DocumentRow, insert_chunk, insert_document
from server.store.upkeep.backup_file import BackupFile, Chunk, opened
from server.store.words.vocabulary import VOCABULARY

# Documents of one transaction.
DOCUMENTS_AT_ONCE = 1024


def restore(data: Path, file: Path, name: str | None, *, force: bool) -> Listed:
    """Make a collection of a backup, under its own name or another.

    force: whether to replace a collection of that name, whole or not at all.
    """
    with opened(file, name) as (backup, name):
        layout = FolderLayout(data)
        _check_place(layout, data, name, force=force)
        with closing(FolderLock(data, "")):
            try:
                names = prepared(data, layout)
                _check_alias(names.names.aliases, name)
                # Again, because another process may have created it before the folder was locked.
                _check_place(layout, data, name, force=force)
                backup.check()
                with layout.staging() as staged:
                    number = _fill(staged / DATABASE_FILE, backup, name)
                    _put(layout, staged, name)
            except OSError as error:
                raise unusable(data, error) from error
    return Listed(name, number, backup.info.fingerprint)


def _check_place(layout: FolderLayout, data: Path, name: str, *, force: bool) -> None:
    if os.path.lexists(layout.home(name)) and not force:
        raise BadSettings(
            "{data} has a collection {name} already: give --force to replace it, or "
            "another name with --collection",
            data=data,
            name=name,
        )


def _check_alias(aliases: Mapping[str, str], name: str) -> None:
    if name in aliases:
        raise BadSettings(
            "{name} is an alias of collection {collection}: give the name of the collection, or another"
            " one, with --collection",
            name=name,
            collection=aliases[name],
        )


def fill(folder: Path, file: Path, name: str, go_on: Callable[[], None]) -> None:
    """Write the database of a backup that came over HTTP into a folder, checked as a whole before.

    go_on: called again and again; what it raises ends the work. Raises InvalidRequest for a file that is no
    sound backup.
    """
    try:
        backup = BackupFile(file, "the file")
    except (BadSettings, StoreError) as error:
        raise _refused(error, file) from error
    with closing(backup):
        try:
            backup.check(go_on)
        except (BadSettings, StoreError) as error:
            raise _refused(error, file) from error
        try:
            _fill(folder / DATABASE_FILE, backup, name, go_on)
        except StoreDamaged as error:
            raise _refused(error, file) from error


def _refused(error: StartupError, file: Path) -> InvalidRequest:
    """Return the error for a client, which does not learn where the file is on this machine."""
    said = error.english
    for path in (file, file.resolve()):
        said = said.replace(str(path), "the file")
    return InvalidRequest(said)


def _fill(
    path: Path, backup: BackupFile, name: str, go_on: Callable[[], None] = lambda: None
) -> int:
    """Write a new database of a backup's documents; returns how many there are."""
    number = 0
    with closing(Documents(path, replace(backup.info, name=name))) as documents:
        notes = {COMPUTED_BY: backup.computed_by, VOCABULARY: backup.vocabulary}
        with documents.transaction():
            for key, note in notes.items():
                if note is not None:
                    documents.note(key, note)
        records = backup.documents()
        while stored := _store_some(documents, backup, records):
            number += stored
            go_on()
        # One file, without a log, is what takes its place.
        documents.database.close_whole()
    return number


def _store_some(
    documents: Documents,
    backup: BackupFile,
    records: Iterator[tuple[DocumentRow, Iterator[Chunk]]],
) -> int:
    stored = 0
    with documents.database.transaction() as writer:
        for row, chunks in islice(records, DOCUMENTS_AT_ONCE):
            id, text, title, _ = row
            if writer.execute("SELECT 1 FROM documents WHERE id = ?", (id,)).fetchone():
                raise StoreDamaged(
                    "{file} is damaged: {fault}; nothing was restored",
                    file=backup.path,
                    fault=Message("document {id} comes twice", id=ascii(id)),
                )
            number = insert_document(writer, None, row)
            words = ChunkWords(title, text)
            for span, vector in chunks:
                insert_chunk(writer, None, number, *span, vector, words.of(*span))
            stored += 1
    return stored


def _put(layout: FolderLayout, staged: Path, name: str) -> None:
    """Move the finished collection to its place."""
    if os.path.lexists(layout.home(name)):
        with layout.replacing(name, staged):
            pass
    else:
        layout.place(staged, layout.home(name))
