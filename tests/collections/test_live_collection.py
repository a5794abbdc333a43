"""A collection on the event loop: calls at the same time, and calls that fail."""

import ast
import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from server.collections import live_collection as live_module
from server.collections.live_collection import LiveCollection
from server.collections.read_write_gate import ReadWriteGate
from server.collections.registry import CollectionRegistry
from server.config import Config
from server.errors import AlreadyExists, EmptyInput, InferenceFailed, OtherModel
from server.inference.model import Model
from server.inference.registry import ModelRegistry
from server.store import collection as collection_module
from server.store.collection import SNAPSHOT_FILE, Collection
from server.store.filters.tree import parse
from server.store.folder import DataFolder
from server.store.local_index import index as index_module
from server.store.records import Document
from server.store.search import Hit, Query, search
from server.telemetry.metrics import Metrics
from tests.support.fakes import PATIENCE_S, Broken, Gated, with_parts
from tests.support.registries import opened
from tests.support.toy_index import NumpyIndex
from tests.support.toys import toy_texts

SERVER = Path(__file__).parents[2] / "server"


def run(
    test: Callable[[LiveCollection], Awaitable[None]],
    model: Model,
    folder: Path,
    name: str = "default",
) -> None:
    async def inside() -> None:
        async with opened(model, folder) as registry:
            await test(await registry.writable(name))

    asyncio.run(asyncio.wait_for(inside(), PATIENCE_S))


def documents(number: int, seed: int = 0) -> list[Document]:
    return [Document(str(n), text) for n, text in enumerate(toy_texts(number, seed=seed))]


def query(vector: Any, top_k: int = 1) -> Query:
    return Query("dense", top_k, vector)


def test_everything_stored_is_found_under_its_own_vector(toy_model: Model, tmp_path: Path) -> None:
    stored = documents(300)

    async def test(live: LiveCollection) -> None:
        assert await live.add(stored) == 300
        vectors = toy_model.embed([document.text for document in stored])
        hits = await live.search([query(vector) for vector in vectors])
        assert [row[0].score for row in hits] == pytest.approx([1.0] * 300, abs=1e-4)

    run(test, toy_model, tmp_path)
    run(still_there(stored), toy_model, tmp_path)


def still_there(stored: Sequence[Document]) -> Callable[[LiveCollection], Awaitable[None]]:
    async def test(live: LiveCollection) -> None:
        assert await live.add(stored) == 0, "all of it is there after reopening"
        assert live.collection.count == len(stored)

    return test


def test_writes_and_searches_side_by_side_see_whole_states(
    toy_model: Model, tmp_path: Path
) -> None:
    texts = toy_texts(8, seed=3)

    async def test(live: LiveCollection) -> None:
        async def write() -> None:
            for version in range(12):
                batch = [
                    Document(str(n), text, metadata={"version": version})
                    for n, text in enumerate(texts)
                ]
                await live.add(batch)

        await live.add([Document(str(n), text) for n, text in enumerate(texts)])
        vector = toy_model.embed(texts[:1])[0]
        writing = asyncio.ensure_future(write())
        seen = []
        while not writing.done():
            (hits,) = await live.search([query(vector, 20)])
            seen.append((len(hits), len({str(hit.metadata) for hit in hits})))
        await writing
        assert set(seen) == {(8, 1)}

    run(test, toy_model, tmp_path)


