"""A named set of documents that can be searched: the database and the index kept together.

    DATA/lock                                 held by the one process that uses DATA
    DATA/collections/NAME/documents.sqlite3   the truth
    DATA/collections/NAME/index.faiss         a snapshot of the index, needed by nothing

How this works. A write prepares the next index inside the database's transaction and swaps it in
after the commit: if either half fails, neither has happened. A search takes the index of the moment
and asks the database for the rows of what it found. Between commit and swap (SQLite may be moving
its log into the file: much of a second) rows that the old index finds are gone from the database,
so a write first puts them where searches look too: until the swap they answer the old state whole.

The snapshot is for kinds of index that must be trained. The exact one is made again as fast as it
is read: 63,762 vectors, 512 wide, in 0.3 and 0.4 s (2026-11-23, 2-core VM, files in memory).
"""

import fcntl
import logging
import os
import re
from collections import ChainMap
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from server.errors import StoreError
from server.manifest import Manifest
from server.store.documents import Document, Documents, Info
from server.store.index import SEGMENT_ROWS, BadSnapshot, Index
from server.types import Vectors

LOCK_FILE, DATABASE_FILE, SNAPSHOT_FILE = "lock", "documents.sqlite3", "index.faiss"
NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,64}")  # "." and ".." would leave the folder

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that was found; score: cosine with the query."""

    id: str
    score: float
    text: str
    title: str | None
    metadata: Mapping[str, object]


class FolderLock:
    """The right to use a data folder; the kernel takes it back when the process ends, anyhow."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / LOCK_FILE).open("a+", encoding="ascii")
        except OSError as error:
            raise _unusable(folder, error) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.truncate(0)
            self._file.write(str(os.getpid()))
            self._file.flush()
        except OSError as error:
            holder = self._holder() if isinstance(error, BlockingIOError) else None
            self._file.close()
            raise _unusable(folder, error) if holder is None else _held(folder, holder) from None

    def close(self) -> None:
        self._file.close()

    def _holder(self) -> str:
        self._file.seek(0)
        return self._file.read() or "?"


class Collection:
    """Searches come from any thread, writes and `close` from one thread at a time.

    No vector of another model gets in: the database knows the fingerprint it was made for.
    """

    @classmethod
    def open(cls, folder: Path, name: str, manifest: Manifest) -> "Collection":
        """The collection of this name in the data folder, made if it is missing.

        Raises StoreError where the folder is in use, or holds vectors of another model, or cannot
        be read or written.
        """
        if not NAME.fullmatch(name):
            raise StoreError(
                f"{name!r} cannot name a collection: 1 to 64 of A-Z a-z 0-9 . _ - are needed",
                f"{name!r} 不能用作集合名称：应为 1 到 64 个字母、数字或 . _ -",
            )
        wanted = Info(name, manifest.fingerprint, manifest.dimension)
        with ExitStack() as resources:
            resources.enter_context(closing(FolderLock(folder)))
            home = folder / "collections" / name
            try:
                home.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _unusable(home, error) from None
            documents = resources.enter_context(closing(Documents(home / DATABASE_FILE, wanted)))
            _check_model(home, documents.info, wanted)
            saved = _load(home / SNAPSHOT_FILE, documents)
            index = _caught_up(saved, documents)
            return cls(home / SNAPSHOT_FILE, saved, index, documents, resources.pop_all())

    def __init__(
        self, snapshot: Path, saved: Index, index: Index, documents: Documents, resources: ExitStack
    ) -> None:
        """Use `open`. saved: what the snapshot holds; resources: what `close` closes."""
        self._snapshot = snapshot
        self._saved = saved
        self._index = index
        self._documents = documents
        self._resources = resources
        # What the write under way takes out of the database.
        self._leaving: dict[int, Document] = {}

    @property
    def name(self) -> str:
        return self._documents.info.name

    @property
    def count(self) -> int:
        return len(self._index)

    def add(self, documents: Sequence[Document], vectors: Vectors) -> None:
        """Store documents with their vectors, float32 (B, D), in place of others of the same id.

        On return they are on the disk, and every search that starts finds them. Raises
        InvalidRequest for text that is no Unicode, ValueError for vectors that are not finite.
        """
        with self._documents.transaction():
            change = self._documents.add(documents, vectors)
            index = self._index.plus(change.added, vectors).minus(change.removed)
            self._leaving = self._documents.by_labels(change.removed)
        self._swap(index)

    def delete(self, ids: Sequence[str]) -> int:
        """Forget these documents, those that are there; returns how many that were."""
        with self._documents.transaction():
            change = self._documents.delete(ids)
            index = self._index.minus(change.removed)
            self._leaving = self._documents.by_labels(change.removed)
        self._swap(index)
        return len(change.removed)

    def get(self, ids: Sequence[str]) -> dict[str, Document]:
        """By id, those that are there."""
        return self._documents.get(ids)

    def unchanged(self, texts: Mapping[str, str]) -> set[str]:
        """Of these texts by id, the ids that are stored with this very text: no need to embed."""
        return self._documents.unchanged(texts)

    def search(self, vector: Vectors, top_k: int) -> list[Hit]:
        """The nearest documents of a vector, float32 (D,), best first; fewer if there are fewer."""
        while True:
            index = self._index
            hits = index.search(vector[None], top_k)
            labels = hits.labels[0][hits.labels[0] >= 0]
            # subtle: the rows first. One that is missing was in _leaving before it went, and left
            # that only after a newer index had come, which is then the one to ask.
            rows = self._documents.by_labels(labels)
            documents = ChainMap(rows, self._leaving)
            if self._index is index or all(label in documents for label in labels.tolist()):
                break
        return [
            Hit(document.id, score, document.text, document.title, document.metadata)
            for label, score in zip(labels.tolist(), hits.scores[0].tolist(), strict=False)
            if (document := documents.get(label)) is not None
        ]

    def save(self) -> None:
        """Write the snapshot if it is out of date; failing to is only logged."""
        if self._index is self._saved:
            return
        try:
            self._index.save(self._snapshot, self._documents.identity)
        except OSError as error:
            log.warning("%s not written (%s); no document is lost", self._snapshot, error)
        else:
            self._saved = self._index

    def close(self) -> None:
        """Write the snapshot and let go of the data folder."""
        with self._resources:
            self.save()

    def _swap(self, index: Index) -> None:
        self._index = index
        self._leaving = {}


