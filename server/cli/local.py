"""A collection of the data folder, opened in this process together with the model."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial

from server.cli.target import UNSAID, Chunks, Question, cut_otherwise
from server.collections.chunk_embedding import cut, embed
from server.collections.chunking import MIN_SIZE
from server.collections.live_collection import LiveCollection
from server.collections.registry import DEFAULT, CollectionRegistry, whole_reading
from server.config import Config
from server.errors import BadSettings, StoreError
from server.inference.registry import ModelRegistry, opened
from server.messages.message import Message
from server.store.collection import Collection
from server.store.filters import check
from server.store.folder import DataFolder
from server.store.records import ChunkRules, Document
from server.store.search import Hit, Query
from server.telemetry.metrics import Metrics
from server.types import Vectors, unit

PAGE_DOCUMENTS = 256
PROGRESS_S = 0.2


class Local:
    """Locks the data folder; `close` it on the loop that it was given."""

    def __init__(self, config: Config, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._name = name
        self._data = config.data
        models, metrics = opened(config), Metrics()
        folder = DataFolder(config.data)
        self._models = ModelRegistry(models, config, metrics, loop)
        self._library = CollectionRegistry(folder, self._models, config, metrics)

    @property
    def name(self) -> str:
        return self._name

    @property
    def collection(self) -> Collection:
        return self._shelf().collection

    async def prepare(self, chunks: Chunks) -> None:
        if self._name not in self._library.names:
            engine = self._models.default
            rules = whole_reading(engine) if chunks == UNSAID else self._fit(chunks)
            self._library.create(self._name, rules, engine)
            return
        self._check_model()
        found = self.collection.info.chunks
        if chunks != UNSAID and chunks != found:
            raise cut_otherwise(self._name, found, chunks)

    async def add(self, documents: Sequence[Document]) -> int:
        return await self._shelf().add(documents)

    async def add_with_vectors(self, documents: Sequence[Document], vectors: Vectors) -> int:
        """Like `add`, with vectors of whole documents, float32 (B, D), that this model has made.

        Documents that the collection cuts are embedded all the same: each part needs its own.
        """
        shelf = self._shelf()
        row_of = {document.id: row for row, document in enumerate(documents)}
        latest = [documents[row] for row in row_of.values()]
        same = await shelf.read(lambda: shelf.collection.documents.unchanged(latest))
        fresh = [document for document in latest if document.id not in same]
        cuts = await cut(fresh, shelf.collection.info.chunks, shelf.engine)
        whole = [each.document for each in cuts if len(each.spans) == 1]
        if whole:
            rows = vectors[[row_of[document.id] for document in whole]]
            await shelf.write(lambda collection: collection.add(whole, rows))
        longer = [each.document for each in cuts if len(each.spans) > 1]
        return len(whole) + (await shelf.add(longer) if longer else 0)

    async def vectors_of(self, texts: Sequence[str]) -> Vectors:
        """Embed texts as documents: float32 (B, D), unit rows."""
        return unit(await embed(texts, self._shelf().engine))

    async def search(self, question: Question) -> list[Hit]:
        shelf, filter = self._shelf(), dict(question.filter) if question.filter else None
        if filter is not None:
            check(filter)
        vector = None
        if question.mode != "lexical":
            self._check_model()
            (vector,) = await shelf.vectors_of([question.text])
        query = Query(question.mode, question.top_k, vector, question.text, filter=filter)
        (hits,) = await shelf.search([query])
        return hits

    async def count(self) -> int:
        if self._name == DEFAULT and DEFAULT not in (*self._library.names, *self._library.damaged):
            return 0
        shelf = self._shelf()
        return await shelf.read(shelf.count)

    async def pages(self) -> AsyncIterator[list[Document]]:
        shelf, after = self._shelf(), 0
        read = shelf.collection.documents.page
        while page := await shelf.read(partial(read, after, PAGE_DOCUMENTS)):
            yield [document for _, document in page]
            after = page[-1][0]

    async def reindex(self, chunks: Chunks, show: Callable[[int, int], None]) -> None:
        rules = self.collection.info.chunks if chunks == UNSAID else chunks
        running = self._library.reindex(self._name, self._fit(rules), self._models.default)
        while not running.task.done():
            show(running.done, running.total)
            await asyncio.wait([running.task], timeout=PROGRESS_S)
        await running.task
        show(running.done, running.total)

    async def close(self) -> None:
        await self._library.close()
        self._models.close()

    def _shelf(self) -> LiveCollection:
        """Of this collection; unlike the library's own, it makes none that is missing."""
        names = self._library.names
        if self._name not in (*names, *self._library.damaged):
            raise StoreError(
                "{data} has no collection {name}, only {names}; `index FILE` makes one",
                data=self._data,
                name=self._name,
                names=tuple(names) or Message("none"),
            )
        return self._library.shelf(self._name)

    def _check_model(self) -> None:
        """Before a long file is read for nothing."""
        found = self.collection.info.fingerprint
        if self._models.with_vectors(found) is None:
            served = self._models.default.manifest.fingerprint
            raise StoreError(
                "collection {_name} holds vectors of model {found}, and --model has {served}; embed "
                "its documents anew: reindex --collection {_name}",
                _name=self._name,
                found=found,
                served=served,
            )

    def _fit(self, rules: ChunkRules | None) -> ChunkRules | None:
        """The rules, if this model can read such parts."""
        longest = whole_reading(self._models.default).size
        if rules is not None and not MIN_SIZE <= rules.size <= longest:
            raise BadSettings(
                "--chunk-tokens {size} is outside {MIN_SIZE} to {longest}, which the model reads; 0 "
                "does not cut documents",
                size=rules.size,
                MIN_SIZE=MIN_SIZE,
                longest=longest,
            )
        return rules
