"""All collections of the data folder on the event loop: made, found, embedded anew, let go."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from server.collections.chunk_embedding import cut, embed
from server.collections.chunking import usual_overlap
from server.collections.live_collection import LiveCollection, known_of, uninterrupted
from server.collections.query_cache import QueryVectors
from server.config import Config
from server.errors import AlreadyExists, CollectionNotFound, Overloaded, ServerError
from server.inference.comparison import SAME_VECTORS
from server.inference.cpu_provenance import note_of
from server.inference.engine import Engine
from server.inference.registry import ModelRegistry
from server.store.collection import Collection
from server.store.folder import COPIED, DataFolder
from server.store.records import ChunkRules, CollectionStats, Info
from server.telemetry.metrics import Metrics
from server.types import Vectors

DEFAULT = "default"
# Documents taken over at once while a collection is embedded anew.
PAGE_DOCUMENTS = 256

OTHER_MACHINE = (
    "collection %s holds int8 vectors of another kind of CPU (cosine %.4f to this one's); it is"
    " searched and written all the same, see docs/cpu.md; `reindex` computes them here"
    " 该集合含其他类型 CPU 计算的 int8 向量，仍可检索与写入，见 docs/cpu.md；可用 reindex 在本机重新计算"
)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Reindexing:
    """How far it is: documents taken over, of how many there were when it began."""

    done: int
    total: int
    task: "asyncio.Task[None]"


class CollectionRegistry:
    """Owns the folder: close it once, after the last call."""

    def __init__(
        self, folder: DataFolder, models: ModelRegistry, config: Config, metrics: Metrics
    ) -> None:
        self._folder = folder
        self.models = models
        self._metrics = metrics
        self._queries = QueryVectors(config.query_cache_bytes, metrics)
        self._shelves = {name: self._shelf(found) for name, found in folder.collections.items()}
        self._leaving: set[str] = set()
        self.reindexing: dict[str, Reindexing] = {}
        # Why the last reindexing of a collection ended before its time.
        self.unfinished: dict[str, str] = {}
        for shelf in self._shelves.values():
            _tell_other_machine(shelf)
            shelf.compact_when_due()

    def stats(self) -> list[tuple[str, CollectionStats]]:
        """From any thread; the copy is made in one step."""
        return [(name, shelf.figures()) for name, shelf in list(self._shelves.items())]

    async def probe(self, name: str, seed: int) -> bool:
        """Have a collection's recall measured; False where it compares all, or is gone."""
        shelf = self._shelves.get(name)
        return shelf is not None and await shelf.probe(seed)

    def check_disk(self) -> None:
        """Raise NotReady where the next writes would not fit on the disk; looks at it."""
        self._folder.check_disk()

    @property
    def names(self) -> list[str]:
        return sorted(self._shelves)

    @property
    def damaged(self) -> list[str]:
        """Names of those that cannot be opened."""
        return sorted(self._folder.damaged)

    def shelf(self, name: str) -> LiveCollection:
        """The collection of this name; the default one is made when it is first asked for."""
        shelf = self._shelves.get(name)
        if shelf is None:
            self._folder.check(name)
            if name != DEFAULT:
                raise CollectionNotFound(
                    f"there is no collection {name!r}; this server has"
                    f" {', '.join(map(repr, self.names)) or 'none'}"
                )
            engine = self.models.default
            shelf = self.create(name, whole_reading(engine), engine)
        return shelf

    def create(self, name: str, chunks: ChunkRules | None, engine: Engine) -> LiveCollection:
        """Raises AlreadyExists, or InvalidRequest for a name that cannot be."""
        # subtle: a thread that replaces or removes a collection takes it from the folder first.
        if name in self._shelves or name in self._leaving:
            raise AlreadyExists(f"collection {name!r} exists already", param="name")
        info = Info(name, engine.manifest.fingerprint, engine.manifest.dimension, chunks)
        shelf = self._shelves[name] = self._shelf(self._folder.create(info))
        return shelf

    async def remove(self, name: str) -> None:
        """Delete a collection and everything in it."""
        if name in self.reindexing:
            raise AlreadyExists(f"collection {name!r} is being reindexed; remove it afterwards")
        # Taken out first: nobody may find it, remove it again or begin to reindex it meanwhile.
        shelf = self._shelves.pop(name, None)
        if shelf is None:
            self._folder.check(name)
            raise CollectionNotFound(f"there is no collection {name!r}")
        self._leaving.add(name)
        try:
            await shelf.settled()
            async with shelf.writing, shelf.gate.closed():
                # Whoever still waits for it is told.
                shelf.gone = True
                await uninterrupted(lambda: self._folder.remove(name))
        finally:
            self._leaving.discard(name)
            if self._folder.collections.get(name) is shelf.collection:
                # The caller left before it began.
                shelf.gone = False
                self._shelves[name] = shelf

    def forget_queries(self) -> None:
        """To be called when models have been replaced."""
        self._queries.forget_retired()

    # --- embedding anew -------------------------------------------------------------------------------

    def reindex(self, name: str, chunks: ChunkRules | None, engine: Engine) -> Reindexing:
        """Embed a collection's stored texts with this engine's model, in the background.

        The collection answers as it did until the last document is done; then the new vectors take
        the place of the old. What is written meanwhile is taken over too. An interrupted one takes
        up where it stopped. Raises AlreadyExists where it is under way.
        """
        shelf = self.shelf(name)
        if name in self.reindexing:
            raise AlreadyExists(f"collection {name!r} is being reindexed already")
        self.unfinished.pop(name, None)
        task = asyncio.ensure_future(self._reindex(shelf, chunks, engine))
        self.reindexing[name] = Reindexing(0, shelf.collection.count, task)
        task.add_done_callback(lambda _: self._reindexed(name, task))
        return self.reindexing[name]

    def _reindexed(self, name: str, task: "asyncio.Task[None]") -> None:
        del self.reindexing[name]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.unfinished[name] = (
                error.message if isinstance(error, ServerError) else type(error).__name__
            )
            log.error("collection %s was not reindexed", name, exc_info=error)

    async def _reindex(
        self, shelf: LiveCollection, chunks: ChunkRules | None, engine: Engine
    ) -> None:
        manifest, name = engine.manifest, shelf.collection.name
        info = Info(name, manifest.fingerprint, manifest.dimension, chunks)
        successor = await asyncio.to_thread(self._folder.successor, info)
        try:
            # A page that is not full is the end, for now: writers must not keep it from coming.
            while await self._copy_page(shelf, successor, engine) == PAGE_DOCUMENTS:
                continue
            async with shelf.writing:
                # Nothing changes any more: the last pages, then what was deleted meanwhile.
                while await self._copy_page(shelf, successor, engine):
                    continue
                await uninterrupted(lambda: _forget_deleted(shelf.collection, successor))
                async with shelf.gate.closed():
                    shelf.collection = await uninterrupted(lambda: self._folder.replace(successor))
        except BaseException:
            successor.abandon()
            raise
        shelf.compact_when_due()

    async def _copy_page(self, shelf: LiveCollection, successor: Collection, engine: Engine) -> int:
        """Take over the next documents; returns how many."""
        after = int(successor.documents.noted(COPIED) or 0)
        page = await shelf.read(lambda: shelf.collection.documents.page(after, PAGE_DOCUMENTS))
        if not page:
            return 0
        documents = [document for _, document in page]
        cuts = await cut(documents, successor.info.chunks, engine)
        vectors = await _patiently([text for each in cuts for text in each.texts], engine)
        spans = [each.spans for each in cuts]
        notes = {COPIED: str(page[-1][0]), **note_of(known_of(successor), engine.provenance)}
        await uninterrupted(lambda: successor.add(documents, vectors, spans, notes))
        self.reindexing[shelf.collection.name].done += len(page)
        return len(page)

    # --- the end --------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Let writes and compaction end, write snapshots, and let go of the folder."""
        for running in list(self.reindexing.values()):
            running.task.cancel()
            await asyncio.wait([running.task])
        for shelf in self._shelves.values():
            await shelf.settled()
        await asyncio.to_thread(self._folder.close)

    def _shelf(self, collection: Collection) -> LiveCollection:
        return LiveCollection(collection, self.models, self._queries, self._metrics)


def whole_reading(engine: Engine) -> ChunkRules:
    """Parts as long as the model reads, so that nothing of a document is lost."""
    # [CLS] and [SEP] take two places.
    size = engine.manifest.text.max_tokens - 2
    return ChunkRules(size, usual_overlap(size))


def _tell_other_machine(shelf: LiveCollection) -> None:
    """Of vectors that are searched all the same; see `origin`."""
    agreement = shelf.agreement()
    if agreement is not None and agreement < SAME_VECTORS:
        log.warning(OTHER_MACHINE, shelf.collection.name, agreement)


async def _patiently(texts: Sequence[str], engine: Engine) -> Vectors:
    """Embed them, however often there is no room for that just now."""
    while True:
        try:
            return await embed(texts, engine)
        except Overloaded as error:
            await asyncio.sleep(error.retry_after_s)


def _forget_deleted(old: Collection, successor: Collection) -> None:
    gone = set(successor.documents.ids()) - set(old.documents.ids())
    if gone:
        successor.delete(list(gone))
