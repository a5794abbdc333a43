"""A named set of documents that can be searched: the database and the index kept together.

How this works. Every write gives the database a new revision, a random name, in its transaction. It
also publishes the next index under that name before the commit, and withdraws it where the commit
fails. A search opens a snapshot of the database, reads the revision there, and takes the index of
exactly that revision. So all that it reads is of one moment: labels that a filter keeps, words, vectors,
texts.

Labels are never used again and rows never change. So an index together with chunks from the cache is
of one moment too, and such a search needs no database.

The index's own file (also called a snapshot) saves training and reading at start; nothing else needs it.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from server.clock import utc, wall_s
from server.errors import StoreError
from server.store.columns.columns import Columns
from server.store.columns.history import Moment
from server.store.documents import Documents
from server.store.filters.tree import Filter
from server.store.hit_cache import HitCache
from server.store.passages.outline import Outline
from server.store.past_queries import PastQueries
from server.store.records import Change, CollectionStats, Document, Info, Span
from server.store.selection import Selection
from server.store.sqlite.database_path import SHARED, WAL, beside
from server.store.vector_blob import packed, unpacked
from server.store.vector_index import BadSnapshot, IndexMaker, VectorIndex
from server.system.memory import give_back
from server.types import Labels, Vectors

DATABASE_FILE, SNAPSHOT_FILE = "documents.sqlite3", "index.faiss"
# The key of the note of when something was written last.
CHANGED = "changed"
# Rows read from the database at once: 32 MB of vectors 512 wide.
ROWS_AT_ONCE = 16_384
# Before compaction vectors take 2 KB each, 512 wide; after it half of that.
LOOSE_ROWS = 8 * ROWS_AT_ONCE
# SQLite moves its log into the file from 16 MB on; more is left of a large write.
LARGE_LOG_BYTES = 24 << 20
# A search begins again where a write ended within the microseconds that its beginning takes.
ATTEMPTS = 100
NO_CHANGE = Change(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
Published = tuple[str | None, VectorIndex]  # a revision and its index

log = logging.getLogger(__name__)


class Collection:
    """A collection on disk, open.

    Searches come from any thread; writes, `adopt` and `close` from one thread at a time: a second write
    at the same time raises RuntimeError.
    """

    def __init__(self, home: Path, make: IndexMaker) -> None:
        """Open the collection in the folder `home`; make: makes its index."""
        # By revision: of what is stored, and during a write also of what will be. Replaced whole.
        self._indexes: dict[str | None, VectorIndex] = {}
        # Until an index that has caught up is adopted: what writes have removed since, and that index.
        self._removed: list[Labels] | None = None
        self._prepared: _Prepared | None = None
        # Their columns, for filters, by the same revisions.
        self._moments: dict[str | None, Moment] = {}
        self._snapshot = home / SNAPSHOT_FILE
        self.path = home / DATABASE_FILE
        self.documents = Documents(self.path, None)
        try:
            self._saved = _load(make, self._snapshot, self.documents)
            self._settle(self.documents.revision(), _holding_all(self._saved, self.documents))
        except BaseException:
            self.documents.database.close_unchanged()
            raise
        self.hits = HitCache()
        self.asked = PastQueries()

    @property
    def name(self) -> str:
        return self.documents.info.name

    @property
    def info(self) -> Info:
        return self.documents.info

    @property
    def changed(self) -> str | None:
        """The time of the last write, ISO 8601; None where a server wrote it that did not note the time."""
        return self.documents.noted(CHANGED)

    @property
    def count(self) -> int:
        """The number of documents."""
        return self.documents.count()

    def bytes_on_disk(self) -> int:
        """Return the bytes of the database, its log and the snapshot; of what may not be read, none."""
        files = (self.path, beside(self.path, WAL), beside(self.path, SHARED), self._snapshot)
        found = list(map(_stat, files))
        return sum(each.st_size for each in found if each is not None)

    def stats(self) -> CollectionStats:
        """Return sizes of index and files, from any thread; a missing file has no bytes."""
        index, saved = self.index, self._saved
        stats, snapshot = index.stats(), _stat(self._snapshot)
        wal = _stat(beside(self.path, WAL))
        database = _stat(self.path)
        return CollectionStats(
            chunks=stats.vectors,
            index_bytes=round(stats.bytes_per_vector * stats.vectors),
            column_bytes=self.column_bytes,
            database_bytes=database.st_size if database else 0,
            wal_bytes=wal.st_size if wal else 0,
            snapshot_bytes=snapshot.st_size if snapshot else 0,
            snapshot_s=snapshot.st_mtime if snapshot else None,
            behind=abs(stats.vectors - len(saved)),
            recall=stats.recall_at_10,
        )

    def selection(self, filter: Filter) -> Selection:
        """Return the labels of the chunks that a filter keeps; inside `reading`, at its moment."""
        moment = self._moments.get(self.documents.revision())
        found = None if moment is None else moment.selection(filter, self.documents.database)
        return Selection.of_labels(self.documents.labels(filter)) if found is None else found

    def columns(self) -> Columns | None:
        """Return the columns of the documents, None where they are not in memory; as for `selection`."""
        moment = self._moments.get(self.documents.revision())
        return None if moment is None else moment.columns(self.documents.database)

    @property
    def column_bytes(self) -> int:
        """The bytes of the columns that filters have read into memory."""
        return max((moment.bytes_held for moment in self._moments.values()), default=0)

    @property
    def settled_index(self) -> VectorIndex | None:
        """The index, for a search that reads no database; None while a write ends.

        Searches that read the database may find the new state already, and none after it the old one.
        """
        indexes = self._indexes
        return next(iter(indexes.values())) if len(indexes) == 1 else None

    @contextmanager
    def reading(self) -> Iterator[VectorIndex]:
        """Yield the index of a moment; in the block this thread's reads of `documents` are of it too."""
        for _ in range(ATTEMPTS):
            with self.documents.snapshot():
                index = self._indexes.get(self.documents.revision())
                if index is not None:
                    yield index
                    return
            # A whole write ended between the two lines: begin again with what it left.
        raise self._foreign()

    def add(
        self,
        documents: Sequence[Document],
        vectors: Vectors,
        spans: Sequence[Sequence[Span]] | None = None,
        notes: Mapping[str, str] | None = None,
        outlines: Sequence[Outline | None] | None = None,
    ) -> None:
        """Store documents with their chunks' vectors, float32 (B, D), in place of others of their ids.

        On return they are on the disk, and every new search finds them. notes: on the collection,
        stored if and only if the documents are. outlines: of the texts, where they are known. Raises
        InvalidRequest for text that is no Unicode, ValueError for vectors that are not finite.
        """
        blobs = packed(vectors)

        def store() -> Change:
            for key, value in (notes or {}).items():
                self.documents.note(key, value)
            return self.documents.add(documents, vectors, spans, blobs=blobs, outlines=outlines)

        # As a start will read them, so that scores are the same after it.
        self._write(store, unpacked(blobs, vectors.shape[1]))

    def delete(self, ids: Sequence[str]) -> int:
        """Delete these documents; returns how many there were."""
        return self._delete(lambda: ids)

    def delete_where(self, filter: Filter) -> int:
        """Delete every document that the filter keeps; returns how many there were."""
        return self._delete(lambda: self.documents.ids(filter))

    def compacted(self, index: VectorIndex) -> VectorIndex:
        """Return this index arranged for searches like the last ones; call it from any thread."""
        return index.compacted(self.asked.vectors)

    def caught_up(self, index: VectorIndex) -> VectorIndex:
        """Return a compacted index with what was written meanwhile; from any thread, one call at a time.

        `adopt` then has little to do while no write may begin.
        """
        removed: list[Labels] = []
        # From here on every write adds to it.
        self._removed = removed
        with self.reading() as current:
            made = _holding(index, np.sort(current.labels), self.documents)
            self._prepared = _Prepared(made, self.documents.last_label(), removed)
        return made

    def note(self, key: str, value: str) -> None:
        """Store a note that searches depend on, in place of the last one, under a new revision."""

        def note() -> Change:
            self.documents.note(key, value)
            return NO_CHANGE

        self._write(note, None, searched=True)

    def adopt(self, index: VectorIndex) -> None:
        """Use a compacted index that was made from this one; applies what was written meanwhile."""
        prepared, self._prepared, self._removed = self._prepared, None, None
        # Nothing is written, but no write may begin.
        with self.documents.transaction():
            if prepared is not None and prepared.index is index:
                made = prepared.with_later(self.documents)
            else:
                made = _holding_all(index, self.documents)
            self._settle(self.documents.revision(), made)

    def give_back(self) -> None:
        """Give back what a large write left: SQLite's log, and freed memory. Called like a write."""
        if self.stats().wal_bytes > LARGE_LOG_BYTES:
            self.documents.database.shorten_log()
            give_back()

    def save(self) -> None:
        """Write the snapshot if it is out of date; a failure is only logged."""
        index = self.index
        if index is self._saved:
            return
        if not self.documents.database.in_place:
            log.warning("%s not written: its folder was moved; no document is lost", self._snapshot)
            return
        try:
            index.save(self._snapshot, self.documents.identity)
        except OSError as error:
            log.warning("%s not written (%s); no document is lost", self._snapshot, error)
        else:
            self._saved = index

    def close(self) -> None:
        """Write the snapshot and close the files."""
        self.save()
        self.hits.clear()
        self.documents.close()

    def abandon(self) -> None:
        """Close the files and change none: they will be deleted, or are damaged."""
        self.hits.clear()
        self.documents.database.close_unchanged()

    def _delete(self, chosen: Callable[[], Sequence[str]]) -> int:
        n_found = 0

        def delete() -> Change:
            nonlocal n_found
            ids = list(dict.fromkeys(chosen()))
            n_found = len(self.documents.numbers(ids))
            return self.documents.delete(ids)

        self._write(delete, None)
        return n_found

    def _write(
        self, change: Callable[[], Change], vectors: Vectors | None, *, searched: bool = False
    ) -> None:
        """Change the database and the index.

        vectors: of the labels that the change adds. searched: whether what searches find changes anyway.
        """
        before = after = None
        made = NO_CHANGE
        try:
            with self.documents.transaction():
                before = self._stored()
                made = change()
                after = self._changed(before, made, vectors, searched=searched)
                self._note(before[0], after[0], made)
                # From the commit on, searches find the new revision in the database.
                self._indexes = dict((before, after))
        except BaseException:
            if before is not None:
                self._settle(*before)
            raise
        if self._removed is not None and len(made.removed):
            self._removed.append(made.removed)
        self._settle(*after)

    def _stored(self) -> Published:
        revision = self.documents.revision()
        index = self._indexes.get(revision)
        if index is None:
            raise self._foreign()
        return revision, index

    def _changed(
        self, before: Published, change: Change, vectors: Vectors | None, *, searched: bool
    ) -> Published:
        if not len(change.added) and not len(change.removed) and not searched:
            return before
        self.documents.note(CHANGED, utc(wall_s()))
        index = before[1] if vectors is None else before[1].plus(change.added, vectors)
        return self.documents.revise(), index.minus(change.removed)

    def _foreign(self) -> StoreError:
        return StoreError(
            "{path}: another program has changed the collection while it was open; start the server "
            "again, and let no other program write here",
            path=self.path,
        )

    def _note(self, before: str | None, after: str | None, change: Change) -> None:
        """Publish the columns of what will be stored."""
        moment = self._moments[before]
        later = moment if after == before else moment.after(change)
        self._moments = {before: moment, after: later}

    def _settle(self, revision: str | None, index: VectorIndex) -> None:
        """Keep only the index of what is stored now, and its columns."""
        self._moments = {revision: self._moments.get(revision) or Moment()}
        self._indexes = {revision: index}
        self.index = index


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A compacted index of what was stored at one moment.

    last: the greatest label given until then. removed: labels that writes have removed since, and some that
    they removed before.
    """

    index: VectorIndex
    last: int
    removed: Sequence[Labels]

    def with_later(self, documents: Documents) -> VectorIndex:
        """Return the index of what is stored now.

        Labels ascend and are never used again, so those after `last` are new, whatever was written.
        """
        index = self.index.minus(np.concatenate([NO_CHANGE.removed, *self.removed]))
        return _plus(index, documents, documents.labels_after(self.last))


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _load(make: IndexMaker, snapshot: Path, documents: Documents) -> VectorIndex:
    """Return the snapshot, or an empty index where there is none that can be used."""
    dimension = documents.info.dimension
    try:
        index = make.load(snapshot, dimension, documents.identity)
        # A database restored from a backup gives labels again that a later snapshot holds.
        if index.labels.max(initial=0) > documents.last_label():
            raise BadSnapshot(f"{snapshot} is newer than the database")
    except BadSnapshot as error:
        # A collection from a backup has none yet, and nothing is wrong with it.
        is_there = snapshot.exists()
        level = logging.WARNING if is_there else logging.INFO
        why = error if is_there else f"{snapshot} is not there yet"
        with suppress(IsADirectoryError):
            snapshot.unlink(missing_ok=True)
        if count := documents.count():
            log.log(level, "%s; the index is rebuilt from %d documents", why, count)
        return make(dimension)
    return index


def _holding_all(index: VectorIndex, documents: Documents) -> VectorIndex:
    """Return an index of exactly what the database holds, made from this one.

    It compares all labels instead of replaying what came after the last one. So it also repairs an
    index that missed a write in between, and from an empty index it is the rebuild.
    """
    return _holding(index, documents.labels(), documents)


def _holding(index: VectorIndex, stored: Labels, documents: Documents) -> VectorIndex:
    """Return an index of these labels of the database, and no others."""
    held = index.labels
    index = index.minus(np.setdiff1d(held, stored, assume_unique=True))
    return _plus(index, documents, np.setdiff1d(stored, held, assume_unique=True))


def _plus(index: VectorIndex, documents: Documents, missing: Labels) -> VectorIndex:
    """Return an index with these labels of the database too."""
    loose = 0
    for start in range(0, len(missing), ROWS_AT_ONCE):
        labels = missing[start : start + ROWS_AT_ONCE]
        index = index.plus(labels, documents.vectors(labels))
        loose += len(labels)
        if loose >= LOOSE_ROWS:
            index, loose = index.compacted(), 0
    return index
