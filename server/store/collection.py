"""A named set of documents that can be searched: the database and the index kept together.

How this works. A write prepares the next index inside the database's transaction and swaps it in
after the commit: if either half fails, neither has happened. A search takes the current index and
asks the database for the rows of what it found. Between commit and swap (SQLite may be moving its log
into the file: much of a second) rows that the old index finds are gone from the database. So a write
first puts them where searches also look: until the swap, searches answer the old state as a whole.

The snapshot saves training and reading at start; nothing else needs it.
"""

import logging
import os
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from server.store.documents import Documents
from server.store.filter_tree import Filter
from server.store.hit_cache import HitCache
from server.store.records import Change, Chunk, CollectionStats, Document, Info, Span
from server.store.vector_index import BadSnapshot, IndexMaker, VectorIndex
from server.types import Vectors

DATABASE_FILE, SNAPSHOT_FILE = "documents.sqlite3", "index.faiss"
# Rows read from the database at once: 32 MB of vectors 512 wide.
ROWS_AT_ONCE = 16_384
# Before compaction vectors take 2 KB each, 512 wide; after it half of that.
LOOSE_ROWS = 8 * ROWS_AT_ONCE

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class View:
    """The collection at one moment: a search finds labels in `index` and their chunks here."""

    collection: "Collection"
    index: VectorIndex

    def chunks(self, wanted: Sequence[int]) -> Mapping[int, Chunk] | None:
        """Return chunks by label; None where the search must begin again, because a write ended.

        subtle: the database is asked first. A row that is missing there was in `leaving` before it
        was deleted, and left `leaving` only after the swap to a newer index, which must then be asked.
        """
        collection = self.collection
        known = collection.hits.known(wanted)
        rows: dict[int, Chunk] = {}
        if len(known) < len(wanted):
            unknown = [label for label in wanted if label not in known]
            rows = collection.documents.by_labels(np.array(unknown, dtype=np.int64))
            collection.hits.keep(rows)
        found = ChainMap(known, rows, collection.leaving)
        if collection.index is self.index or all(label in found for label in wanted):
            return found
        return None


class Collection:
    """A collection on disk, open.

    Searches come from any thread; writes, `adopt` and `close` from one thread at a time.
    """

    def __init__(self, home: Path, make: IndexMaker, info: Info | None = None) -> None:
        """Open the collection in the folder `home`.

        make: makes its index. info: the collection to create where there is none.
        """
        self._snapshot = home / SNAPSHOT_FILE
        self.path = home / DATABASE_FILE
        self.documents = Documents(self.path, info)
        try:
            self._saved = _load(make, self._snapshot, self.documents)
            self.index = caught_up(self._saved, self.documents)
        except BaseException:
            self.documents.close()
            raise
        self.hits = HitCache()
        # What the running write takes out of the database.
        self.leaving: dict[int, Chunk] = {}

    @property
    def name(self) -> str:
        return self.documents.info.name

    @property
    def info(self) -> Info:
        return self.documents.info

    @property
    def count(self) -> int:
        """The number of documents."""
        return self.documents.count()

    def bytes_on_disk(self) -> int:
        """Return the bytes of the database, its log and the snapshot."""
        return sum(path.stat().st_size for path in self.path.parent.iterdir() if path.is_file())

    def stats(self) -> CollectionStats:
        """Return sizes of index and files, from any thread; a missing file has no bytes."""
        index, saved = self.index, self._saved
        stats, snapshot = index.stats(), _stat(self._snapshot)
        wal = _stat(self.path.with_name(self.path.name + "-wal"))
        database = _stat(self.path)
        return CollectionStats(
            chunks=stats.vectors,
            index_bytes=round(stats.bytes_per_vector * stats.vectors),
            database_bytes=database.st_size if database else 0,
            wal_bytes=wal.st_size if wal else 0,
            snapshot_bytes=snapshot.st_size if snapshot else 0,
            snapshot_s=snapshot.st_mtime if snapshot else None,
            behind=abs(stats.vectors - len(saved)),
            recall=stats.recall_at_10,
        )

    @property
    def view(self) -> View:
        return View(self, self.index)

    def add(
        self,
        documents: Sequence[Document],
        vectors: Vectors,
        spans: Sequence[Sequence[Span]] | None = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        """Store documents with their chunks' vectors, float32 (B, D), in place of others of their ids.

        On return they are on the disk, and every new search finds them. notes: on the collection,
        stored if and only if the documents are. Raises InvalidRequest for text that is no Unicode,
        ValueError for vectors that are not finite.
        """
        with self.documents.transaction():
            change = self.documents.add(documents, vectors, spans)
            for key, value in (notes or {}).items():
                self.documents.note(key, value)
            index = self._prepare(change, vectors)
        self._swap(index)

    def delete(self, ids: Sequence[str]) -> int:
        """Delete these documents; returns how many there were."""
        with self.documents.transaction():
            n_found = len(self.documents.numbers(list(dict.fromkeys(ids))))
            change = self.documents.delete(ids)
            index = self._prepare(change, None)
        self._swap(index)
        return n_found

    def delete_where(self, filter: Filter) -> int:
        """Delete every document that the filter keeps; returns how many there were."""
        return self.delete(self.documents.ids(filter))

    def adopt(self, index: VectorIndex) -> None:
        """Use a compacted index that was made from this one; applies what was written meanwhile."""
        self._swap(caught_up(index, self.documents))

    def save(self) -> None:
        """Write the snapshot if it is out of date; a failure is only logged."""
        index = self.index
        if index is self._saved:
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
        self.abandon()

    def abandon(self) -> None:
        """Close the files without a snapshot: they will be deleted."""
        self.hits.clear()
        self.documents.close()

    def _prepare(self, change: Change, vectors: Vectors | None) -> VectorIndex:
        index = self.index
        if vectors is not None:
            index = index.plus(change.added, vectors)
        self.leaving = self.documents.by_labels(change.removed)
        return index.minus(change.removed)

    def _swap(self, index: VectorIndex) -> None:
        self.index = index
        self.leaving = {}


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
        level = logging.WARNING if snapshot.exists() else logging.INFO
        snapshot.unlink(missing_ok=True)
        if count := documents.count():
            log.log(level, "%s; the index is rebuilt from %d documents", error, count)
        return make(dimension)
    return index


def caught_up(index: VectorIndex, documents: Documents) -> VectorIndex:
    """Return an index of exactly what the database holds, made from this one.

    It compares all labels instead of replaying what came after the last one. So it also repairs an
    index that missed a write in between, and from an empty index it is the rebuild.
    """
    held, stored = index.labels, documents.labels()
    index = index.minus(np.setdiff1d(held, stored, assume_unique=True))
    missing = np.setdiff1d(stored, held, assume_unique=True)
    loose = 0
    for start in range(0, len(missing), ROWS_AT_ONCE):
        labels = missing[start : start + ROWS_AT_ONCE]
        index = index.plus(labels, documents.vectors(labels))
        loose += len(labels)
        if loose >= LOOSE_ROWS:
            index, loose = index.compacted(), 0
    return index
