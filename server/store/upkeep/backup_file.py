"""A backup, read row by row; each row is checked before anything uses it.

A backup may come from anywhere. So nothing of it is adopted: not its file, not its indexes or triggers,
not its numbers and labels, not what it stores for filters and for words. Only names of the model, the
rules, the note of CPUs, documents, spans and vectors are read, and the caller writes them into a new
database. Memory is bounded by the largest row, not by the file; `backup_growth` bounds time and disk.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from server.errors import BadSettings, InvalidRequest, StoreDamaged, StoreError
from server.messages.message import Message
from server.store.collection_name import check_name, is_name
from server.store.records import COMPUTED_BY, MAX_ID, Document, Info, Span
from server.store.schema import (
    OBJECTS,
    SCHEMA_VERSION,
    SCHEMAS,
    DocumentRow,
    document_row,
    foreign_objects,
    info_of,
    is_sound_chunk,
    is_sound_document,
)
from server.store.sqlite.advice import brief, one_line
from server.store.sqlite.stored_text import unpacked as unpacked_text
from server.store.upkeep.backup_growth import TIMES, Growth
from server.store.upkeep.database_file import ForeignFile
from server.store.upkeep.integrity import misplaced
from server.store.vector_blob import blob_bytes, packed, unpacked
from server.store.vector_index import usable
from server.store.words.vocabulary import MOST_BYTES, VOCABULARY, vocabulary_of

# Rows of `meta`, and characters of each. This server writes about ten short ones, and the note of CPUs:
# 7 KB for each kind with the shipped model.
MOST_META, MOST_VALUE, MOST_NOTE = 100, 4_096, 4 * 1024 * 1024
FINGERPRINT = re.compile(r"[!-~]{1,128}")
# No model reads as many tokens at once.
MOST_TOKENS = 1_000_000
# orjson, which writes the replies, refuses 255.
MOST_LEVELS = 200

# Versions whose documents have parts, all with the same columns.
WITH_PARTS = (2, 3, 4)
# By version: the tables that are read, and the columns that `_documents` and `_chunks` expect. Rows of
# version 1 have no checksums, and one vector each. NOT INDEXED: an index of a foreign file may differ
# from its table.
TABLES = {1: ("meta", "documents")} | dict.fromkeys(WITH_PARTS, ("meta", "documents", "parts"))
DOCUMENTS = {
    1: "SELECT label, id, text, title, metadata, NULL FROM documents NOT INDEXED ORDER BY label",
} | dict.fromkeys(
    WITH_PARTS,
    "SELECT number, id, text, title, metadata, checksum FROM documents NOT INDEXED ORDER BY number",
)
CHUNKS = {
    1: "SELECT label, label, 0, NULL, vector, NULL FROM documents NOT INDEXED ORDER BY label",
} | dict.fromkeys(
    WITH_PARTS,
    "SELECT document, label, begin, end, vector, checksum FROM parts NOT INDEXED ORDER BY label",
)

Chunk = tuple[Span, bytes]


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Run what writes a backup; raises BadSettings where the target is no place for a file, or cannot be written."""
    if not target.parent.is_dir() or target.is_dir():
        raise BadSettings(
            "{target} cannot be written: it must be a file in a folder that exists", target=target
        )
    try:
        yield
    except OSError as error:
        raise BadSettings(
            "{path} cannot be written: {strerror}",
            path=target,
            strerror=os.strerror(error.errno or 0),
        ) from error


@contextmanager
def opened(file: Path, name: str | None) -> Iterator[tuple["BackupFile", str]]:
    """Yield a backup and the name that its collection gets: the one that is asked for, or else its own."""
    if name is not None:
        check_name(name)
    if not file.is_file():
        raise BadSettings("there is no file {file}", file=file)
    with closing(BackupFile(file)) as backup:
        yield backup, _name_in(backup) if name is None else name


def _name_in(backup: "BackupFile") -> str:
    """Return the name that a backup gives its collection, if it is one."""
    name = backup.info.name
    if not is_name(name):
        raise BadSettings(
            "{file} names its collection {name}, which is not possible; give a name with --collection",
            file=backup.path,
            name=ascii(name[:80]),
        )
    return name


