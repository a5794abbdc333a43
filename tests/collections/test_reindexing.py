"""Reindexing copies every document, continues what was interrupted, and leaves nothing behind."""

import asyncio
import errno
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from server.collections import reindexing
from server.collections.chunk_embedding import Chunked
from server.collections.registry import CollectionRegistry
from server.collections.reindexing import Reindexing
from server.errors import CollectionNotFound, DiskFull, Overloaded, StoreDamaged, StoreError
from server.inference.engine import Engine
from server.inference.model import Model
from server.store.folder import COPIED, DataFolder
from server.store.folder_layout import FolderLayout
from server.store.records import ChunkRules, Document
from server.store.search import Query
from server.types import Vectors
from tests.support.fakes import PATIENCE_S
from tests.support.registries import opened
from tests.support.toys import toy_texts

NAME = "default"


@pytest.fixture(autouse=True)
def small_pages() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reindexing, "PAGE_DOCUMENTS", 4)
        yield


def documents(number: int, seed: int = 0) -> list[Document]:
    return [Document(f"d{place}", text) for place, text in enumerate(toy_texts(number, seed=seed))]


def run(test: Callable[[CollectionRegistry], Awaitable[None]], model: Model, data: Path) -> None:
    async def inside() -> None:
        async with opened(model, data) as registry:
            await test(registry)

    asyncio.run(asyncio.wait_for(inside(), PATIENCE_S))


async def begin(registry: CollectionRegistry, chunks: ChunkRules | None = None) -> Reindexing:
    return await registry.reindex(NAME, chunks, registry.models.default)


async def interrupt(registry: CollectionRegistry, chunks: ChunkRules | None = None) -> None:
    """Begin to reindex, and stop after the first page."""
    running = await begin(registry, chunks)
    while not running.done:
        await asyncio.sleep(0)
    running.task.cancel()
    await asyncio.wait([running.task])
    assert running.task.cancelled() and running.done < running.total


async def check_holds(
    registry: CollectionRegistry, model: Model, expected: Sequence[Document]
) -> None:
    """Check that exactly these documents are stored, each with the vector of its text."""
    live = await registry.writable(NAME)
    stored = {document.id: document for _, document in await live.page(0, 1000)}
    assert stored == {document.id: document for document in expected}
    vectors = model.embed([document.text for document in expected])
    found = await live.search([Query("dense", 1, vector) for vector in vectors])
    assert [hits[0].text for hits in found] == [document.text for document in expected]
    assert [hits[0].score for hits in found] == pytest.approx([1.0] * len(expected), abs=1e-4)


def left(data: Path) -> list[str]:
    return sorted(path.name for path in (data / "collections").iterdir())


def test_interrupted_run_continues_only_with_the_same_chunks(
    toy_model: Model, tmp_path: Path
) -> None:
    rules = ChunkRules(10, 0)

    async def test(registry: CollectionRegistry) -> None:
        live = await registry.writable(NAME)
        await live.add([Document("long", "".join(toy_texts(3))), *documents(10)])
        await interrupt(registry, rules)
        again = await begin(registry, rules)
        await again.task
        assert again.done < again.total
        by_ten = len(live.collection.index)
        await interrupt(registry, ChunkRules(20, 0))
        other = await begin(registry, rules)
        await other.task
        assert other.done == other.total == 11, "all over again"
        assert live.collection.info.chunks == rules and len(live.collection.index) == by_ten

    run(test, toy_model, tmp_path)
    assert left(tmp_path) == [NAME]


def test_collection_created_again_gets_nothing_of_the_old_ones_interrupted_run(
    toy_model: Model, tmp_path: Path
) -> None:
    new = documents(6, seed=1)

    async def before(registry: CollectionRegistry) -> None:
        await (await registry.writable(NAME)).add(documents(10))
        await interrupt(registry)
        assert len(left(tmp_path)) == 2
        await registry.remove(NAME)
        assert left(tmp_path) == []
        await (await registry.writable(NAME)).add(new)

    async def after(registry: CollectionRegistry) -> None:
        await (await begin(registry)).task
        await check_holds(registry, toy_model, new)

    run(before, toy_model, tmp_path)
    run(after, toy_model, tmp_path)


def test_run_ends_with_exactly_the_documents_of_the_collection_whatever_the_successor_held(
    toy_model: Model, tmp_path: Path
) -> None:
    stored = documents(6)

    async def test(registry: CollectionRegistry) -> None:
        live = await registry.writable(NAME)
        await live.add(stored)
        await interrupt(registry)
        # As after an older copy of the database was put back: more is noted than there is.
        (path,) = FolderLayout(tmp_path).successors(NAME)
        with closing(sqlite3.connect(path / "documents.sqlite3")) as database, database:
            database.execute("UPDATE meta SET value = '99' WHERE key = ?", (COPIED,))
        stored[0] = Document("d0", stored[0].text, None, {"changed": True})
        live.collection.add(stored[:1], toy_model.embed([stored[0].text]))
        live.collection.delete(["d1"])
        del stored[1]
        await (await begin(registry)).task
        await check_holds(registry, toy_model, stored)

    run(test, toy_model, tmp_path)


