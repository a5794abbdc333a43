"""One collection on the event loop: embeds what comes in, and keeps the loop free meanwhile.

Writes happen one at a time on a thread, in the order in which their vectors were ready. Searches
that arrive while one runs wait for it and then run together, as one call: the same rule as for
batches of texts, there is no waiting window.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

from server.clock import now
from server.collections.chunk_embedding import cut, embed
from server.collections.query_cache import QueryVectors
from server.errors import AlreadyExists, CollectionNotFound, EmptyInput, OtherModel
from server.inference.cpu_provenance import (
    NOTE,
    CpuProvenance,
    agreement,
    note_of,
    read_provenances,
)
from server.inference.engine import Engine
from server.inference.registry import ModelRegistry
from server.store.collection import Collection
from server.store.filters import Filter
from server.store.records import CollectionStats, Document
from server.store.search import Hit, Query, search
from server.telemetry import spans
from server.telemetry.metrics import Metrics
from server.types import Vectors

T = TypeVar("T")
# A lone search in so many parts takes less than a millisecond, and handing it to a thread and back up
# to half of one. Several are better off there: with 16 clients the loop answered 5 % fewer of them.
QUICK_PARTS = 100_000
# Seconds without a write after which the index is put in order for searches.
QUIET_S = 3.0
# Searches that run as one call.
MAX_TOGETHER = 32

log = logging.getLogger(__name__)


class Gate:
    """Calls pass through it side by side; `closed` waits until none is inside and lets none in."""

    def __init__(self) -> None:
        self._inside = 0
        self._open = asyncio.Event()
        self._open.set()
        self._empty = asyncio.Event()
        self._empty.set()

    async def __aenter__(self) -> None:
        while not self._open.is_set():
            await self._open.wait()
        self._inside += 1
        self._empty.clear()

    async def __aexit__(self, *_: object) -> None:
        self._inside -= 1
        if not self._inside:
            self._empty.set()

    @asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        self._open.clear()
        try:
            while self._inside:
                await self._empty.wait()
            yield
        finally:
            self._open.set()


class LiveCollection:
    """Where none of `models` made the collection's vectors, only words and ready vectors can be
    searched, and nothing can be added.
    """

    def __init__(
        self, collection: Collection, models: ModelRegistry, queries: QueryVectors, metrics: Metrics
    ) -> None:
        self.collection = collection
        self._models = models
        self._queries = queries
        self._metrics = metrics
        self.writing = asyncio.Lock()
        self.gate = Gate()
        # Set when the collection is removed: calls that waited for that must not use it.
        self.gone = False
        self._waiting: list[tuple[Query, asyncio.Future[list[Hit]]]] = []
        self._searching: asyncio.Task[None] | None = None
        self._compacting: asyncio.Task[None] | None = None
        self._quiet: asyncio.TimerHandle | None = None
        self._ending = False
        # As it was last probed; None until then, and while all vectors are compared.
        self._recall: float | None = None

    @property
    def engine(self) -> Engine:
        """Of the model whose vectors the collection holds; raises OtherModel where it is not served."""
        found = self._models.with_vectors(self.collection.info.fingerprint)
        if found is None:
            served = self._models.default.manifest.fingerprint
            raise OtherModel(
                f"collection {self.collection.name!r} holds vectors of model"
                f" {self.collection.info.fingerprint}, and this server has {served}; run `reindex`"
                " to embed its documents with this model, or serve the model they were embedded"
                " with as well"
            )
        return found

    @property
    def origins(self) -> list[CpuProvenance]:
        """The kinds of machines that computed its vectors, as far as it remembers."""
        return read_provenances(known_of(self.collection))

    def agreement(self) -> float | None:
        """Of their vectors with those of this machine; None where either is not known."""
        engine = self._models.with_vectors(self.collection.info.fingerprint)
        return None if engine is None else agreement(self.origins, engine.provenance)

    # --- writing ------------------------------------------------------------------------------------

    async def add(self, documents: Sequence[Document], *, replace: bool = True) -> int:
        """Embed and store documents, all or none; on return they are on the disk.

        replace: documents of the same ids give way; otherwise they are an AlreadyExists. Where one
        id comes twice, the last counts. What is stored just so already is left as it is. Returns
        how many documents were stored.
        """
        engine = self.engine
        for index, document in enumerate(documents):
            if not document.text:
                raise EmptyInput(f"documents[{index}].text is empty", param="documents")
        latest = list({document.id: document for document in documents}.values())
        if not replace:
            # Before they are embedded for nothing, and again when nobody else can write.
            await self.read(lambda: _refuse_known(self.collection, latest))
        else:
            same = await self.read(lambda: self.collection.documents.unchanged(latest))
            latest = [document for document in latest if document.id not in same]
        if not latest:
            return 0
        cuts = await cut(latest, self.collection.info.chunks, engine)
        vectors = await embed([text for each in cuts for text in each.texts], engine)
        spans = [each.spans for each in cuts]

        def store(collection: Collection) -> None:
            if not replace:
                _refuse_known(collection, latest)
            collection.add(latest, vectors, spans, note_of(known_of(collection), engine.provenance))

        await self.write(store)
        return len(latest)

    async def delete(self, ids: Sequence[str]) -> int:
        """Forget these documents; returns how many there were."""
        return await self.write(lambda collection: collection.delete(ids))

    async def delete_where(self, filter: Filter) -> int:
        return await self.write(lambda collection: collection.delete_where(filter))

    async def write(self, change: Callable[[Collection], T]) -> T:
        """Change the collection beside the loop, after the writes before and before the next."""
        async with self.writing:
            self._check_there()
            result = await uninterrupted(lambda: change(self.collection))
        self.compact_when_due()
        return result

    # --- searching ----------------------------------------------------------------------------------

    async def vectors_of(self, texts: Sequence[str]) -> Vectors:
        """Of queries, float32 (B, D), comparable with the collection's."""
        return await self._queries.of(texts, self.engine)

    async def search(self, queries: Sequence[Query]) -> list[list[Hit]]:
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
        """Whether they cost less here than handing them to a thread and back."""
        return (
            len(queries) == 1
            and queries[0].mode == "dense"
            and queries[0].filter is None
            and len(self.collection.index) <= QUICK_PARTS
        )

    def count(self) -> int:
        """Documents, from any thread."""
        return self.collection.count

    async def read(self, call: Callable[[], T]) -> T:
        """Ask the collection something beside the loop."""
        async with self.gate:
            self._check_there()
            return await asyncio.to_thread(call)

    def figures(self) -> CollectionStats:
        """What Prometheus is told, from any thread."""
        found = self.collection.figures()
        return found if self._recall is None else replace(found, recall=self._recall)

    async def probe(self, seed: int) -> bool:
        """Measure how much of what is nearest a search finds now; False where it compares all."""
        self._recall = await self.read(lambda: self.collection.index.probed_recall(seed))
        return self._recall is not None

    def _check_there(self) -> None:
        if self.gone:
            raise CollectionNotFound(f"there is no collection {self.collection.name!r} any more")

    # --- upkeep -------------------------------------------------------------------------------------

    def compact_when_due(self) -> None:
        """To be called after writes: compaction begins when it must, or once nothing is written."""
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
                    # Removed, or replaced by one that is embedded anew.
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

    async def settled(self) -> None:
        """Wait for compaction and writes under way to end, and begin no other compaction."""
        self._ending = True
        if self._quiet is not None:
            self._quiet.cancel()
        if self._compacting is not None:
            await asyncio.wait([self._compacting])
        async with self.writing:
            return


async def uninterrupted(write: Callable[[], T]) -> T:
    """A write that has begun ends, also when its caller leaves, before another may begin."""
    task = asyncio.ensure_future(asyncio.to_thread(write))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def known_of(collection: Collection) -> str | None:
    """Its note of the machines that computed its vectors."""
    return collection.documents.noted(NOTE)


def _refuse_known(collection: Collection, documents: Sequence[Document]) -> None:
    known = collection.documents.numbers([document.id for document in documents])
    if known:
        raise AlreadyExists(
            f'document {next(iter(known))!r} exists already; leave out "replace": false to'
            " store it anew",
            param="documents",
        )