class BackupFile:
    """A backup, open for reading.

    info: of its collection; the name in it is any text. computed_by: its note of CPUs, any text; None
    where there is none. vocabulary: its note of synonyms and stop words, checked.
    Raises BadSettings for a file that is no
    backup, StoreDamaged for one that is not as it was written.
    """

    def __init__(self, path: Path, shown: str = "") -> None:
        """Open the file. shown: what errors call it; its path where it is empty."""
        self.path: Path | str = shown or path
        self.computed_by: str | None = None
        self.vocabulary: str | None = None
        self._growth = Growth()
        self._is_backup = False
        with self._judging():
            self._file = ForeignFile(path)
        try:
            with self._judging():
                if n := self._file.n_missing:
                    raise self._no_backup(Message("it is cut off, {n:,} bytes before its end", n=n))
                self._version = self._known_version()
                self._check_tables()
                self.info = self._info()
                self._is_backup = True
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    def check(self, go_on: Callable[[], None] = lambda: None) -> None:
        """Read every row and check it; nothing of a file that fails is worth the time of storing it.

        go_on: called for each document; what it raises ends the reading.
        """
        for _, chunks in self.documents():
            go_on()
            for _ in chunks:
                pass

    def documents(self) -> Iterator[tuple[DocumentRow, Iterator[Chunk]]]:
        """Yield each document with its chunks, which are read before the next document."""
        self._growth = Growth()
        # subtle: a document's chunks get their labels when it gets its number. So both tables have one
        # order, and reading them side by side needs no index.
        with self._judging():
            groups = groupby(self._chunks(), itemgetter(0))
            owner, chunks = next(groups, (None, iter(())))
            for number, row in self._documents():
                if owner != number:
                    raise self._damaged(Message("document {id} has no part", id=ascii(row[0])))
                yield row, self._within(row, chunks)
                owner, chunks = next(groups, (None, iter(())))
            if owner is not None:
                raise self._damaged(Message("document number {number} is missing", number=owner))

    # --- the file ------------------------------------------------------------------------------------

    def _known_version(self) -> int:
        ((found,),) = self._file.rows("PRAGMA user_version")
        if found > SCHEMA_VERSION:
            raise StoreError(
                "{path} has schema {found}, this server knows up to {version}; run the newer server "
                "that wrote it, or give another --data folder",
                path=self.path,
                found=found,
                version=SCHEMA_VERSION,
            )
        if found not in SCHEMAS:
            raise self._no_backup(Message("it holds no collection"))
        return int(found)

    def _check_tables(self) -> None:
        """Refuse tables that are not exactly those of a collection, or whose pages are damaged."""
        objects = list(self._file.rows(OBJECTS))
        foreign = foreign_objects(objects, self._version)
        for table in TABLES[self._version]:
            if table in foreign or table not in {name for name, *_ in objects}:
                raise self._no_backup(Message("it has no table {table} of ours", table=table))
            # subtle: without this, pages that stand in several places make terabytes of a small file.
            said = [str(row[0]) for row in self._file.rows(f"PRAGMA quick_check('{table}')")]
            if said != ["ok"]:
                raise self._damaged(Message("SQLite finds: {said}", said=one_line(said[0])))

    def _info(self) -> Info:
        meta = {}
        for key, value in self._file.rows(f"SELECT key, value FROM meta LIMIT {MOST_META}"):
            if key == COMPUTED_BY:
                # No vector depends on it, so one that is too long counts as missing.
                self.computed_by = value if len(value) <= MOST_NOTE else None
                continue
            if key == VOCABULARY:
                if len(value) > MOST_BYTES:
                    raise self._damaged(Message("a setting has {n} characters", n=len(value)))
                # Its checks are in reading it.
                vocabulary_of(value)
                self.vocabulary = value
                continue
            if len(value) > MOST_VALUE:
                raise self._damaged(Message("a setting has {n} characters", n=len(value)))
            meta[key] = value
        info = info_of(meta)
        if not FINGERPRINT.fullmatch(info.fingerprint):
            shown = ascii(info.fingerprint)
            raise self._damaged(Message("its model is named {shown}", shown=shown))
        if info.chunks is not None and info.chunks.size > MOST_TOKENS:
            raise self._damaged(Message("its chunks have {size} tokens", size=info.chunks.size))
        return info

    # --- rows ----------------------------------------------------------------------------------------

    def _documents(self) -> Iterator[tuple[int, DocumentRow]]:
        last = 0
        for number, *row, checksum in self._file.rows(DOCUMENTS[self._version]):
            if number <= last:
                raise self._damaged(Message("document number {number} comes twice", number=number))
            last = number
            yield number, self._document(row, checksum)

    def _document(self, row: list[Any], checksum: int | None) -> DocumentRow:
        id, kept, title, metadata = row
        shown = Message("document {id} is not what was written", id=ascii(id)[:MAX_ID])
        try:
            text = unpacked_text(kept)
        except ValueError:
            raise self._damaged(shown) from None
        if checksum is not None and not is_sound_document((id, text, title, metadata), checksum):
            raise self._damaged(shown)
        if not 1 <= len(id) <= MAX_ID:
            raise self._damaged(shown)
        try:
            decoded = _metadata(metadata)
            if not self._growth.add_document(text, title, metadata, decoded):
                raise self._too_large(id)
            return document_row(Document(id, text, title, decoded))
        except (ValueError, RecursionError, InvalidRequest) as error:
            why = error.message if isinstance(error, InvalidRequest) else str(error)
            raise self._damaged(
                Message("document {id} cannot be stored: {why}", id=ascii(id), why=why)
            ) from None

    def _chunks(self) -> Iterator[tuple[int, int, int | None, bytes]]:
        last = 0
        for document, label, begin, end, vector, checksum in self._file.rows(CHUNKS[self._version]):
            if label <= last:
                raise self._damaged(Message("part {label} comes twice", label=label))
            last = label
            chunk = (document, begin, end, vector)
            if checksum is not None and not is_sound_chunk(*chunk, checksum):
                raise self._damaged(Message("part {label} is not what was written", label=label))
            if (blob := self._blob(vector)) is None:
                raise self._damaged(
                    Message("part {label} has a vector that no model gives", label=label)
                )
            yield document, begin, end, blob

    def _blob(self, vector: bytes) -> bytes | None:
        """Return a vector as it is stored now; None where no model gives it."""
        dimension = self.info.dimension
        if self._version < 3:
            numbers = np.frombuffer(vector, dtype="<f4")
            if len(numbers) != dimension or not usable(numbers[None]).all():
                return None
            return packed(numbers[None])[0]
        if len(vector) != blob_bytes(dimension):
            return None
        return vector if usable(unpacked([vector], dimension)).all() else None

    def _within(
        self, row: DocumentRow, chunks: Iterator[tuple[int, int, int | None, bytes]]
    ) -> Iterator[Chunk]:
        """Yield chunks that lie inside of their document."""
        id, text, *_ = row
        with self._judging():
            for _, begin, end, vector in chunks:
                span = Span(begin, len(text) if end is None else end)
                if not 0 <= span.begin <= span.end <= len(text):
                    raise self._damaged(misplaced(id, span, len(text)))
                if not self._growth.add_part(span.end - span.begin, 4 * self.info.dimension):
                    raise self._too_large(id)
                yield span, vector

    # --- errors --------------------------------------------------------------------------------------

    @contextmanager
    def _judging(self) -> Iterator[None]:
        """Refuse the file for whatever reading it raises; only a failing disk is not its fault."""
        try:
            yield
        except BadSettings:
            raise
        except StoreError as error:
            if not isinstance(error, StoreDamaged) or error.__cause__ is None:
                raise
            raise self._refusal(error.__cause__) from error
        except Exception as error:
            # A file of another program may hold, or lack, anything.
            raise self._refusal(error) from error

    def _refusal(self, error: BaseException) -> StoreError | BadSettings:
        why = f"{type(error).__name__}: {brief(error)}"
        if self._is_backup:
            return self._damaged(Message("it cannot be read: {said}", said=why))
        return self._no_backup(why)

    def _no_backup(self, why: str | Message) -> BadSettings:
        return BadSettings(
            "{file} is no sound backup of a collection: {why}", file=self.path, why=why
        )

    def _too_large(self, id: str) -> StoreError:
        return StoreError(
            "{file} was not restored: with document {id}, its titles, parts and keys of metadata are repeated "
            "so often that they take more than {times} times the room of the file; shorten the titles and keys of "
            "such documents where they are stored, and make the backup again",
            file=self.path,
            id=ascii(id[:80]),
            times=TIMES,
        )

    def _damaged(self, fault: Message) -> StoreDamaged:
        return StoreDamaged(
            "{file} is damaged: {fault}; nothing was restored", file=self.path, fault=fault
        )


def _metadata(text: str) -> dict[str, object]:
    """Return metadata of which a reply can be written; raises ValueError or RecursionError."""

    def refuse(constant: str) -> None:
        raise ValueError(f"metadata has {constant}, which is not JSON")

    found = json.loads(text, parse_constant=refuse)
    if not isinstance(found, dict):
        raise ValueError("metadata is no object")
    level: list[object] = [found]
    for _ in range(MOST_LEVELS):
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return found
    raise ValueError(f"metadata is nested deeper than {MOST_LEVELS} levels")