def test_searches_that_wait_run_together(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate = threading.Event(), threading.Event()
    sizes: list[int] = []

    def slow(collection: Collection, queries: Sequence[Query]) -> list[list[Hit]]:
        begun.set()
        assert gate.wait(PATIENCE_S)
        sizes.append(len(queries))
        return search(collection, queries)

    async def test(live: LiveCollection) -> None:
        await live.add(documents(5))
        monkeypatch.setattr(live_module, "search", slow)
        vectors = toy_model.embed([document.text for document in documents(5)])
        # Two, because one alone would be answered on the loop.
        tasks = [asyncio.ensure_future(live.search([query(vectors[0]), query(vectors[0])]))]
        await asyncio.to_thread(begun.wait, PATIENCE_S)
        tasks += [asyncio.ensure_future(live.search([query(vector)])) for vector in vectors]
        await asyncio.sleep(0)
        gate.set()
        found = [(await task)[0][0].id for task in tasks]
        assert found == ["0", "0", "1", "2", "3", "4"]
        assert sizes == [2, 5]

    run(test, toy_model, tmp_path)


def test_the_index_is_put_in_order_when_it_must_be_and_when_it_is_quiet(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "SCAN_FROM", 600)
    monkeypatch.setattr(index_module, "TAIL_ROWS", 400)
    monkeypatch.setattr(index_module, "SPARE_ROWS", 20)
    monkeypatch.setattr(live_module, "QUIET_S", 0.01)
    texts = toy_texts(900, seed=8)
    vectors = toy_model.embed(texts)

    async def test(live: LiveCollection) -> None:
        def stored(begin: int, end: int) -> list[Document]:
            return [Document(str(n), texts[n]) for n in range(begin, end)]

        await live.add(stored(0, 700))
        while live.collection.index.stats().kind != "fastscan":
            await asyncio.sleep(0.001)
        await live.add(stored(700, 730))
        while live.collection.index.stats().tail_rows:
            await asyncio.sleep(0.001)
        # What is written while it is compacted is in it too, and what is deleted is not.
        await live.add(stored(730, 900))
        await live.delete([str(n) for n in range(100)])
        hits = await live.search([query(vector) for vector in vectors])
        right = [row[0].id == str(n) for n, row in enumerate(hits)]
        assert not any(right[:100])
        assert sum(right[100:]) >= 0.97 * 800
        assert len(live.collection.index) == live.collection.count == 800

    run(test, toy_model, tmp_path)


def test_compaction_of_a_collection_that_is_replaced_meanwhile_is_dropped(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(index_module, "SCAN_FROM", 300)
    entered, release = threading.Event(), threading.Event()
    real = index_module.LocalIndex.compacted

    def held(index: index_module.LocalIndex, queries: object) -> index_module.LocalIndex:
        entered.set()
        assert release.wait(PATIENCE_S)
        return real(index)

    async def test() -> None:
        async with opened(toy_model, tmp_path) as registry:
            live = await registry.writable("default")
            monkeypatch.setattr(index_module.LocalIndex, "compacted", held)
            await live.add(documents(400))
            await asyncio.to_thread(entered.wait, PATIENCE_S)
            compacting = live._compacting
            assert compacting is not None
            await (await registry.reindex("default", None, registry.models.default)).task
            snapshot = tmp_path / "collections" / "default" / SNAPSHOT_FILE
            written = snapshot.stat().st_mtime_ns
            release.set()
            await compacting
            assert live.collection.count == len(live.collection.index) == 400
            # It has not put its snapshot in the place of the other's.
            assert snapshot.stat().st_mtime_ns == written

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))
    assert caplog.records == []


