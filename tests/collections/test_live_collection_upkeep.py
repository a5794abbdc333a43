"""What a collection does once it is quiet: it compacts its index, and gives back disk and memory."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from server.collections import live_collection as live_module
from server.collections.live_collection import LiveCollection
from server.errors import StoreError
from server.inference.model import Model
from server.store import collection as collection_module
from server.store.local_index import index as index_module
from server.store.records import Document
from server.store.search import Query
from server.types import Vectors
from tests.collections.test_live_collection import run

SCAN_FROM, SPARE = 300, 20


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of few rows that is compacted, and a collection that is never quiet for long enough."""
    monkeypatch.setattr(index_module, "SCAN_FROM", SCAN_FROM)
    monkeypatch.setattr(index_module, "SPARE_ROWS", SPARE)
    monkeypatch.setattr(live_module, "QUIET_S", 1_000.0)


async def add(live: LiveCollection, begin: int, end: int) -> Vectors:
    """Store documents of these numbers with random vectors, and return the vectors."""
    random = np.random.default_rng(begin)
    vectors = random.standard_normal((end - begin, live.info.dimension), dtype=np.float32)
    await live.add_with_vectors([Document(str(n), "墨") for n in range(begin, end)], vectors)
    return vectors


async def compacted(live: LiveCollection) -> None:
    assert live._compacting is not None
    await asyncio.wait([live._compacting])
    # The task's own callback comes after this one.
    await asyncio.sleep(0)
    assert live._compacting is None


def test_compaction_waits_until_no_document_is_written(toy_model: Model, tmp_path: Path) -> None:
    async def test(live: LiveCollection) -> None:
        await add(live, 0, SCAN_FROM - 1)
        assert live._compacting is None and live._quiet is None, "too few to be compacted"
        await add(live, SCAN_FROM - 1, SCAN_FROM + 50)
        await compacted(live)
        assert live.collection.index.stats().kind == "fastscan" and live._quiet is None
        await add(live, 1_000, 1_000 + SPARE)
        first, tidying = live._quiet, live._tidying
        assert first is not None and not first.cancelled()
        assert tidying is not None and not tidying.cancelled()
        await add(live, 2_000, 2_001)
        assert first.cancelled() and tidying.cancelled(), "each write begins the wait again"
        assert live._quiet is not None and not live._quiet.cancelled()
        assert live._tidying is not None and not live._tidying.cancelled()
        assert live._compacting is None
        live._start_compacting()
        await compacted(live)
        assert live.collection.index.stats().tail_rows == 0

    run(test, toy_model, tmp_path)


def test_a_collection_that_ends_begins_nothing_until_it_stays(
    toy_model: Model, tmp_path: Path
) -> None:
    async def test(live: LiveCollection) -> None:
        await add(live, 0, SCAN_FROM)
        await compacted(live)
        await add(live, 1_000, 1_000 + SPARE)
        quiet, tidying = live._quiet, live._tidying
        assert quiet is not None and tidying is not None
        await live.settled()
        assert quiet.cancelled() and tidying.cancelled()
        await add(live, 2_000, 2_001)
        assert live._quiet is None and live._tidying is tidying
        live.gone = True
        live.stay()
        assert not live.gone
        assert live._quiet is not None and not live._quiet.cancelled()
        await add(live, 3_000, 3_001)
        assert live._tidying is not tidying

    run(test, toy_model, tmp_path)


def test_a_compaction_that_fails_is_logged_and_the_collection_serves_on(
    toy_model: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> object:
        raise ArithmeticError("broken")

    monkeypatch.setattr(index_module.LocalIndex, "compacted", broken)

    async def test(live: LiveCollection) -> None:
        vectors = await add(live, 0, SCAN_FROM)
        await compacted(live)
        (record,) = caplog.records
        assert record.getMessage() == "the index was not compacted"
        assert record.exc_info is not None and "broken" in str(record.exc_info[1])
        query = Query("dense", 1, vectors[7])
        ((hit,),) = await live.search([query])
        assert hit.id == "7" and hit.score == pytest.approx(1.0, abs=1e-5)

    run(test, toy_model, tmp_path)


def test_only_a_large_log_is_shortened(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back: list[None] = []
    monkeypatch.setattr(collection_module, "give_back", lambda: given_back.append(None))

    async def test(live: LiveCollection) -> None:
        await add(live, 0, 30)
        size = live.stats().wal_bytes
        assert size > 0
        monkeypatch.setattr(collection_module, "LARGE_LOG_BYTES", size)
        await live._tidy()
        assert live.stats().wal_bytes == size and given_back == []
        monkeypatch.setattr(collection_module, "LARGE_LOG_BYTES", size - 1)
        live._ending = True
        await live._tidy()
        live._ending, live.gone = False, True
        await live._tidy()
        assert live.stats().wal_bytes == size and given_back == [], "its files may be gone"
        live.gone = False
        await live._tidy()
        assert live.stats().wal_bytes == 0 and given_back == [None]

    run(test, toy_model, tmp_path)


def test_a_log_that_cannot_be_shortened_is_logged(
    toy_model: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse() -> None:
        raise StoreError("{path}: the disk failed", path=tmp_path)

    monkeypatch.setattr(collection_module, "LARGE_LOG_BYTES", 0)

    async def test(live: LiveCollection) -> None:
        await add(live, 0, 3)
        monkeypatch.setattr(live.collection.documents.database, "shorten_log", refuse)
        await live._tidy()
        assert "the log of collection default was not shortened" in caplog.text
        assert await live.count() == 3

    run(test, toy_model, tmp_path)
