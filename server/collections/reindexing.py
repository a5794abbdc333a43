"""Embeds the documents of a collection again, in the background, into a successor that then replaces it.

How this works. The successor is a second collection beside the first. Documents are copied in pages, oldest
first, while the collection is read and written as before. Then writes wait, and the successor is compared
with the collection document by document: what is missing or different is copied, what is gone is
deleted. So the swap changes vectors and chunks, and never a document, whatever happened since the first
page, also before an interruption. At last searches wait too, for the swap itself.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from server.collections.chunk_embedding import Chunked, chunk_documents, embed_chunks
from server.collections.live_collection import LiveCollection, provenance_note, uninterrupted
from server.collections.writing.reading_note import is_current, reading_note
from server.errors import DiskFull, Overloaded, StoreError
from server.inference.cpu_provenance import note_of
from server.inference.engine import Engine
from server.store.collection import Collection
from server.store.folder import COPIED, DataFolder
from server.store.records import ChunkRules, Document, Info
from server.store.words.vocabulary import VOCABULARY
from server.types import Vectors

# Documents that are copied at once.
PAGE_DOCUMENTS = 256


class Reindexing:
    """One run, and its progress: documents copied, of the number there were when it began."""

    def __init__(
        self,
        live: LiveCollection,
        total: int,
        folder: DataFolder,
        chunks: ChunkRules | None,
        engine: Engine,
    ) -> None:
        self.done = 0
        self.total = total
        self._live = live
        self._folder = folder
        self._engine = engine
        manifest = engine.manifest
        self._info = Info(live.name, manifest.fingerprint, manifest.dimension, chunks)
        self._successor: Collection | None = None
        # Number of the last document that was copied.
        self._copied = 0
        self._filled = False
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        live = self._live
        try:
            await uninterrupted(self._open)
            # A page that is not full is the end, for now: it must come although others write.
            while await self._copy_page() == PAGE_DOCUMENTS:
                continue
            async with live.writing:
                # No write can run now.
                while await self._copy_page():
                    continue
                await self._copy_differences()
                self._filled = True
                async with live.gate.closed():
                    await self._replace()
        except BaseException as error:
            await uninterrupted(partial(self._leave, error))
            raise
        live.compact_when_due()

    def _open(self) -> None:
        self._check_room()
        self._successor = self._folder.successor(self._info)
        if not is_current(self._successor):
            # Begun by a version that read documents otherwise.
            self._folder.discard(self._successor)
            self._successor = self._folder.successor(self._info)
        self._copied = int(self._successor.documents.noted(COPIED) or 0)

    def _opened(self) -> Collection:
        assert self._successor is not None
        return self._successor

    def _leave(self, error: BaseException) -> None:
        """Keep the successor for the next run, or delete it where it could not be written."""
        if self._successor is None:
            return
        # One that is filled and only could not take its place is kept, except for its space.
        if isinstance(error, DiskFull) or (isinstance(error, StoreError) and not self._filled):
            with suppress(StoreError):
                self._folder.discard(self._successor)
        else:
            self._successor.abandon()

    def _check_room(self) -> None:
        """Raise DiskFull before the disk is so full that other writes fail."""
        if not self._folder.has_room():
            raise DiskFull(
                "{path} has fewer than {kept:,} bytes free, which other writes need while {name} is reindexed;"
                " free some space and try again",
                path=self._folder.path,
                kept=self._folder.kept_bytes,
                name=self._info.name,
            )

    # --- copying --------------------------------------------------------------------------------------

    async def _copy_page(self) -> int:
        """Copy the next documents; returns how many."""
        page = await self._live.page(self._copied, PAGE_DOCUMENTS)
        if page:
            await self._copy([document for _, document in page], page[-1][0])
        return len(page)

    async def _copy(self, documents: Sequence[Document], copied: int) -> None:
        """Embed and store documents; `copied` is noted with them."""
        chunked = await chunk_documents(documents, self._info.chunks, self._engine)
        vectors = await _patiently(chunked, self._engine)
        spans = [each.spans for each in chunked]

        def store() -> None:
            self._check_room()
            successor = self._opened()
            known = note_of(provenance_note(successor), self._engine.provenance)
            known |= reading_note(successor)
            notes = {COPIED: str(copied), **known}
            successor.add(documents, vectors, spans, notes, [each.outline for each in chunked])

        await uninterrupted(store)
        self._copied = copied
        self.done += len(documents)

    async def _copy_differences(self) -> None:
        """Make the documents of the successor those of the collection, while no write can run."""
        collection, successor = self._live.collection, self._opened()
        ids = await uninterrupted(lambda: forget_deleted(collection, successor))
        await uninterrupted(lambda: _copy_vocabulary(collection, successor))
        for start in range(0, len(ids), PAGE_DOCUMENTS):
            some = ids[start : start + PAGE_DOCUMENTS]
            documents = await self._live.read(partial(_changed, collection, successor, some))
            if documents:
                await self._copy(documents, self._copied)

    # --- the swap -------------------------------------------------------------------------------------

    async def _replace(self) -> None:
        successor = self._opened()
        try:
            await uninterrupted(lambda: self._folder.replace(successor))
        finally:
            # The new collection, or the old one where that failed.
            found = self._folder.collections.get(self._info.name)
            if found is not None:
                self._live.collection = found
            else:
                self._live.gone = True


def forget_deleted(old: Collection, successor: Collection) -> list[str]:
    """Delete from the successor what the old collection lacks.

    Returns the ids of documents that the successor lacks, or may hold in another version.
    """
    wanted, copied = old.documents.checksums(), successor.documents.checksums()
    gone = [id for id in copied if id not in wanted]
    if gone:
        successor.delete(gone)
    return [id for id, checksum in wanted.items() if copied.get(id) != checksum]


def _copy_vocabulary(old: Collection, successor: Collection) -> None:
    """Give the successor the synonyms and stop words of the old collection."""
    note = old.documents.noted(VOCABULARY)
    if note is not None and note != successor.documents.noted(VOCABULARY):
        successor.note(VOCABULARY, note)


def _changed(old: Collection, successor: Collection, ids: Sequence[str]) -> list[Document]:
    """Return the old collection's documents of these ids that the successor does not hold."""
    documents = list(old.documents.get(ids).values())
    same = successor.documents.unchanged(documents)
    return [document for document in documents if document.id not in same]


async def _patiently(chunked: Sequence[Chunked], engine: Engine) -> Vectors:
    """Embed the chunks of documents; waits and tries again while the engine is overloaded."""
    while True:
        try:
            return await embed_chunks(chunked, engine)
        except Overloaded as error:
            await asyncio.sleep(error.retry_after_s)
