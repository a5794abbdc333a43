"""A collection of the data folder, opened in this process together with the model."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from copy import copy
from typing import Any, TypeVar

from server.api.administration import vocabulary
from server.api.operation import CollectionCall
from server.api.searching.operations import search
from server.cli.exchange.given_import import no_dimension
from server.cli.searching.reply import body_of, encoded, found_of
from server.cli.target import UNSAID, Chunks, Found, Matching, Page, Question, cut_otherwise
from server.collections.chunk_embedding import default_chunks, embed, longest_chunk
from server.collections.chunking import MIN_SIZE
from server.collections.document_limits import check_documents
from server.collections.live_collection import LiveCollection
from server.collections.reading.by_ids import documents_by_ids
from server.collections.registry import DEFAULT, CollectionRegistry
from server.collections.writing.given import add_given, check_embedder, info_of_given
from server.config import Config
from server.errors import BadSettings, InvalidRequest, Overloaded, StoreError, TaskNotServed
from server.inference.engine import Engine
from server.inference.registry import ModelRegistry, opened
from server.messages.message import Message
from server.store.collection import Collection
from server.store.filters.tree import fixed, parse
from server.store.folder import DataFolder
from server.store.reading.parts import Parts
from server.store.records import ChunkRules, Document, Info
from server.telemetry.metrics import Metrics
from server.types import Vectors, unit

PAGE_DOCUMENTS = 256
PROGRESS_S = 0.2
# A command that asks much at once waits for its own questions, a minute at most for each.
WAITS, WAIT_S = 120, 0.5

T = TypeVar("T")


class Local:
    """A collection of the data folder, which it locks.

    loop: the one on which it is used and closed.
    """

    def __init__(self, config: Config, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._name = name
        self._data = config.data
        models, metrics = opened(config), Metrics()
        folder = DataFolder(config.data)
        self._models = ModelRegistry(models, config, metrics, loop)
        self._registry = CollectionRegistry(folder, self._models, config, metrics)

    @property
    def name(self) -> str:
        return self._name

    def named(self, name: str) -> "Local":
        """Return another collection of the folder; it is closed with this one."""
        found = copy(self)
        found._name = name
        return found

    async def names(self) -> Sequence[str]:
        return self._registry.names

    @property
    def info(self) -> Info:
        return self._live().info

    @property
    def collection(self) -> Collection:
        return self._live().collection

    async def prepare(self, chunks: Chunks) -> None:
        if self._is_missing:
            engine = self._default
            rules = default_chunks(engine) if chunks == UNSAID else self._fit(chunks)
            await self._registry.create(self._name, rules, engine)
            return
        self._check_model()
        found = self.info.chunks
        if chunks != UNSAID and chunks != found:
            raise cut_otherwise(self._name, found, self._fit(chunks))

    async def add(self, documents: Sequence[Document]) -> int:
        check_documents(documents)
        return await self._live().add(documents)

    async def add_with_vectors(self, documents: Sequence[Document], vectors: Vectors) -> int:
        """Store documents with vectors of whole documents, float32 (B, D), which this model made.

        Documents that the collection cuts are embedded all the same: each chunk needs a vector.
        """
        check_documents(documents)
        return await self._live().add_with_vectors(documents, vectors)

    async def prepare_given(self, embedder: str, dimension: int | None) -> Info:
        """Create the collection for the vectors of this embedder if it is missing; return its description."""
        if self._is_missing:
            engine = self._served(embedder)
            if engine is not None:
                await self._registry.create(self._name, default_chunks(engine), engine)
            elif dimension is None:
                raise no_dimension()
            else:
                await self._registry.create_from(info_of_given(self._name, embedder, dimension))
        check_embedder(self._live(), embedder)
        return self.info

    def _served(self, embedder: str) -> Engine | None:
        """Return the model of vectors that has this name, id or fingerprint."""
        for engine in self._models.engines:
            manifest = engine.manifest
            names = (engine.model.name, manifest.model_id, manifest.fingerprint)
            if manifest.task == "dense" and embedder in names:
                return engine
        return None

    async def add_given(
        self, documents: Sequence[Document], parts: dict[str, Parts], embedder: str
    ) -> int:
        """Store documents with the vectors that the embedder made; return how many changed."""
        live = self._live()
        check_documents(documents, parts if live.info.embedder else ())
        return (await add_given(live, documents, parts, embedder)).number

    async def with_parts(self, ids: Sequence[str]) -> Sequence[tuple[Document, Parts | None]]:
        """Return the documents of these ids that exist, each with its chunks and their vectors."""
        found = await documents_by_ids(self._live(), ids, 4)
        return [(each, found.parts.get(id)) for id, each in found.documents.items()]

    async def vectors_of(self, texts: Sequence[str]) -> Vectors:
        """Embed texts as documents: float32 (B, D), unit rows."""
        return unit(await embed(texts, self._live().engine))

    async def search(self, question: Question) -> Found:
        """Answer as a server does: both refuse the same, and reply the same."""
        body = body_of(question)
        several = "collections" in body and self._name == DEFAULT
        if not several and not self._is_unwritten:
            self._live()
            if question.mode != "lexical" and not question.is_without_text:
                self._check_model()
        if "rerank" in body:
            self._scorer(body["rerank"].get("model", ""))
        call = self._call(encoded(body), in_path=not several)
        reply = await _patiently(lambda: search(call))
        return found_of(json.loads(reply.body))

    async def count(self) -> int:
        return 0 if self._is_unwritten else await self._live().count()

    async def pages(self) -> AsyncIterator[list[Document]]:
        live, after = self._live(), 0
        while page := await live.page(after, PAGE_DOCUMENTS):
            yield [document for _, document in page]
            after = page[-1][0]

    async def page(self, after: str, limit: int, filter: Mapping[str, object] | None) -> Page:
        live, tree = self._live(), parse(filter) if filter else None
        found, cut = await live.page_within(int(after), limit, tree)
        following = str(found[-1][0]) if cut or len(found) == limit else ""
        return Page([each for _, each in found], following, await live.warnings(tree))

    async def get(self, id: str) -> Document | None:
        return await self._live().get(id)

    async def matching(self, filter: Mapping[str, object]) -> Matching:
        live, tree = self._live(), parse(filter)
        return Matching(await live.count(tree), await live.warnings(tree))

    async def delete(self, ids: Sequence[str]) -> int:
        return await self._live().delete(ids)

    async def delete_where(self, filter: Mapping[str, object]) -> int:
        live, tree = self._live(), parse(filter)
        if fixed(tree):
            raise InvalidRequest(
                "the filter keeps every document, so all would be removed; remove the collection instead"
            )
        return await live.delete_where(tree)

    async def has_reranker(self) -> bool:
        return any(engine.manifest.task == "score" for engine in self._models.engines)

    async def remove(self) -> None:
        await self._registry.remove(self._name)

    async def rename(self, name: str, *, keep_alias: bool) -> None:
        await self._registry.rename(self._name, name, keep_alias=keep_alias)

    async def aliases(self) -> Mapping[str, str]:
        return self._registry.aliases

    async def set_alias(self, alias: str) -> None:
        await self._registry.set_alias(alias, self._name)

    async def forget_alias(self, alias: str) -> None:
        await self._registry.forget_alias(alias)

    async def words(self) -> dict[str, Any]:
        reply = await vocabulary.get(self._call(b""))
        found: dict[str, Any] = json.loads(reply.body)
        return found

    async def set_words(self, given: dict[str, Any]) -> None:
        await vocabulary.put(self._call(encoded(given)))

    def _call(self, body: bytes, *, in_path: bool = True) -> CollectionCall:
        """Return a request as the server's handlers take it. in_path: whether its path names the collection."""
        path = {"collection": self._name} if in_path else {}
        return CollectionCall({"path_params": path}, body, self._models, self._registry)

    async def reindex(self, chunks: Chunks, show: Callable[[int, int], None]) -> None:
        rules = self.info.chunks if chunks == UNSAID else chunks
        own = self._registry.own_name(self._name)
        running = await self._registry.reindex(own, self._fit(rules), self._default)
        while not running.task.done():
            show(running.done, running.total)
            await asyncio.wait([running.task], timeout=PROGRESS_S)
        await running.task
        show(running.done, running.total)

    async def close(self) -> None:
        await self._registry.close()
        self._models.close()

    @property
    def _default(self) -> Engine:
        """The first model of vectors; raises StoreError where there are rerankers only."""
        try:
            return self._models.default
        except TaskNotServed:
            raise StoreError(
                "no --model gives vectors, so texts are neither stored nor found by meaning; name an embedding "
                "model, too: --model FOLDER; only search --mode lexical needs none"
            ) from None

    def _scorer(self, name: str) -> Engine:
        """Return the reranker of this name, or the first one."""
        try:
            return self._models.choose(name, "score").engine
        except TaskNotServed:
            if name:
                raise
            raise StoreError(
                "no reranker is loaded; name one, too: --model FOLDER --model RERANKER"
            ) from None

    @property
    def _is_missing(self) -> bool:
        return self._registry.own_name(self._name) not in self._registry.names

    @property
    def _is_unwritten(self) -> bool:
        """Whether it is the default collection, which the first write will create."""
        there = (*self._registry.names, *self._registry.damaged)
        return self._registry.own_name(self._name) == DEFAULT and DEFAULT not in there

    def _live(self) -> LiveCollection:
        """Return the live collection; unlike the registry, do not make one that is missing."""
        names = self._registry.names
        found = None
        own = self._registry.own_name(self._name)
        if own in (*names, *self._registry.damaged):
            found = self._registry.get(own)
        if isinstance(found, LiveCollection):
            return found
        raise StoreError(
            "{data} has no collection {name}, only {names}; `index FILE` makes one",
            data=self._data,
            name=self._name,
            names=tuple(names) or Message("none"),
        )

    def _check_model(self) -> None:
        """Refuse a collection of another model before a long file is read in vain."""
        found, embedder = self.info.fingerprint, self.info.embedder
        if embedder is not None:
            raise StoreError(
                "collection {name} holds given vectors of {embedder}: store documents with theirs (import "
                "FILE --embedder {embedder}), and search with --mode lexical",
                name=self._name,
                embedder=embedder,
            )
        if self._models.with_vectors(found) is None:
            served = self._default.manifest.fingerprint
            raise StoreError(
                "collection {name} holds vectors of model {found}, but --model is {served}; name the "
                "folder of its model with --model, or compute them again: reindex --collection {name}",
                name=self._name,
                found=found,
                served=served,
            )

    def _fit(self, rules: ChunkRules | None) -> ChunkRules | None:
        """Return the rules if this model can read such chunks."""
        longest = longest_chunk(self._default)
        if rules is not None and not MIN_SIZE <= rules.size <= longest:
            raise BadSettings(
                "--chunk-tokens {size} is outside {least} to {most}, the longest that the model reads; "
                "0 keeps documents whole",
                size=rules.size,
                least=MIN_SIZE,
                most=longest,
            )
        return rules


async def _patiently(work: Callable[[], Awaitable[T]]) -> T:
    """Return what the work gives, tried again while too much is asked at once."""
    for _ in range(WAITS):
        try:
            return await work()
        except Overloaded:
            await asyncio.sleep(WAIT_S)
    return await work()
