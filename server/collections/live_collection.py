"""A collection open on the event loop: it embeds what comes in, and keeps the loop free meanwhile.

Handlers and commands call its methods and never reach through it to the files.

Writes run one at a time on a thread, in the order in which their vectors were ready. Searches that
arrive while one runs wait for it and then run together, as one call. This is the same rule as for
batches of texts: there is no waiting window.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from server.clock import now
from server.collections.query_cache import QueryCache
from server.collections.read_write_gate import ReadWriteGate
from server.collections.write_batch import WriteBatch
from server.errors import CollectionNotFound, EmptyInput, OtherModel
from server.inference.cpu_provenance import NOTE, agreement, read_provenances
from server.inference.engine import Engine
from server.inference.registry import ModelRegistry
from server.store.collection import Collection
from server.store.filter_kinds import Operand, operands
from server.store.filter_tree import Filter
from server.store.records import CollectionStats, Document, Info
from server.store.search import Hit, Query, search
from server.store.vector_index import IndexStats, VectorIndex
from server.telemetry import spans
from server.telemetry.metrics import Metrics
from server.types import Vectors

T = TypeVar("T")
# A lone search among this many chunks takes less than a millisecond, and a thread costs up to half of
# one. Several searches are faster on a thread: with 16 clients the loop answered 5 % fewer of them.
QUICK_CHUNKS = 100_000
# Seconds without a write after which the index is compacted.
QUIET_S = 3.0
# Conditions of filters of which it is remembered that stored values can meet them.
MOST_SOUND = 1_000
# Searches that run as one call.
MAX_TOGETHER = 32

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Description:
    """A collection's description and sizes, all of one moment.

    agreement: see `LiveCollection.agreement`. bytes_on_disk: of all its files.
    """

    info: Info
    documents: int
    chunks: int
    index: IndexStats
    bytes_on_disk: int
    agreement: float | None


class LiveCollection:
    """One collection on the event loop.

    Where none of `models` made its vectors, only words and ready vectors can be searched, and
    nothing can be added.
    """

    def __init__(
        self, collection: Collection, models: ModelRegistry, queries: QueryCache, metrics: Metrics
    ) -> None:
        self.collection = collection
        self._models = models
        self._queries = queries
        self._metrics = metrics
        self.writing = asyncio.Lock()
        self.gate = ReadWriteGate()
        # Set when the collection is removed: calls that waited for that must not use it.
        self.gone = False
        self._waiting: list[tuple[Query, asyncio.Future[list[Hit]]]] = []
        self._searching: asyncio.Task[None] | None = None
        self._compacting: asyncio.Task[None] | None = None
        self._quiet: asyncio.TimerHandle | None = None
        self._ending = False
        # Conditions of filters that stored values can meet, and the index of the time when they were seen.
        self._sound: set[Operand] = set()
        self._sound_of: VectorIndex | None = None
        # As last probed; None until then, and while all vectors are compared.
        self._recall: float | None = None

    @property
    def name(self) -> str:
        return self.collection.name

    @property
    def info(self) -> Info:
        return self.collection.info

    @property
    def engine(self) -> Engine:
        """The engine of the model whose vectors it holds; raises OtherModel where none serves it."""
        found = self._models.with_vectors(self.info.fingerprint)
        if found is None:
            served = self._models.default.manifest.fingerprint
            raise OtherModel(
                f"collection {self.name!r} holds vectors of model"
                f" {self.info.fingerprint}, and this server has {served}; run `reindex`"
                " to embed its documents with this model, or serve the model they were embedded"
                " with as well"
            )
        return found

    def agreement(self) -> float | None:
        """Return the least cosine between the CPUs that computed its vectors and this one.

        None where none of them is known, or no served model made the vectors.
        """
        engine = self._models.with_vectors(self.info.fingerprint)
        if engine is None:
            return None
        return agreement(read_provenances(provenance_note(self.collection)), engine.provenance)

    # --- writing ------------------------------------------------------------------------------------

    async def add(self, documents: Sequence[Document], *, replace: bool = True) -> int:
        """Embed and store documents, all or none; on return they are on the disk.

        replace: whether documents of the same ids are replaced; otherwise they raise AlreadyExists.
        Where one id comes twice, the last counts. Documents that are stored unchanged are skipped.
        Returns how many documents were stored.
        """
        for index, document in enumerate(documents):
            if not document.text:
                raise EmptyInput(f"documents[{index}].text is empty", param="documents")
        return await self._add(documents, {}, replace=replace)

    async def add_with_vectors(self, documents: Sequence[Document], vectors: Vectors) -> int:
        """Store documents as `add` does, with vectors that its model made: float32 (B, D), one each.

        A document with several chunks is embedded all the same: each chunk needs a vector.
        """
        given = dict(zip((document.id for document in documents), vectors, strict=True))
        return await self._add(documents, given, replace=True)

    async def _add(
        self, documents: Sequence[Document], given: Mapping[str, Vectors], *, replace: bool
    ) -> int:
        """Store documents in one transaction; given: vectors of whole documents by id.

        Embedding takes long, so it happens before the write lock. What was decided before is decided
        again under the lock. Where another write has changed the answer, nothing is written, what is
        missing is embedded too, and the write is tried again.
        """
        latest = list({document.id: document for document in documents}.values())
        engine = self.engine
        batch = WriteBatch(self.info, latest, replace, given)
        waiting = await self.read(lambda: batch.missing(self.collection))
        while waiting:
            if batch.info != self.info:
                # Reindexed meanwhile, maybe with another model: no vector is of use.
                engine = self.engine
                batch = WriteBatch(self.info, latest, replace)
                waiting = latest
            await batch.embed(waiting, engine)
            waiting = await self._write(batch.store)
        return len(batch)

    async def delete(self, ids: Sequence[str]) -> int:
        """Delete these documents; returns how many there were."""
        return await self._write(lambda collection: collection.delete(ids))

    async def delete_where(self, filter: Filter) -> int:
        """Delete the documents that the filter keeps; returns how many there were."""
        return await self._write(lambda collection: collection.delete_where(filter))

    async def _write(self, change: Callable[[Collection], T]) -> T:
        """Change the collection on a thread, after the writes before it."""
        async with self.writing:
            self._check_there()
            result = await uninterrupted(lambda: change(self.collection))
        self.compact_when_due()
        return result

    # --- searching ----------------------------------------------------------------------------------

    async def vectors_of(self, texts: Sequence[str]) -> Vectors:
        """Embed queries: float32 (B, D), comparable with the collection's vectors."""
        return await self._queries.of(texts, self.engine)

    async def search(self, queries: Sequence[Query]) -> list[list[Hit]]:
        """Find the best documents of each query, best first."""
        loop = asyncio.get_running_loop()
        started = now()
        futures = []
        for query in queries:
            futures.append(loop.create_future())
            self._waiting.append((query, futures[-1]))
        if self._searching is None:
            self._searching = loop.create_task(self._search_waiting())
        found = [await future for future in futures]
        ended = now()
        self._metrics.search_seconds.observe(ended - started)
        spans.note("search", started, ended)
        return found

    async def _search_waiting(self) -> None:
        try:
            while self._waiting:
                batch = [item for item in self._waiting[:MAX_TOGETHER] if not item[1].done()]
                del self._waiting[:MAX_TOGETHER]
                if batch:
                    await self._search_batch(batch)
        finally:
            self._searching = None

    async def _search_batch(self, batch: list[tuple[Query, "asyncio.Future[list[Hit]]"]]) -> None:
        queries = [query for query, _ in batch]
        self._metrics.searches.inc(len(queries))
        try:
            async with self.gate:
                self._check_there()
                if self._quick(queries):
                    found = search(self.collection, queries)
                else:
                    found = await asyncio.to_thread(search, self.collection, queries)
        except Exception as error:
            # One query that fails must not fail those beside it.
            if len(batch) > 1:
                for item in batch:
                    await self._search_batch([item])
                return
            if not batch[0][1].done():
                batch[0][1].set_exception(error)
            return
        for (_, future), hits in zip(batch, found, strict=True):
            if not future.done():
                future.set_result(hits)

    def _quick(self, queries: Sequence[Query]) -> bool:
        """Return whether queries take less time on the loop than a thread would add."""
        return (
            len(queries) == 1
            and queries[0].mode == "dense"
            and queries[0].filter is None
            and len(self.collection.index) <= QUICK_CHUNKS
        )

    # --- reading ------------------------------------------------------------------------------------

    async def get(self, id: str) -> Document | None:
        """Return the document of this id, None where there is none."""
        return (await self.read(lambda: self.collection.documents.get([id]))).get(id)

    async def page(
        self, after: int, limit: int, filter: Filter | None = None
    ) -> list[tuple[int, Document]]:
        """Return documents with greater numbers than `after`, oldest first, each with its number."""
        return await self.read(lambda: self.collection.documents.page(after, limit, filter))

    async def count(self, filter: Filter | None = None) -> int:
        """Count the documents, or those that the filter keeps."""
        return await self.read(lambda: self.collection.documents.count(filter))

    async def warnings(self, filter: Filter | None) -> list[str]:
        """Return which conditions of a filter no stored value can meet because of its kind.

        What is found to be all right is not looked up again until something is written.
        """
        if filter is None:
            return []
        if self._sound_of is not self.collection.index:
            self._sound, self._sound_of = set(), self.collection.index
        asked = dict.fromkeys(operands(filter))
        unknown = [operand for operand in asked if operand not in self._sound]
        if not unknown:
            return []
        found = await self.read(lambda: self.collection.documents.warnings(unknown))
        if not found and len(self._sound) < MOST_SOUND:
            self._sound.update(unknown)
        return found

    async def description(self) -> Description:
        """Describe the collection and its index."""
        return await self.read(self._describe)

    def _describe(self) -> Description:
        collection = self.collection
        with collection.reading() as current:
            index, count = current.stats(), collection.count
        return Description(
            collection.info,
            count,
            index.vectors,
            index,
            collection.bytes_on_disk(),
            self.agreement(),
        )

    async def read(self, call: Callable[[], T]) -> T:
        """Call something that reads the collection on a thread; it is not replaced meanwhile."""
        async with self.gate:
            self._check_there()
            return await asyncio.to_thread(call)

    def stats(self) -> CollectionStats:
        """Return what Prometheus reads; from any thread."""
        found = self.collection.stats()
        return found if self._recall is None else replace(found, recall=self._recall)

    async def probe(self, seed: int) -> bool:
        """Measure recall of searches now; False where all vectors are compared."""
        self._recall = await self.read(lambda: self.collection.index.probed_recall(seed))
        return self._recall is not None

    def _check_there(self) -> None:
        if self.gone:
            raise CollectionNotFound(f"there is no collection {self.name!r} any more")

    # --- compaction ---------------------------------------------------------------------------------

    def compact_when_due(self) -> None:
        """Called after writes: compaction begins when it is due, or once no document is written."""
        if self._quiet is not None:
            self._quiet.cancel()
        self._quiet = None
        index = self.collection.index
        if self._compacting is None and not self._ending:
            if index.compaction_due:
                self._start_compacting()
            elif index.compaction_pays:
                self._quiet = asyncio.get_running_loop().call_later(QUIET_S, self._start_compacting)

    def _start_compacting(self) -> None:
        if self._compacting is None:
            self._compacting = asyncio.ensure_future(self._compact())
            self._compacting.add_done_callback(self._compacted)

    async def _compact(self) -> None:
        while (index := (collection := self.collection).index).compaction_pays:
            compacted = await asyncio.to_thread(index.compacted)
            async with self.writing:
                if self.gone or collection is not self.collection:
                    # Removed, or replaced when it was reindexed.
                    return
                await uninterrupted(partial(collection.adopt, compacted))
            # What was measured now is newer than the last probe.
            self._recall = None
            async with self.gate:
                if not self.gone and collection is self.collection:
                    await asyncio.to_thread(collection.save)

    def _compacted(self, task: "asyncio.Task[None]") -> None:
        self._compacting = None
        if task.cancelled():
            return
        if task.exception() is not None:
            log.error("the index was not compacted", exc_info=task.exception())
        else:
            self.compact_when_due()

    def stay(self) -> None:
        """Called when the collection was to be removed and was not."""
        self.gone = self._ending = False
        self.compact_when_due()

    async def settled(self) -> None:
        """Wait for compaction and running writes to end, and begin no other compaction."""
        self._ending = True
        if self._quiet is not None:
            self._quiet.cancel()
        if self._compacting is not None:
            await asyncio.wait([self._compacting])
        async with self.writing:
            return


async def uninterrupted(write: Callable[[], T]) -> T:
    """Run a write on a thread to its end, also where its caller is cancelled."""
    task = asyncio.ensure_future(asyncio.to_thread(write))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def provenance_note(collection: Collection) -> str | None:
    """Return a collection's note of the CPUs that computed its vectors."""
    return collection.documents.noted(NOTE)
