"""A collection open on the event loop: it embeds what comes in, and keeps the loop free meanwhile.

Handlers and commands call its methods and never reach through it to the files. Writes run one at a time
on a thread, in the order in which their vectors were ready. Searches that arrive while one runs wait for
it and then run together: see `read_queue`. Nothing of the store runs on the loop.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from types import MappingProxyType
from typing import TypeVar

from server.clock import now
from server.collections import read_cost
from server.collections.description import Description
from server.collections.document_limits import check_texts
from server.collections.query_cache import QueryCache
from server.collections.read_threads import ReadThreads
from server.collections.read_write_gate import ReadWriteGate
from server.collections.reading.pages import page_from
from server.collections.search_turns import in_turns
from server.collections.served_model import VectorsReplaced, engine_of
from server.collections.write_batch import WriteBatch
from server.errors import CollectionNotFound, ServerError
from server.inference.cpu_provenance import NOTE, agreement, read_provenances
from server.inference.engine import Engine
from server.inference.registry import ModelRegistry
from server.store.collection import Collection
from server.store.filters.kinds import Operand, operands
from server.store.filters.tree import Filter
from server.store.metadata_summary import MetadataSummary
from server.store.reading import filtered
from server.store.reading.parts import Parts
from server.store.records import CollectionStats, Document, Info
from server.store.search import Hit, Query, at_once, is_plain
from server.store.searching.answers import search
from server.store.sqlite.read_limit import limited
from server.store.vector_index import VectorIndex
from server.telemetry import spans
from server.telemetry.metrics import Metrics
from server.types import Vectors

T = TypeVar("T")
NO_PARTS: Mapping[str, Parts] = MappingProxyType({})
# Seconds without a write after which the index is compacted.
QUIET_S = 3.0
# Conditions of filters of which it is remembered that stored values can meet them.
MOST_SOUND = 1_000

log = logging.getLogger(__name__)


class LiveCollection:
    """One collection on the event loop; where its model is not served, it is searched by ready vectors and words."""

    def __init__(
        self,
        collection: Collection,
        models: ModelRegistry,
        queries: QueryCache,
        reads: ReadThreads,
        metrics: Metrics,
    ) -> None:
        self.collection = collection
        self._reads = reads
        self.hit_time = read_cost.HitTime()
        if len(collection.index):
            self.hit_time.expect(collection.stats())
        self._models = models
        self._queries = queries
        self._metrics = metrics
        self.writing = asyncio.Lock()
        self.gate = ReadWriteGate()
        # Set when the collection is removed: calls that waited for that must not use it.
        self.gone = False
        # How often a backup has taken the place of its documents.
        self.restored = 0
        self._compacting: asyncio.Task[None] | None = None
        self._quiet: asyncio.TimerHandle | None = None
        self._tidying: asyncio.TimerHandle | None = None
        self._ending = False
        # Conditions of filters that stored values can meet, and the index of the time when they were seen.
        self._sound: set[Operand] = set()
        self._sound_of: VectorIndex | None = None
        # As last probed; None until then, and while all vectors are compared.
        self._recall: float | None = None
        # Of the metadata, with the revision that it describes; see `overview`.
        self.summary: tuple[str | None, MetadataSummary] | None = None

    @property
    def name(self) -> str:
        return self.collection.name

    @property
    def info(self) -> Info:
        return self.collection.info

    @property
    def engine(self) -> Engine:
        """The engine of the model whose vectors it holds; raises OtherModel where none serves it."""
        return engine_of(self._models, self.info)

    def agreement(self) -> float | None:
        """Return the least cosine of the CPUs that computed its vectors and this one, None where not known."""
        engine = self._models.with_vectors(self.info.fingerprint)
        if engine is None:
            return None
        return agreement(read_provenances(provenance_note(self.collection)), engine.provenance)

    # --- writing ------------------------------------------------------------------------------------

    async def add(
        self,
        documents: Sequence[Document],
        *,
        replace: bool = True,
        parts: Mapping[str, Parts] = NO_PARTS,
    ) -> int:
        """Embed and store documents, all or none; on return they are on the disk.

        replace: whether documents of the same ids are replaced; otherwise they raise AlreadyExists.
        parts: chunks with vectors that are stored as given, by id; `writing.given` checks them. Of one id
        that comes twice the last counts. Unchanged documents are skipped. Returns how many were stored.
        """
        check_texts(documents, self.info, parts)
        return await self._add(documents, {}, parts, replace=replace)

    async def add_with_vectors(self, documents: Sequence[Document], vectors: Vectors) -> int:
        """Store documents as `add` does, with vectors that its model made: float32 (B, D), one each.

        A document with several chunks is embedded all the same: each chunk needs a vector.
        """
        given = dict(zip((document.id for document in documents), vectors, strict=True))
        return await self._add(documents, given, NO_PARTS, replace=True)

    async def _add(
        self,
        documents: Sequence[Document],
        given: Mapping[str, Vectors],
        parts: Mapping[str, Parts],
        *,
        replace: bool,
    ) -> int:
        """Store documents in one transaction; given: vectors of whole documents by id.

        Embedding takes long, so it happens before the write lock. What was decided before is decided
        again under the lock. Where another write has changed the answer, nothing is written, what is
        missing is embedded too, and the write is tried again.
        """
        latest = list({document.id: document for document in documents}.values())
        batch = WriteBatch(self.info, latest, replace, given, parts)
        engine = self.engine if batch.lacks_vectors() else None
        waiting = await self.read(lambda: batch.missing(self.collection))
        while waiting:
            if batch.info != self.info:
                # Reindexed meanwhile, maybe with another model.
                batch = batch.of(self.info)
                engine = self.engine if batch.lacks_vectors() else None
                waiting = latest
            await batch.embed(waiting, engine)
            waiting = await self.write(batch.store)
        return len(batch)

    async def delete(self, ids: Sequence[str]) -> int:
        """Delete these documents; returns how many there were."""
        return await self.write(lambda collection: collection.delete(ids))

    async def delete_where(self, filter: Filter) -> int:
        """Delete the documents that the filter keeps; returns how many there were.

        Raises RequestTooLarge where that takes longer than a read may, and deletes none.
        """

        def delete(collection: Collection) -> int:
            with limited(self._reads.removal_limit()):
                return collection.delete_where(filter)

        with self._reads.admitted(read_cost.of_count(filter, len(self.collection.index))):
            return await self.write(delete)

    async def write(self, change: Callable[[Collection], T]) -> T:
        """Change the collection on a thread, after the writes before it."""
        async with self.writing:
            self._check_there()
            result = await uninterrupted(lambda: self._changed_by(change))
        self.compact_when_due()
        self._tidy_when_quiet()
        return result

    def _changed_by(self, change: Callable[[Collection], T]) -> T:
        result = change(self.collection)
        self.hit_time.expect(self.collection.stats())
        return result

    def _tidy_when_quiet(self) -> None:
        """Called after writes: give back disk and memory once no document is written."""
        if self._tidying is not None:
            self._tidying.cancel()
        if not self._ending:
            self._tidying = asyncio.get_running_loop().call_later(QUIET_S, self._start_tidying)

    def _start_tidying(self) -> None:
        self._tidied = asyncio.ensure_future(self._tidy())

    async def _tidy(self) -> None:
        """Give back what a large write left: SQLite's log, and freed memory."""
        async with self.writing:
            if self.gone or self._ending:
                return
            try:
                await uninterrupted(self.collection.give_back)
            except ServerError as error:
                log.warning("the log of collection %s was not shortened: %s", self.name, error)

    # --- searching ----------------------------------------------------------------------------------

    async def vectors_of(self, texts: Sequence[str]) -> Vectors:
        """Embed queries: float32 (B, D), comparable with the collection's vectors."""
        return await self._queries.of(texts, self.engine)

    def check_room(self, queries: Sequence[Query]) -> None:
        """Raise Overloaded if a search would be refused now: before its queries are embedded."""
        self._reads.check_room(self._search_cost(queries))

    def _search_cost(self, queries: Sequence[Query]) -> float:
        return read_cost.of_search(queries, len(self.collection.index), self.hit_time.seconds)

    async def search(self, queries: Sequence[Query], space: str | None = None) -> list[list[Hit]]:
        """Find the best documents of each query, best first.

        space: the fingerprint for which theirs were made; raises VectorsReplaced where it is another by now.
        """
        started, cost_s = now(), self._search_cost(queries)
        self._metrics.searches.inc(len(queries))
        with self._reads.admitted(cost_s):
            async with self.gate:
                self._check_there(space)
                found = await self._turns(queries, cost_s)
        self._metrics.search_seconds.observe((ended := now()) - started)
        spans.note("search", started, ended)
        return found

    async def _turns(self, queries: Sequence[Query], cost_s: float) -> list[list[Hit]]:
        """Search in one turn with others that wait, or, with much to do, in turns of its own."""
        if self._reads.is_light(cost_s):
            alone = partial(at_once, self.collection, queries)
            return await self._reads.join(cost_s, self._search, queries, alone)
        return await in_turns(self._reads, cost_s, queries, self._found)

    def _search(self, requests: Sequence[Sequence[Query]]) -> list[list[list[Hit]]]:
        """Return the hits of several requests, whose queries are searched together."""
        found = iter(self._found([query for each in requests for query in each]))
        return [list(islice(found, len(each))) for each in requests]

    def _found(self, queries: Sequence[Query]) -> list[list[Hit]]:
        started = now()
        found = search(self.collection, queries)
        if all(map(is_plain, queries)):
            self.hit_time.observe(now() - started, sum(map(len, found)))
        return found

    # --- reading ------------------------------------------------------------------------------------

    async def get(self, id: str) -> Document | None:
        """Return the document of this id, None where there is none."""
        found = await self.admitted(read_cost.CALL_S, lambda: self.collection.documents.get([id]))
        return found.get(id)

    async def page(self, after: int, limit: int) -> list[tuple[int, Document]]:
        """Return documents with greater numbers than `after`, oldest first, each with its number."""
        return await self.read(lambda: self.collection.documents.page(after, limit))

    async def page_within(
        self, after: int, limit: int, filter: Filter | None
    ) -> tuple[list[tuple[int, Document]], bool]:
        """Return a page of no more bytes than a reply, each with the place after it, and whether that cut it."""
        rows, hit_s = len(self.collection.index), self.hit_time.seconds

        def read() -> tuple[list[tuple[int, Document]], bool]:
            started = now()
            found = page_from(self.collection, after, limit, filter, self._reads.max_bytes)
            if filter is None:
                self.hit_time.observe(now() - started, len(found[0]))
            return found

        return await self.admitted(read_cost.of_page(limit, filter, rows, hit_s), read)

    async def count(self, filter: Filter | None = None) -> int:
        """Count the documents, or those that the filter keeps."""
        cost_s = read_cost.of_count(filter, len(self.collection.index))
        return await self.admitted(cost_s, lambda: filtered.count(self.collection, filter))

    async def warnings(self, filter: Filter | None) -> list[str]:
        """Return which conditions of a filter no stored value can meet because of its kind.

        What is found to be all right is not looked up again until something is written.
        """
        if self._sound_of is not self.collection.index:
            self._sound, self._sound_of = set(), self.collection.index
        asked = dict.fromkeys(() if filter is None else operands(filter))
        unknown = [operand for operand in asked if operand not in self._sound]
        if not unknown:
            return []
        cost_s = read_cost.of_count(filter, len(self.collection.index))
        async with self.gate:
            self._check_there()
            # Part of a request that has been admitted.
            found = await self._reads.turn(
                cost_s, lambda: self.collection.documents.warnings(unknown)
            )
        if not found and len(self._sound) < MOST_SOUND:
            self._sound.update(unknown)
        return found

    async def description(self) -> Description:
        """Describe the collection and its index."""
        cost_s = read_cost.of_count(None, len(self.collection.index))
        return await self.admitted(cost_s, self._describe)

    async def admitted(self, cost_s: float, call: Callable[[], T], space: str | None = None) -> T:
        """Read for a request: in its turn, and refused where too many wait. space: as of `search`."""
        with self._reads.admitted(cost_s):
            async with self.gate:
                self._check_there(space)
                return await self._reads.turn(cost_s, call)

    def _describe(self) -> Description:
        collection = self.collection
        with collection.reading() as current:
            index, count, changed = current.stats(), collection.count, collection.changed
        recall = index.recall_at_10 if self._recall is None else self._recall
        sizes = (count, index.vectors, index, collection.bytes_on_disk())
        return Description(collection.info, *sizes, self.agreement(), recall, changed)

    async def read(self, call: Callable[[], T]) -> T:
        """Call something that reads the collection for the server itself, or for a write, on a thread.

        The collection is not replaced meanwhile.
        """
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

    def _check_there(self, space: str | None = None) -> None:
        if self.gone:
            raise CollectionNotFound(f"there is no collection {self.name!r} any more")
        if space not in (None, self.info.fingerprint):
            raise VectorsReplaced

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
            compacted = await asyncio.to_thread(collection.compacted, index)
            async with self.gate:
                if self._has(collection):
                    compacted = await asyncio.to_thread(collection.caught_up, compacted)
            async with self.writing:
                if not self._has(collection):
                    # Removed, or replaced when it was reindexed.
                    return
                await uninterrupted(partial(collection.adopt, compacted))
            # What was measured now is newer than the last probe.
            self._recall = None
            async with self.gate:
                if self._has(collection):
                    await asyncio.to_thread(collection.save)

    def _has(self, collection: Collection) -> bool:
        return not self.gone and collection is self.collection

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
        if self._tidying is not None:
            self._tidying.cancel()
        if self._quiet is not None:
            self._quiet.cancel()
        if self._compacting is not None:
            await asyncio.wait([self._compacting])
        async with self.writing:
            return


async def uninterrupted(write: Callable[[], T]) -> T:
    """Run a write on a thread to its end, also where its caller is cancelled."""
    return await ended(asyncio.ensure_future(asyncio.to_thread(write)))


async def ended(task: "asyncio.Task[T]") -> T:
    """Return what a task returns; a caller that is cancelled waits for its end first."""
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def provenance_note(collection: Collection) -> str | None:
    """Return a collection's note of the CPUs that computed its vectors."""
    return collection.documents.noted(NOTE)