def _load(snapshot: Path, documents: Documents) -> Index:
    """The snapshot, or an empty index where there is none that can be used."""
    dimension = documents.info.dimension
    try:
        index = Index.load(snapshot, dimension, documents.identity)
        # A database put back from a backup gives labels again that a later snapshot holds.
        if index.labels.max(initial=0) > documents.last_label():
            raise BadSnapshot(f"{snapshot} is newer than the database")
    except BadSnapshot as error:
        snapshot.unlink(missing_ok=True)
        if count := documents.count():
            log.warning("%s; the index is rebuilt from %d documents", error, count)
        return Index(dimension)
    return index


def _caught_up(index: Index, documents: Documents) -> Index:
    """Drop what the database no longer has and add what the index does not have yet.

    Comparing all labels, instead of replaying what came after the last one, also mends an index
    that has missed a write in between; and from an empty index it is the rebuild.
    """
    held, stored = index.labels, documents.labels()
    index = index.minus(np.setdiff1d(held, stored))
    missing = np.setdiff1d(stored, held)
    for start in range(0, len(missing), SEGMENT_ROWS):
        labels = missing[start : start + SEGMENT_ROWS]
        index = index.plus(labels, documents.vectors(labels))
    return index


def _check_model(home: Path, found: Info, wanted: Info) -> None:
    if (found.fingerprint, found.dimension) == (wanted.fingerprint, wanted.dimension):
        return
    raise StoreError(
        f"{home} holds vectors of model {found.fingerprint} ({found.dimension} wide), and the"
        f" served model is {wanted.fingerprint} ({wanted.dimension} wide); index the documents"
        " again with a fresh --data folder, or serve the model they were indexed with",
        f"{home} 中的向量来自模型 {found.fingerprint}（{found.dimension} 维），当前模型为"
        f" {wanted.fingerprint}（{wanted.dimension} 维）；请用 --data 指定新的文件夹重新索引文档，"
        "或改用建立索引时的模型",
    )


def _held(folder: Path, pid: str) -> StoreError:
    return StoreError(
        f"{folder} is in use by process {pid}; stop that process, or give another --data folder",
        f"{folder} 正被进程 {pid} 使用；请先停止该进程，或用 --data 指定另一个文件夹",
    )


def _unusable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path} cannot be used: {error.strerror}; check its permissions and disk, or give another"
        " --data folder",
        f"{path} 无法使用：{error.strerror}；请检查其权限与磁盘，或用 --data 指定另一个文件夹",
    )