def test_a_search_that_fails_fails_alone(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def touchy(collection: Collection, queries: Sequence[Query]) -> list[list[Hit]]:
        if any(each.top_k == 13 for each in queries):
            raise ArithmeticError("thirteen")
        return search(collection, queries)

    async def test(live: LiveCollection) -> None:
        await live.add(documents(3))
        monkeypatch.setattr(live_module, "search", touchy)
        vector = toy_model.embed([documents(1)[0].text])[0]
        good, bad, fine = await asyncio.gather(
            *(live.search([query(vector, k)]) for k in (1, 13, 2)), return_exceptions=True
        )
        assert isinstance(bad, ArithmeticError)
        assert isinstance(good, list) and isinstance(fine, list)
        assert (len(good[0]), len(fine[0])) == (1, 2)

    run(test, toy_model, tmp_path)


def test_a_write_whose_caller_leaves_is_whole_or_not_there(
    toy_model: Model, tmp_path: Path
) -> None:
    gate = Gated(toy_model.encoder)

    async def test(live: LiveCollection) -> None:
        task = asyncio.ensure_future(live.add(documents(20)))
        await asyncio.to_thread(gate.entered.wait, PATIENCE_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open()
        assert live.collection.count == 0
        assert await live.add(documents(2)) == 2

    run(test, with_parts(toy_model, encoder=gate, wide=None), tmp_path)


def test_a_failed_embedding_stores_nothing(toy_model: Model, tmp_path: Path) -> None:
    async def test(live: LiveCollection) -> None:
        with pytest.raises(InferenceFailed):
            await live.add(documents(600))
        assert live.collection.count == 0

    run(test, with_parts(toy_model, encoder=Broken(), wide=None), tmp_path)


def test_another_model_is_refused_for_what_needs_its_vectors(
    toy_model: Model, tmp_path: Path
) -> None:
    async def fill(live: LiveCollection) -> None:
        await live.add([Document("a", "墨池 search server")])

    async def test(live: LiveCollection) -> None:
        for refused in (live.add(documents(1)), live.vectors_of(["墨"])):
            with pytest.raises(OtherModel, match="`reindex`") as refusal:
                await refused
            assert toy_model.manifest.fingerprint in refusal.value.message
            assert "other" in refusal.value.message
        words = Query("lexical", 3, words="search")
        ready = query(toy_model.embed(["墨池 search server"])[0])
        assert [[hit.id for hit in row] for row in await live.search([words, ready])] == [["a"]] * 2
        assert await live.delete(["a"]) == 1

    run(fill, toy_model, tmp_path)
    manifest = msgspec.structs.replace(toy_model.manifest, fingerprint="other")
    run(test, with_parts(toy_model, manifest=manifest), tmp_path)


def test_a_collection_of_another_model_serves_again_once_it_is_reindexed(
    toy_model: Model, tmp_path: Path
) -> None:
    stored = documents(700)

    async def fill(live: LiveCollection) -> None:
        await live.add(stored)

    async def reindexed() -> None:
        manifest = msgspec.structs.replace(toy_model.manifest, fingerprint="other")
        async with opened(with_parts(toy_model, manifest=manifest), tmp_path) as registry:
            live = await registry.writable("default")
            running = await registry.reindex("default", None, registry.models.default)
            with pytest.raises(AlreadyExists):
                await registry.reindex("default", None, registry.models.default)
            with pytest.raises(AlreadyExists, match="reindexed"):
                await registry.remove("default")
            await running.task
            assert (running.done, running.total) == (700, 700)
            assert live.collection.info.fingerprint == "other"
            (hits,) = await live.search([query((await live.vectors_of([stored[5].text]))[0])])
            assert len(hits) == 1
            assert live.collection.count == 700

    run(fill, toy_model, tmp_path)
    asyncio.run(asyncio.wait_for(reindexed(), PATIENCE_S))


def test_reindexing_that_is_interrupted_takes_up_where_it_stopped(
    toy_model: Model, tmp_path: Path
) -> None:
    async def fill(live: LiveCollection) -> None:
        await live.add(documents(600))

    async def test(stop: bool) -> None:
        async with opened(toy_model, tmp_path) as registry:
            running = await registry.reindex("default", None, registry.models.default)
            while stop and running.done < 256:
                await asyncio.sleep(0)
            if stop:
                return
            await running.task
            assert running.done <= 600 - 256
            assert (await registry.writable("default")).collection.count == 600
            assert (await registry.writable("default")).collection.info.chunks is None

    run(fill, toy_model, tmp_path)
    for stop in (True, False):
        asyncio.run(asyncio.wait_for(test(stop), PATIENCE_S))


def test_a_low_limit_for_requests_is_none_for_documents(toy_model: Model, tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(toy_model, tmp_path, max_texts=3) as registry:
            assert await (await registry.writable("default")).add(documents(20)) == 20

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_empty_texts_are_named(toy_model: Model, tmp_path: Path) -> None:
    async def test(live: LiveCollection) -> None:
        with pytest.raises(EmptyInput, match=r"documents\[1\]"):
            await live.add([Document("a", "x"), Document("b", "")])
        assert await live.add([Document("white", "  \n")]) == 1

    run(test, toy_model, tmp_path)


def test_a_very_long_document_is_stored_and_found(toy_model: Model, tmp_path: Path) -> None:
    text = "。".join(toy_texts(3000, seed=9))

    async def test(live: LiveCollection) -> None:
        await live.add([Document("long", text, "墨池")])
        labels = live.collection.documents.labels()
        parts = live.collection.documents.by_labels(labels)
        assert len(parts) > 500
        assert all(text[part.span.begin : part.span.end] == part.text for part in parts.values())
        assert np.isfinite(live.collection.documents.vectors(labels)).all()

    run(test, toy_model, tmp_path)


def test_gate_closes_when_all_have_left_and_lets_no_caller_in() -> None:
    async def test() -> None:
        gate, order = ReadWriteGate(), []

        async def visit(name: str) -> None:
            async with gate:
                order.append(name)
                await asyncio.sleep(0)

        async def close() -> None:
            async with gate.closed():
                order.append("closed")
                await asyncio.sleep(0)
                order.append("opened")

        async with gate:
            tasks = [asyncio.ensure_future(close())]
            await asyncio.sleep(0)
            tasks.append(asyncio.ensure_future(visit("late")))
            await asyncio.sleep(0)
            assert order == []
        await asyncio.gather(*tasks)
        assert order == ["closed", "opened", "late"]

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_live_collection_works_with_another_vector_index(toy_model: Model, tmp_path: Path) -> None:
    texts = toy_texts(30, seed=4)
    stored = [Document(str(n), text, metadata={"n": n}) for n, text in enumerate(texts)]

    async def test(fresh: bool) -> None:
        metrics, config = Metrics(), Config(lanes=1)
        models = ModelRegistry([toy_model], config, metrics, asyncio.get_running_loop())
        folder = DataFolder(tmp_path, make=NumpyIndex)
        registry = CollectionRegistry(folder, models, config, metrics)
        live = await registry.writable("default")
        if fresh:
            assert await live.add(stored) == 30
            assert await live.delete(["3"]) == 1
        (vector,) = toy_model.embed([texts[5]])
        late = parse({"n": {"$gte": 20}})
        near, filtered = await live.search(
            [query(vector, 40), Query("dense", 40, vector, filter=late)]
        )
        assert near[0].id == "5" and len(near) == 29
        assert {hit.id for hit in filtered} == {str(n) for n in range(20, 30)}
        described = await live.description()
        assert (described.documents, described.chunks) == (29, 29)
        assert described.index.kind == "numpy"
        await registry.close()
        await asyncio.to_thread(models.close)

    for fresh in (True, False):
        asyncio.run(asyncio.wait_for(test(fresh), PATIENCE_S))


def test_no_handler_or_command_reaches_through_a_live_collection() -> None:
    """Only `store` and `collections` know what a collection is made of."""
    reached = []
    for room in ("api", "cli", "doctor", "net"):
        for path in sorted((SERVER / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
                    pair = (node.value.attr, node.attr)
                    if pair[0] == "collection" or pair == ("documents", "database"):
                        reached.append(f"{path.relative_to(SERVER)}:{node.lineno} {pair}")
    assert reached == []


def test_a_large_write_leaves_no_log_once_it_is_quiet(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "QUIET_S", 0.05)
    monkeypatch.setattr(collection_module, "LARGE_LOG_BYTES", 10_000)

    async def test(live: LiveCollection) -> None:
        await live.add(documents(50))
        assert live.stats().wal_bytes > 10_000
        while live.stats().wal_bytes:
            await asyncio.sleep(0.01)
        assert await live.count() == 50

    run(test, toy_model, tmp_path)