class Held:
    """Holds a call after its work is done, until `go`; another thread makes the call."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call, self._entered, self._may_go = call, threading.Event(), threading.Event()

    def __call__(self, *arguments: Any) -> Any:
        found = self._call(*arguments)
        self._entered.set()
        assert self._may_go.wait(PATIENCE_S)
        return found

    async def entered(self) -> None:
        assert await asyncio.to_thread(self._entered.wait, PATIENCE_S)

    def go(self) -> None:
        self._may_go.set()


async def waits(task: asyncio.Task[Any]) -> bool:
    """Return whether a task is still not done when it has had time for it."""
    await asyncio.wait([task], timeout=0.1)
    return not task.done()


def test_write_waits_while_the_successor_is_compared_and_is_not_lost(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = documents(6)
    compare = Held(reindexing.forget_deleted)
    monkeypatch.setattr(reindexing, "forget_deleted", compare)

    async def test(registry: CollectionRegistry) -> None:
        live = await registry.writable(NAME)
        await live.add(stored)
        running = await begin(registry)
        await compare.entered()
        deleting = asyncio.ensure_future(live.delete(["d1"]))
        held_up = await waits(deleting)
        compare.go()
        await asyncio.gather(running.task, deleting)
        assert held_up
        await check_holds(registry, toy_model, [stored[0], *stored[2:]])

    run(test, toy_model, tmp_path)


def test_search_waits_while_the_successor_takes_its_place(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = documents(6)
    replace_collection = Held(DataFolder.replace)
    monkeypatch.setattr(
        DataFolder, "replace", lambda folder, successor: replace_collection(folder, successor)
    )

    async def test(registry: CollectionRegistry) -> None:
        live = await registry.writable(NAME)
        await live.add(stored)
        running = await begin(registry)
        await replace_collection.entered()
        query = Query("dense", 1, toy_model.embed([stored[0].text])[0])
        searching = asyncio.ensure_future(live.search([query]))
        held_up = await waits(searching)
        replace_collection.go()
        await running.task
        assert [hits[0].id for hits in await searching] == ["d0"] and held_up

    run(test, toy_model, tmp_path)


def test_document_deleted_while_its_page_is_copied_is_not_brought_back(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = documents(6)
    copied = asyncio.Event()
    embed = reindexing._patiently

    async def later(chunked: Sequence[Chunked], engine: Engine) -> Vectors:
        await copied.wait()
        return await embed(chunked, engine)

    monkeypatch.setattr(reindexing, "_patiently", later)

    async def test(registry: CollectionRegistry) -> None:
        live = await registry.writable(NAME)
        await live.add(stored)
        running = await begin(registry)
        while running._successor is None:
            await asyncio.sleep(0.001)
        await live.page(0, 1)
        changed = Document("d2", stored[2].text, None, {"changed": True})
        await live.delete(["d1"])
        await live.add([changed])
        copied.set()
        await running.task
        await check_holds(registry, toy_model, [stored[0], changed, *stored[3:]])

    run(test, toy_model, tmp_path)


def test_overloaded_engine_is_asked_again_when_it_says(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, slept = documents(6), list[float]()

    async def sleep(seconds: float) -> None:
        monkeypatch.undo()
        slept.append(seconds)

    async def refuse(*_: object) -> Vectors:
        # Only once.
        monkeypatch.undo()
        monkeypatch.setattr(asyncio, "sleep", sleep)
        raise Overloaded("the queue is full", retry_after_s=7)

    async def test(registry: CollectionRegistry) -> None:
        await (await registry.writable(NAME)).add(stored)
        monkeypatch.setattr(reindexing, "embed_chunks", refuse)
        running = await begin(registry)
        while not slept and not running.task.done():
            await asyncio.wait([running.task], timeout=0.01)
        monkeypatch.undo()
        await running.task
        assert slept == [7]
        await check_holds(registry, toy_model, stored)

    run(test, toy_model, tmp_path)


def test_disk_that_is_full_at_the_swap_loses_the_successor_only(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = documents(6)

    async def test(registry: CollectionRegistry) -> None:
        await (await registry.writable(NAME)).add(stored)
        await fail_once(registry, monkeypatch, errno.ENOSPC, "No space left on device")
        assert left(tmp_path) == [NAME]
        await check_holds(registry, toy_model, stored)

    run(test, toy_model, tmp_path)


def test_full_disk_ends_the_run_frees_its_space_and_leaves_the_collection(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filler = {"filler": "x" * 50_000}
    stored = [replace(document, metadata=filler) for document in documents(20)]

    async def test(registry: CollectionRegistry) -> None:
        live = await registry.writable(NAME)
        await live.add(stored)
        for fill in (without_pages, without_room):
            running = await begin(registry)
            while not running.done:
                await asyncio.sleep(0)
            fill(running)
            with pytest.raises(DiskFull):
                await running.task
            assert left(tmp_path) == [NAME]
            assert "free some space" in registry.unfinished[NAME]
            monkeypatch.undo()
        stored.append(Document("later", "later"))
        await live.add(stored[-1:])
        await check_holds(registry, toy_model, stored)
        await registry.remove(NAME)
        assert left(tmp_path) == []

    def without_pages(running: Reindexing) -> None:
        # SQLite's own limit on its file ends a write as a full disk does.
        assert running._successor is not None
        running._successor.documents.database.writer.execute("PRAGMA max_page_count = 1")

    def without_room(_: Reindexing) -> None:
        monkeypatch.setattr("server.store.folder.MIN_FREE_BYTES", 1 << 60)

    run(test, toy_model, tmp_path)


def test_collection_whose_replacement_fails_serves_on_and_the_next_run_is_short(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = documents(10)

    async def test(registry: CollectionRegistry) -> None:
        live = await registry.writable(NAME)
        await live.add(stored)
        await fail_once(registry, monkeypatch)
        stored.append(Document("later", "later"))
        await live.add(stored[-1:])
        await check_holds(registry, toy_model, stored)
        again = await begin(registry)
        await again.task
        assert again.done == 1
        await check_holds(registry, toy_model, stored)

    run(test, toy_model, tmp_path)


async def fail_once(
    registry: CollectionRegistry,
    patch: pytest.MonkeyPatch,
    code: int = errno.EMFILE,
    said: str = "Too many open files",
) -> None:
    """Reindex while the new collection cannot be opened, for this error of the system."""

    def refuse(*_: object) -> None:
        patch.undo()
        raise OSError(code, said)

    running = await begin(registry)
    while not running.done:
        await asyncio.sleep(0)
    patch.setattr("server.store.folder.Collection", refuse)
    with pytest.raises(StoreError, match=said):
        await running.task


def test_collection_that_cannot_be_opened_again_is_reported_as_such(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(registry: CollectionRegistry) -> None:
        live = await registry.writable(NAME)
        await live.add(documents(6))
        running = await begin(registry)
        while not running.done:
            await asyncio.sleep(0)

        def refuse(*_: object) -> None:
            raise StoreDamaged("none can be opened")

        monkeypatch.setattr("server.store.folder.Collection", refuse)
        with pytest.raises(StoreDamaged):
            await running.task
        with pytest.raises(StoreDamaged, match="none can be opened"):
            registry.get(NAME)
        with pytest.raises(CollectionNotFound):
            await live.count()
        assert registry.damaged == [NAME] and registry.names == []

    run(test, toy_model, tmp_path)
    monkeypatch.undo()
    with closing(DataFolder(tmp_path)) as folder:
        assert folder.collections[NAME].count == 6


def test_collection_whose_removal_fails_is_served_written_and_compacted_as_before(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = documents(6)

    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    async def test(registry: CollectionRegistry) -> None:
        live = await registry.writable(NAME)
        await live.add(stored)
        monkeypatch.setattr(FolderLayout, "remove", refuse)
        with pytest.raises(StoreError, match="Input/output error"):
            await registry.remove(NAME)
        monkeypatch.undo()
        assert registry.get(NAME) is live
        stored.append(Document("later", "later"))
        await live.add(stored[-1:])
        await check_holds(registry, toy_model, stored)
        monkeypatch.setattr(type(live.collection.index), "compaction_due", True)
        live.compact_when_due()
        assert live._compacting is not None
        monkeypatch.undo()
        await registry.remove(NAME)
        assert left(tmp_path) == []

    run(test, toy_model, tmp_path)


def test_run_that_is_stopped_while_it_opens_its_successor_closes_it(
    toy_model: Model, tmp_path: Path
) -> None:
    async def test(registry: CollectionRegistry) -> None:
        await (await registry.writable(NAME)).add(documents(6))
        running = await begin(registry)
        await asyncio.sleep(0)
        running.task.cancel()
        await asyncio.wait([running.task])
        assert running._successor is not None
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            running._successor.documents.database.writer.execute("SELECT 1")

    run(test, toy_model, tmp_path)


def test_every_read_that_waits_for_the_swap_reads_the_new_collection(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(registry: CollectionRegistry) -> None:
        live = await registry.writable(NAME)
        await live.add(documents(6))
        swapping, gate = asyncio.Event(), threading.Event()
        loop, replaced = asyncio.get_running_loop(), DataFolder.replace

        def held(folder: DataFolder, successor: Any) -> Any:
            loop.call_soon_threadsafe(swapping.set)
            gate.wait()
            return replaced(folder, successor)

        monkeypatch.setattr(DataFolder, "replace", held)
        running = await begin(registry)
        await swapping.wait()
        reads: list[Awaitable[Any]] = [
            live.get("d5"),
            live.page(0, 9),
            live.page_within(0, 9, None),
            live.count(),
            live.search([Query("lexical", 9, None, documents(6)[5].text)]),
            live.description(),
        ]
        waiting = [asyncio.ensure_future(read) for read in reads]
        await asyncio.sleep(0.02)
        gate.set()
        await running.task
        found, page, (within, _), count, (hits,), about = await asyncio.gather(*waiting)
        assert found == documents(6)[5]
        assert len(page) == len(within) == count == about.documents == 6
        assert hits[0].id == "d5"

    run(test, toy_model, tmp_path)
