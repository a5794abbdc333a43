"""Documents, their chunks and the chunks' vectors: the truth, from which the index is derived.

A row never changes. Writing a document again deletes its rows and inserts others, which get a new
number and new labels. Neither is ever used twice, so a label means one chunk of one version of a
document.
"""

import json
import logging
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from server.errors import StoreDamaged, StoreError
from server.store.filters.kinds import (
    MOST_WARNINGS,
    Operand,
    date_warning,
    stored_date,
    stored_kinds,
    warnings,
)
from server.store.filters.match import matches
from server.store.filters.sql import attributes, where
from server.store.filters.tree import ID, TEXT, TITLE, Filter
from server.store.passages.outline import Outline
from server.store.passages.words import ChunkWords
from server.store.records import Change, Chunk, Document, Info, Span
from server.store.schema import (
    SCHEMA_VERSION,
    WORDS_RECIPE,
    create,
    document_row,
    info_of,
    insert_chunk,
    insert_document,
    is_sound_chunk,
    is_sound_document,
    meta_of,
    rebuild_words,
    remove_words,
)
from server.store.schema_check import check_objects, upgrade
from server.store.selection import Selection
from server.store.sqlite.ascending import ascending
from server.store.sqlite.damage import damaged
from server.store.sqlite.database import Connection, Database
from server.store.sqlite.read_limit import spend, within_limit
from server.store.sqlite.stored_text import unpacked as unpacked_text
from server.store.vector_blob import blob_bytes, packed, unpacked
from server.store.words.asked import Asked
from server.store.words.finding import find
from server.store.words.frequent import FrequentTerms
from server.store.words.matches import Matches
from server.store.words.vocabulary import VOCABULARY, Vocabulary, vocabulary_of
from server.types import Labels, Vectors

log = logging.getLogger(__name__)


