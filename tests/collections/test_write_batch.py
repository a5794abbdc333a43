"""Writes that another write overtakes while they embed: what is acknowledged is there."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from server.collections import reindexing as reindexing_module
from server.collections import write_batch as batch_module
from server.collections.chunk_embedding import Chunked
from server.collections.live_collection import LiveCollection
from server.collections.registry import CollectionRegistry
from server.errors import AlreadyExists
from server.inference.engine import Engine
from server.inference.model import Model
from server.store.filters.tree import parse
from server.store.records import ChunkRules, Document
from server.store.search import Query
from server.types import Vectors
from tests.support.fakes import PATIENCE_S
from tests.support.registries import opened

X, CHANGED_X = Document("x", "墨池 search server"), Document("x", "another text")
OTHERS = [Document(str(n), f"text {n}") for n in range(3)]


def run(
    test: Callable[[CollectionRegistry, LiveCollection], Awaitable[None]],
    model: Model,
    folder: Path,
) -> None:
    async def inside() -> None:
        async with opened(model, folder) as registry:
            chunks = ChunkRules(64, 0)
            await test(registry, await registry.create("main", chunks, registry.models.default))

    asyncio.run(asyncio.wait_for(inside(), PATIENCE_S))


def overtake(
    patch: pytest.MonkeyPatch, what: Callable[[], Awaitable[object]], module: ModuleType
) -> None:
    """Do something else while the next write embeds its documents."""
    real = module.embed_chunks

    async def embed_chunks(chunked: Sequence[Chunked], engine: Engine) -> Vectors:
        patch.setattr(module, "embed_chunks", real)
        await what()
        vectors: Vectors = await real(chunked, engine)
        return vectors

    patch.setattr(module, "embed_chunks", embed_chunks)


async def check_stored(live: LiveCollection, *documents: Document) -> None:
    """Check that exactly these are stored, and that each is found with its own vector."""
    stored = await live.read(lambda: live.collection.documents.get(live.collection.documents.ids()))
    assert stored == {document.id: document for document in documents}
    vectors = await asyncio.to_thread(
        live.engine.model.embed, [document.text for document in documents]
    )
    hits = await live.search([Query("dense", 1, vector) for vector in vectors])
    assert [(row[0].id, row[0].text) for row in hits] == [
        (each.id, each.text) for each in documents
    ]
    assert [row[0].score for row in hits] == pytest.approx([1] * len(documents), abs=1e-3)


@pytest.mark.parametrize("by", ["delete", "delete_where", "add"])
@pytest.mark.parametrize("with_vectors", [False, True])
def test_an_unchanged_document_that_another_write_takes_away_is_stored_again(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str, with_vectors: bool
) -> None:
    async def test(_: CollectionRegistry, live: LiveCollection) -> None:
        await live.add([X])
        other: dict[str, Callable[[], Awaitable[object]]] = {
            "delete": lambda: live.delete(["x"]),
            "delete_where": lambda: live.delete_where(parse({"$not": {"none": 1}})),
            "add": lambda: live.add([CHANGED_X]),
        }
        if with_vectors:
            # The long one is embedded here, the others come with their vectors.
            long = Document("long", "。".join(f"sentence {n} of a text" for n in range(60)))
            documents = [X, *OTHERS, long]
            vectors = toy_model.embed([document.text for document in documents])
            overtake(monkeypatch, other[by], batch_module)
            assert await live.add_with_vectors(documents, vectors) == 5
            assert await live.delete(["long"]) == 1
        else:
            overtake(monkeypatch, other[by], batch_module)
            assert await live.add([X, *OTHERS]) == 4
        await check_stored(live, X, *OTHERS)

    run(test, toy_model, tmp_path)


def test_writes_at_the_same_time_come_one_after_the_other(toy_model: Model, tmp_path: Path) -> None:
    documents = [Document(str(n), f"text {n}") for n in range(24)]

    async def test(_: CollectionRegistry, live: LiveCollection) -> None:
        adds = [live.add([document]) for document in documents]
        # Every write ends before the test does, also where one has failed.
        assert await asyncio.gather(*adds, return_exceptions=True) == [1] * 24
        deletes = [live.delete([str(n)]) for n in range(12)]
        assert await asyncio.gather(*deletes, return_exceptions=True) == [1] * 12
        await check_stored(live, *documents[12:])

    run(test, toy_model, tmp_path)


def test_a_document_that_another_write_stores_first_is_not_replaced(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(_: CollectionRegistry, live: LiveCollection) -> None:
        overtake(monkeypatch, lambda: live.add([CHANGED_X]), batch_module)
        with pytest.raises(AlreadyExists, match="'x'"):
            await live.add([X, *OTHERS], replace=False)
        await check_stored(live, CHANGED_X)

    run(test, toy_model, tmp_path)


def test_a_write_that_a_reindex_overtakes_follows_its_rules(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "。".join(f"sentence {n} of a text" for n in range(12))

    async def test(registry: CollectionRegistry, live: LiveCollection) -> None:
        await live.add(OTHERS)

        async def reindex() -> None:
            await (await registry.reindex("main", ChunkRules(16, 0), registry.models.default)).task

        overtake(monkeypatch, reindex, batch_module)
        vectors = np.ones((1, live.info.dimension), dtype=np.float32)
        assert await live.add_with_vectors([Document("long", text)], vectors) == 1
        assert live.info.chunks == ChunkRules(16, 0)
        n_chunks = len(live.collection.index) - len(OTHERS)
        await live.delete(["long"])
        await live.add([Document("again", text)])
        assert n_chunks == len(live.collection.index) - len(OTHERS) > 1, "split by the new rules"
        await live.delete(["again"])
        await check_stored(live, *OTHERS)

    run(test, toy_model, tmp_path)


def test_a_document_removed_or_replaced_while_its_page_is_copied_does_not_come_back(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(registry: CollectionRegistry, live: LiveCollection) -> None:
        await live.add([X, *OTHERS])

        async def write() -> None:
            await live.delete(["0"])
            await live.add([CHANGED_X])

        overtake(monkeypatch, write, reindexing_module)
        await (await registry.reindex("main", ChunkRules(32, 0), registry.models.default)).task
        assert live.info.chunks == ChunkRules(32, 0)
        await check_stored(live, CHANGED_X, *OTHERS[1:])
        words = Query("lexical", 9, words="server text")
        (hits,) = await live.search([words])
        assert sorted(hit.id for hit in hits) == ["1", "2", "x"]

    run(test, toy_model, tmp_path)
