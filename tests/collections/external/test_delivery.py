"""Delivery to a real Qdrant that is made to be away, to hang, or to refuse."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from server.clock import now
from server.collections.external import connection as connection_module
from server.collections.external.collection import ExternalCollection
from server.collections.external.connection import Connection
from server.collections.registry import CollectionRegistry
from server.config import Config
from server.databases.address import opened as database_at
from server.databases.address import parse
from server.databases.database import Entry, VectorDatabase
from server.errors import (
    AlreadyExists,
    DatabaseAway,
    DatabaseBusy,
    DatabaseRefused,
    OtherModel,
    StoreError,
)
from server.inference.model import Model
from server.inference.registry import ModelRegistry
from server.store.filters.tree import parse as filter_of
from server.store.folder import DataFolder
from server.store.records import Document, Info
from server.store.search import Query
from server.telemetry.metrics import Metrics

pytest.importorskip("qdrant_client", reason="the client of Qdrant is not installed")


class Faulty:
    """A real database, whose calls fail as the test asks: `fault` is called before each."""

    def __init__(self, database: VectorDatabase) -> None:
        self._database = database
        self.fault: Callable[[str, Sequence[Any]], None] = lambda name, arguments: None
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._database, name)
        if not callable(found):
            return found

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            if name != "close":
                self.fault(name, arguments)
            return found(*arguments)

        return call


def away(name: str, arguments: Sequence[Any]) -> None:
    raise DatabaseAway("connection refused", retry_after_s=1)


def well(name: str, arguments: Sequence[Any]) -> None:
    return


@asynccontextmanager
async def serving(
    model: Model, folder: Path, query_s: int = 10
) -> AsyncIterator[tuple[CollectionRegistry, Faulty]]:
    metrics, config = Metrics(), Config(lanes=1, query_s=query_s)
    models = ModelRegistry([model], config, metrics, asyncio.get_running_loop())
    database = Faulty(database_at(parse("main", f"qdrant:{folder / 'qdrant'}", {})))
    connection = Connection("main", database, query_s)
    registry = CollectionRegistry(
        DataFolder(folder / "data"), models, config, metrics, [connection]
    )
    try:
        yield registry, database
    finally:
        await registry.close()
        await asyncio.to_thread(models.close)


async def made(registry: CollectionRegistry, name: str = "far") -> ExternalCollection:
    manifest = registry.models.default.manifest
    return await registry.create_external(
        Info(name, manifest.fingerprint, manifest.dimension), "main"
    )


def documents(*ids: str, text: str = "墨池笔纸") -> list[Document]:
    return [Document(id, f"{text} {id}", None, {"id": id}) for id in ids]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


Test = Callable[[CollectionRegistry, Faulty], Coroutine[Any, Any, None]]


def run(test: Test, model: Model, folder: Path, **settings: Any) -> None:
    async def whole() -> None:
        async with serving(model, folder, **settings) as (registry, database):
            await test(registry, database)

    asyncio.run(whole())


def test_database_that_was_away_gets_every_write_in_order(toy_model: Model, tmp_path: Path) -> None:
    async def test(registry: CollectionRegistry, database: Faulty) -> None:
        far = await made(registry)
        assert await far.add(documents("a", "b")) == (2, False)
        database.fault = away
        assert await far.add(documents("b", "c", text="山川")) == (2, True)
        assert await far.delete(["a"]) == (1, True)
        assert await far.add(documents("c", text="春夏")) == (1, True)
        assert far.waiting.writes == 4
        assert (await far.warnings(None))[0].startswith("4 writes wait for vector database 'main'")
        with pytest.raises(DatabaseAway, match="'main' does not answer .*connection refused"):
            await far.count()
        assert await far.get("a") is None
        found = await far.get("c")
        assert found is not None and found.text == "春夏 c"
        with pytest.raises(DatabaseAway):
            await far.add(documents("z"), replace=False)
        database.fault = well
        await until(lambda: not far.waiting.writes)
        stored = await far.documents(["a", "b", "c"])
        assert {id: each.text for id, each in stored.items()} == {"b": "山川 b", "c": "春夏 c"}
        assert await far.count() == 2
        assert await far.warnings(None) == []

    run(test, toy_model, tmp_path)


def test_write_that_was_taken_and_not_removed_is_sent_again(
    toy_model: Model, tmp_path: Path
) -> None:
    async def test(registry: CollectionRegistry, database: Faulty) -> None:
        far = await made(registry)
        real, lost = far.outbox.remove, iter([True, False])

        def remove(batch: Any) -> None:
            if next(lost, False):
                raise DatabaseAway("the reply was lost", retry_after_s=1)
            real(batch)

        far.outbox.remove = remove  # type: ignore[method-assign]
        await far.add(documents("a", "b"))
        await until(lambda: not far.waiting.writes)
        assert database.calls.count("put") == 2
        assert await far.count() == 2

    run(test, toy_model, tmp_path)


def test_refused_write_stops_its_followers_until_it_is_set_aside(
    toy_model: Model, tmp_path: Path
) -> None:
    def refuse(name: str, arguments: Sequence[Any]) -> None:
        entries: Sequence[Entry] = arguments[1] if name == "put" else ()
        if any(entry.document.id == "bad" for entry in entries):
            raise DatabaseRefused("400: this document is too long")

    async def test(registry: CollectionRegistry, database: Faulty) -> None:
        far = await made(registry)
        database.fault = refuse
        assert await far.add(documents("a", "bad", "c")) == (3, True)
        await until(lambda: far.outbox.refusal is not None)
        # What stands before it is there; what follows waits.
        assert far.waiting.writes == 2
        assert set(await far.documents(["a"])) == {"a"}
        described = await far.description()
        assert described.refused is not None and "too long" in described.refused
        await far.retry()
        await until(lambda: database.calls.count("put") >= 5)
        assert far.waiting.writes == 2
        assert await far.set_aside() == "bad"
        await until(lambda: not far.waiting.writes)
        assert await far.count() == 2
        (aside,) = await far.writes_aside(10)
        assert aside.id == "bad" and aside.document is not None
        assert await far.forget_aside() == 1

    run(test, toy_model, tmp_path)


def test_database_that_hangs_takes_no_more_than_its_threads(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = threading.Event()

    def hang(name: str, arguments: Sequence[Any]) -> None:
        assert let_go.wait(20)

    monkeypatch.setattr(connection_module, "READERS", 2)

    async def test(registry: CollectionRegistry, database: Faulty) -> None:
        far = await made(registry)
        near = await registry.create("near", None, registry.models.default)
        await near.add(documents("a"))
        database.fault = hang
        try:
            async with asyncio.timeout(5):
                with pytest.raises(DatabaseAway, match="it did not answer in 1 s"):
                    await far.count()
                # Known by now, and said at once.
                with pytest.raises(DatabaseAway):
                    await far.count()
                assert await near.count() == 1
                assert (await far.add(documents("b"))).queued
        finally:
            let_go.set()
        database.fault = well
        await until(lambda: not far.waiting.writes)

    run(test, toy_model, tmp_path, query_s=1)


def test_call_that_no_thread_has_begun_is_not_made_after_its_answer(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = threading.Event()

    def hang(name: str, arguments: Sequence[Any]) -> None:
        assert let_go.wait(20)

    monkeypatch.setattr(connection_module, "READERS", 1)

    async def test(registry: CollectionRegistry, database: Faulty) -> None:
        far = await made(registry)
        await far.add(documents("a"))
        database.fault = hang
        try:
            counting = asyncio.ensure_future(far.count())
            await until(lambda: database.calls[-1] == "count")
            with pytest.raises(DatabaseAway, match="it did not answer in 1 s"):
                await registry.remove("far")
            with pytest.raises(DatabaseAway):
                await counting
        finally:
            let_go.set()
        database.fault = well
        far = registry.external.all()[0]
        # What is acknowledged after the failed removal stays.
        await until(lambda: not registry.external.connections["main"].circuit.wait_s(now()))
        assert await far.add(documents("b")) == (1, False)
        assert await far.count() == 2
        assert "drop" not in database.calls

    run(test, toy_model, tmp_path, query_s=1)


def test_collection_that_the_database_is_busy_with_leaves_the_others_alone(
    toy_model: Model, tmp_path: Path
) -> None:
    def busy(name: str, arguments: Sequence[Any]) -> None:
        if name == "put" and arguments[0].name == "inkwell_far":
            raise DatabaseBusy("a lock was not free in time", retry_after_s=1)

    async def test(registry: CollectionRegistry, database: Faulty) -> None:
        far, other = await made(registry), await made(registry, "other")
        database.fault = busy
        assert await far.add(documents("a")) == (1, True)
        for attempt in range(2):
            await until(lambda attempt=attempt: far.delivery.counts["retries"] > attempt)  # type: ignore[misc]
            assert await other.add(documents(str(attempt))) == (1, False)
            assert await other.count() == attempt + 1
            assert await far.count() == 0
        # Longer each time, and not once for each write.
        await far.add(documents("b"))
        assert far.delivery.counts["retries"] == 2
        database.fault = well
        await until(lambda: not far.waiting.writes)

    run(test, toy_model, tmp_path)


def test_write_that_is_being_sent_is_not_set_aside(toy_model: Model, tmp_path: Path) -> None:
    let_go = threading.Event()

    def refuse(name: str, arguments: Sequence[Any]) -> None:
        if name == "put":
            raise DatabaseRefused("500: no room")

    def hang(name: str, arguments: Sequence[Any]) -> None:
        if name == "put":
            assert let_go.wait(20)

    async def test(registry: CollectionRegistry, database: Faulty) -> None:
        far = await made(registry)
        database.fault = refuse
        await far.add(documents("a", "b", "c"))
        await until(lambda: far.outbox.refusal is not None)
        database.fault, n_calls = hang, len(database.calls)
        await far.retry()
        await until(lambda: "put" in database.calls[n_calls:])
        setting_aside = asyncio.ensure_future(far.set_aside())
        await asyncio.sleep(0.2)
        let_go.set()
        # It was taken at last.
        assert await setting_aside is None
        await until(lambda: not far.waiting.writes)
        assert await far.count() == 3
        assert await far.writes_aside(10) == []
        assert await far.add(documents("d")) == (1, False)

    run(test, toy_model, tmp_path)


def test_collection_that_is_there_is_attached(toy_model: Model, tmp_path: Path) -> None:
    async def first(registry: CollectionRegistry, database: Faulty) -> None:
        far = await made(registry)
        await far.add(documents("a", "b"))

    async def second(registry: CollectionRegistry, database: Faulty) -> None:
        far = await made(registry)
        assert await far.count() == 2
        assert await far.add(documents("a", "b")) == (0, False)
        with pytest.raises(AlreadyExists):
            await made(registry)

    run(first, toy_model, tmp_path)
    (tmp_path / "data").rename(tmp_path / "other")
    run(second, toy_model, tmp_path)


def test_collection_of_another_model_is_refused(toy_model: Model, tmp_path: Path) -> None:
    async def first(registry: CollectionRegistry, database: Faulty) -> None:
        await made(registry)
        manifest = registry.models.default.manifest
        other = Info("far", "0" * 16, manifest.dimension)
        await registry.remove("far")
        await registry.create_external(other, "main")

    async def second(registry: CollectionRegistry, database: Faulty) -> None:
        with pytest.raises(OtherModel, match="0000 with 32 numbers in vector database 'main'"):
            await made(registry)

    run(first, toy_model, tmp_path)
    (tmp_path / "data").rename(tmp_path / "other")
    run(second, toy_model, tmp_path)


def test_collection_that_was_dropped_elsewhere_is_said_to_be_gone(
    toy_model: Model, tmp_path: Path
) -> None:
    async def first(registry: CollectionRegistry, database: Faulty) -> None:
        far = await made(registry)
        await asyncio.to_thread(database.drop, far.outbox.record.there)

    async def second(registry: CollectionRegistry, database: Faulty) -> None:
        far = registry.external.all()[0]
        with pytest.raises(DatabaseRefused, match="is no longer there"):
            await far.count()
        with pytest.raises(DatabaseRefused, match="is no longer there"):
            await far.add(documents("a"))
        await registry.remove("far")
        assert registry.names == []

    run(first, toy_model, tmp_path)
    run(second, toy_model, tmp_path)


def test_collection_without_its_database_is_listed_as_damaged(
    toy_model: Model, tmp_path: Path
) -> None:
    async def first(registry: CollectionRegistry, database: Faulty) -> None:
        await made(registry)

    async def without() -> None:
        metrics, config = Metrics(), Config(lanes=1)
        models = ModelRegistry([toy_model], config, metrics, asyncio.get_running_loop())
        registry = CollectionRegistry(DataFolder(tmp_path / "data"), models, config, metrics)
        try:
            assert registry.damaged == ["far"]
            with pytest.raises(StoreError, match="--vector-database main=URI"):
                registry.readable("far")
            with pytest.raises(AlreadyExists):
                await registry.create("far", None, models.default)
        finally:
            await registry.close()
            await asyncio.to_thread(models.close)

    run(first, toy_model, tmp_path)
    asyncio.run(without())


def test_hybrid_search_says_that_words_are_missing(toy_model: Model, tmp_path: Path) -> None:
    def no_words(name: str, arguments: Sequence[Any]) -> None:
        if name in ("by_both", "by_words"):
            raise DatabaseRefused("sparse vectors are not available")

    async def test(registry: CollectionRegistry, database: Faulty) -> None:
        far = await made(registry)
        await far.add(documents("a", "b"))
        database.fault = no_words
        vector = (await far.vectors_of(["墨池"]))[0]
        query = Query("hybrid", 5, vector, "墨池")
        (hits,) = await far.search([query])
        assert {hit.id for hit in hits} == {"a", "b"}
        (said,) = hits.warnings  # type: ignore[attr-defined]
        assert "by meaning alone" in said and "not available" in said
        database.fault = away
        with pytest.raises(DatabaseAway):
            await far.search([query])

    run(test, toy_model, tmp_path)


def test_removal_by_filter_reaches_documents_that_wait(toy_model: Model, tmp_path: Path) -> None:
    let_go = threading.Event()

    def no_writes(name: str, arguments: Sequence[Any]) -> None:
        if name in ("put", "delete"):
            assert let_go.wait(20)

    async def test(registry: CollectionRegistry, database: Faulty) -> None:
        far = await made(registry)
        await far.add(documents("a", "b", "c"))
        database.fault = no_writes
        await far.add([Document("a", "another text", None, {"id": "kept"}), *documents("d")])
        chosen = filter_of({"id": {"$in": ["a", "b", "d"]}})
        outcome = await far.delete_where(chosen)
        assert outcome == (2, True)
        let_go.set()
        await until(lambda: not far.waiting.writes)
        assert set(await far.documents(["a", "b", "c", "d"])) == {"a", "c"}

    run(test, toy_model, tmp_path)


def test_two_requests_that_must_not_replace_store_one(toy_model: Model, tmp_path: Path) -> None:
    async def test(registry: CollectionRegistry, database: Faulty) -> None:
        far = await made(registry)
        found = await asyncio.gather(
            *(far.add(documents("a", text=text), replace=False) for text in ("墨池", "山川")),
            return_exceptions=True,
        )
        assert sum(isinstance(each, AlreadyExists) for each in found) == 1
        assert sum(each == (1, False) for each in found) == 1

    run(test, toy_model, tmp_path)


def test_damaged_write_stops_its_followers_until_it_is_set_aside(
    toy_model: Model, tmp_path: Path
) -> None:
    async def test(registry: CollectionRegistry, database: Faulty) -> None:
        far = await made(registry)
        database.fault = away
        await far.add(documents("a", "bad", "c"))
        with sqlite3.connect(far.outbox.path) as other:
            other.execute("UPDATE writes SET title = 'other' WHERE id = 'bad'")
        other.close()
        database.fault = well
        await until(lambda: far.outbox.refusal is not None)
        assert "'bad' is not what was written" in str(far.outbox.refusal)
        assert await far.set_aside() == "bad"
        await until(lambda: not far.waiting.writes)
        assert set(await far.documents(["a", "bad", "c"])) == {"a", "c"}
        (aside,) = await far.writes_aside(10)
        assert aside.document is None

    run(test, toy_model, tmp_path)