class Documents:
    """One database file, open.

    info: what the file says, not what it was opened with; the caller compares them. identity: random,
    of this very database; shows whether a snapshot was derived from it.
    """

    info: Info
    identity: uuid.UUID

    def __init__(self, path: Path, info: Info | None, busy_timeout_s: float = 5.0) -> None:
        """Open the file.

        info: the collection to create where there is no file. Raises StoreDamaged where the file
        holds no collection, and where it is missing and `info` is None.
        """
        make = None if info is None else partial(create, meta=meta_of(info))
        self._frequent = FrequentTerms()
        try:
            self.database = Database(
                path, SCHEMA_VERSION, make, partial(upgrade, path), busy_timeout_s
            )
            try:
                self._read_meta()
            except BaseException:
                self.database.close_unchanged()
                raise
        except (StoreError, OSError):
            raise
        except Exception as error:
            # A damaged file may hold anything: no such table, a missing key, a text for a number.
            raise StoreDamaged(
                "{path} holds no collection that can be read ({why}); restore it from a backup, or "
                "move its folder away",
                path=path,
                why=f"{type(error).__name__}: {error}",
            ) from error

    def _read_meta(self) -> None:
        self.database.guard(partial(check_objects, self.database.path, version=SCHEMA_VERSION))
        meta: dict[str, str] = dict(self.database.rows("SELECT key, value FROM meta"))
        self.info = info_of(meta)
        self.identity = uuid.UUID(meta["identity"])
        for (size,) in self.database.rows("SELECT length(vector) FROM parts LIMIT 1"):
            if size != (wanted := blob_bytes(self.info.dimension)):
                raise ValueError(f"vectors have {size} bytes, not {wanted}")
        if meta["words"] != WORDS_RECIPE:
            log.warning("%s: its words are indexed again for this version", self.database.path)
            with self.database.transaction() as writer:
                rebuild_words(writer)

    def close(self) -> None:
        """Close the file; no other call may be running."""
        self.database.close()

    # --- writing, inside a transaction --------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Store all writes in the block when it ends, or none if anything raises."""
        with self.database.transaction():
            yield

    def add(
        self,
        documents: Sequence[Document],
        vectors: Vectors,
        spans: Sequence[Sequence[Span]] | None = None,
        *,
        blobs: Sequence[bytes] | None = None,
        outlines: Sequence[Outline | None] | None = None,
    ) -> Change:
        """Store documents in place of others of their ids, and their chunks with their vectors.

        vectors: float32 (B, D), a row for each chunk. spans: the chunks of each document; None, one
        each, whole. blobs, outlines: the vectors packed, and the outlines of the texts, where they are
        known. Raises InvalidRequest for a text that is no Unicode (a lone surrogate); NUL is a character
        like any other.
        """
        writer = self._writing()
        if spans is None:
            spans = [[Span(0, len(document.text))] for document in documents]
        assert vectors.shape == (sum(map(len, spans)), self.info.dimension)
        outlines = outlines or [None] * len(documents)
        rows = [document_row(document) for document in documents]
        rest = iter(packed(vectors) if blobs is None else blobs)
        added: list[int] = []
        removed: list[int] = []
        for document, row, chunks, outline in zip(documents, rows, spans, outlines, strict=True):
            removed += self._delete(writer, document.id)
            number = insert_document(writer, None, row)
            words = ChunkWords(document.title, document.text, outline)
            for span in within_limit(chunks):
                row_of = (writer, None, number, *span, next(rest), words.of(*span))
                added.append(insert_chunk(*row_of))
        return Change(np.array(added, dtype=np.int64), np.array(removed, dtype=np.int64))

    def delete(self, ids: Sequence[str]) -> Change:
        """Delete these documents; ids that are not there are skipped."""
        writer = self._writing()
        removed = [label for id in within_limit(ids) for label in self._delete(writer, id)]
        return Change(np.empty(0, dtype=np.int64), np.array(removed, dtype=np.int64))

    def note(self, key: str, value: str) -> None:
        """Store a note on the collection itself, in place of the last one of this key."""
        self._writing().execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def _writing(self) -> Connection:
        assert self.database.writer.in_transaction
        return self.database.writer

    def _delete(self, writer: Connection, id: str) -> list[int]:
        found = writer.execute(f"SELECT {DOCUMENT} FROM documents WHERE id = ?", (id,))
        row = found.fetchone()
        if row is None:
            return []
        number, document = row[0], self._document(row)
        chunks = writer.execute(
            "SELECT label, begin, end FROM parts WHERE document = ?", (number,)
        ).fetchall()
        words = ChunkWords(document.title, document.text)
        for label, *span in chunks:
            remove_words(writer, label, words.of(*span))
            writer.execute("DELETE FROM parts WHERE label = ?", (label,))
        writer.executemany(
            "DELETE FROM attributes WHERE key = ? AND value = ? AND document = ?",
            [(*pair, number) for pair in attributes(document.metadata)],
        )
        writer.execute("DELETE FROM documents WHERE number = ?", (number,))
        return [label for label, _, _ in chunks]

    def revise(self) -> str:
        """Give what is stored its next revision, and return it."""
        revision = uuid.uuid4().hex
        self.note(REVISION, revision)
        return revision

    # --- reading --------------------------------------------------------------------------------------

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all reads of this thread in the block see one moment; see `Database.snapshot`."""
        with self.database.snapshot():
            yield

    def revision(self) -> str | None:
        """Return a name of what is stored, which every write changes; None before the first one."""
        return self.noted(REVISION)

    def noted(self, key: str) -> str | None:
        """Return the note of this key, None where there is none."""
        rows = self.database.rows("SELECT value FROM meta WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else None

    def get(self, ids: Sequence[str]) -> dict[str, Document]:
        """Return the documents of these ids that exist, by id."""
        rows = self.database.rows_of(f"SELECT {DOCUMENT} FROM documents WHERE id IN", ids)
        return {row[1]: self._document(row) for row in rows}

    def page(
        self, after: int, limit: int, filter: Filter | None = None
    ) -> list[tuple[int, Document]]:
        """Return documents with greater numbers than `after`, oldest first, each with its number."""
        return self.page_within(after, limit, filter, sys.maxsize)[0]

    def page_within(
        self,
        after: int,
        limit: int,
        filter: Filter | None,
        max_bytes: int,
        among: Labels | None = None,
    ) -> tuple[list[tuple[int, Document]], bool]:
        """Return a page of at most `max_bytes` of texts, titles and metadata, and whether that cut it.

        A first document with more is returned alone. among: numbers of documents that the filter keeps,
        where they are known.
        """
        condition, parameters = where(filter, "number")
        if among is not None:
            condition, parameters = AMONG, [json.dumps(among.tolist())]
        rows = self.database.each(
            f"SELECT {DOCUMENT} FROM documents WHERE number > ? AND {condition}"
            " ORDER BY number LIMIT ?",
            (after, *parameters, limit),
        )
        found: list[tuple[int, Document]] = []
        n_bytes = 0
        with closing(rows):
            for row in ascending(rows, after, self.database.path):
                document = self._document(row)
                n_bytes += _n_bytes(document, row[4])
                if found and n_bytes > max_bytes:
                    return found, True
                self._confirm(filter, document)
                found.append((row[0], document))
        return found, False

    def ids(self, filter: Filter | None = None) -> list[str]:
        """Return the ids of all documents, or of those that the filter keeps."""
        if filter is None:
            return [id for (id,) in self.database.rows("SELECT id FROM documents")]
        condition, parameters = where(filter, "number")
        found = []
        with self.database.reading() as reader:
            # One row at a time: the texts of all of them may not fit into memory.
            query = f"SELECT {DOCUMENT} FROM documents WHERE {condition}"
            for row in within_limit(reader.execute(query, parameters)):
                document = self._document(row)
                self._confirm(filter, document)
                found.append(document.id)
        return found

    def confirm(
        self,
        filter: Filter | None,
        id: str,
        metadata: Mapping[str, object],
        beside: Mapping[str, str | None] | None = None,
    ) -> None:
        """Raise StoreDamaged where a filter kept a document whose own metadata does not meet it.

        beside: its values of fields beside metadata; a condition on one that is not given is not checked.

        Filters may keep one tenant's documents from another, and the rows that they read have no
        checksum. The metadata has one.
        """
        if filter is not None and matches(filter, metadata, {ID: id, **(beside or {})}) is False:
            raise self._damaged(f"what filters read of document {ascii(id)}")

    def _confirm(self, filter: Filter | None, document: Document) -> None:
        beside = {TITLE: document.title, TEXT: document.text}
        self.confirm(filter, document.id, document.metadata, beside)

    def checksums(self) -> dict[str, int]:
        """Return the checksum of every document by its id."""
        return dict(self.database.rows("SELECT id, checksum FROM documents"))

    def numbers(self, ids: Sequence[str]) -> dict[str, int]:
        """Return the numbers of the documents with these ids that exist, by id."""
        return dict(self.database.rows_of("SELECT id, number FROM documents WHERE id IN", ids))

    def owners(self, labels: Labels) -> dict[int, int]:
        """Return the number of each label's document, by label; labels that are gone are left out."""
        return dict(
            self.database.rows_of(
                "SELECT label, document FROM parts WHERE label IN", labels.tolist()
            )
        )

    def by_labels(self, labels: Labels) -> dict[int, Chunk]:
        """Return the chunks of these labels, by label; labels that are gone are left out."""
        found = {}
        with closing(self.database.each_of(PART, labels.tolist())) as rows:
            for *row, label, begin, end in rows:
                document = self._document(row)
                text = document.text
                if not (type(begin) is type(end) is int and 0 <= begin <= end <= len(text)):
                    raise self._damaged(f"the place of part {label}")
                whole = end - begin == len(text)
                # Of a long document only the chunk is kept.
                spend(end - begin + len(row[4]))
                found[label] = Chunk(
                    document.id,
                    text if whole else text[begin:end],
                    document.title,
                    document.metadata,
                    Span(begin, end),
                    whole,
                )
        return found

    def unchanged(self, documents: Sequence[Document]) -> set[str]:
        """Return the ids of documents that are stored unchanged: they need no new vectors."""
        stored = self.get([document.id for document in documents])
        return {document.id for document in documents if document.is_same(stored.get(document.id))}

    def words(self, query: str, n_chunks: int, within: Selection | None = None) -> Matches:
        """Return the chunks that have enough of the query's words, with their BM25.

        n_chunks: of the whole collection. within: the labels that may be found.
        """
        vocabulary, last = self._vocabulary(), self.last_label()
        return find(self.database, query, n_chunks, within, vocabulary, self._frequent, last)

    def asked(self, query: str) -> Asked:
        """Return what a query asks for, with the synonyms and without the stop words of the collection."""
        return self._vocabulary().ask(query)

    def _vocabulary(self) -> Vocabulary:
        """Return the synonyms and stop words of the collection."""
        try:
            return vocabulary_of(self.noted(VOCABULARY))
        except ValueError as error:
            raise self._damaged(f"what its synonyms and stop words are ({error})") from None

    def labels(self, filter: Filter | None = None) -> Labels:
        """Return the labels of all chunks, or of those of the documents that the filter keeps.

        int64 (N,), ascending.
        """
        condition, parameters = where(filter, "document")
        with self.database.reading() as reader:
            # SQLite reads them from the index on document, 40 bytes a row; so they are sorted here.
            rows = reader.execute(f"SELECT label FROM parts WHERE {condition}", parameters)
            return np.sort(np.fromiter((label for (label,) in rows), dtype=np.int64))

    def labels_after(self, last: int) -> Labels:
        """Return the labels of all chunks that are greater than `last`: int64 (N,), ascending."""
        query = "SELECT label FROM parts WHERE label > ? ORDER BY label"
        return np.array([label for (label,) in self.database.each(query, (last,))], dtype=np.int64)

    def vectors(self, labels: Labels) -> Vectors:
        """Return the vectors of labels that must all exist, as stored: float32 (B, D)."""
        asked = labels.tolist()
        rows = self.database.rows_of(f"SELECT label, {CHUNK} FROM parts WHERE label IN", asked)
        for label, *chunk in rows:
            if not is_sound_chunk(*chunk):
                raise self._damaged(f"the vector of part {label}")
        found = {row[0]: row[4] for row in rows}
        for label in set(asked) - found.keys():
            raise self._damaged(f"the vector of part {label}")
        vectors = unpacked([found[label] for label in asked], self.info.dimension)
        # subtle: a checksum that fits shows that these bytes were written, not that a model gave them.
        for place in np.flatnonzero(~np.isfinite(vectors).all(axis=1)):
            raise self._damaged(f"the vector of part {asked[place]}")
        return vectors

    def last_label(self) -> int:
        """Return the greatest label ever given, also where its document is deleted."""
        rows = self.database.rows("SELECT seq FROM sqlite_sequence WHERE name = 'parts'")
        return int(rows[0][0]) if rows else 0

    def warnings(self, operands: Sequence[Operand]) -> list[str]:
        """Return which of a filter's conditions no stored value can meet, or compare dates as texts."""
        keys = list(dict.fromkeys(operand.key for operand in operands))
        found = warnings(operands, self.database.rows(*stored_kinds(keys)))
        for operand in operands:
            if operand.date is not None and len(found) < MOST_WARNINGS:
                for (stored,) in self.database.rows(*stored_date(operand.key)):
                    found.append(date_warning(operand, stored))
        return found

    def count(self, filter: Filter | None = None) -> int:
        """Count the documents, or those that the filter keeps."""
        condition, parameters = where(filter, "number")
        rows = self.database.rows(f"SELECT count(*) FROM documents WHERE {condition}", parameters)
        return int(rows[0][0])

    def _document(self, row: Sequence[Any]) -> Document:
        _, id, kept, title, metadata, checksum = row
        try:
            text = unpacked_text(kept)
        except ValueError:
            raise self._damaged(f"document {ascii(id)}") from None
        if not is_sound_document((id, text, title, metadata), checksum):
            raise self._damaged(f"document {ascii(id)}")
        return Document(id, text, title, json.loads(metadata))

    def _damaged(self, what: str) -> StoreDamaged:
        return damaged(self.database.path, what)


def _n_bytes(document: Document, metadata: str) -> int:
    """Return about how many bytes a document has in a reply."""
    values = (document.id, document.text, document.title or "", metadata)
    return sum(len(value) if value.isascii() else 3 * len(value) for value in values)


# The note that names what is stored. It is random, so a file that was put back never seems newer.
REVISION = "revision"
# Columns in the order that `_document` and `is_sound_chunk` take.
DOCUMENT = "number, id, text, title, metadata, documents.checksum"
PART = (
    f"SELECT {DOCUMENT}, label, begin, end FROM parts"
    " JOIN documents ON number = document WHERE label IN"
)
CHUNK = "document, begin, end, vector, checksum"
AMONG = "number IN (SELECT value FROM json_each(?))"
