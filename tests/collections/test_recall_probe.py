"""Recall is probed while the server is idle, and the result is a metric."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from server.collections import recall_probe as probing_module
from server.collections.metrics import CollectionMetrics
from server.collections.recall_probe import RecallProbe
from server.collections.registry import CollectionRegistry
from server.config import Config
from server.inference.model import Model
from server.inference.registry import ModelRegistry
from server.store.folder import DataFolder
from server.store.local_index import calibration
from server.store.local_index import fastscan as scan_module
from server.store.local_index import index as index_module
from server.store.local_index.fastscan_block import Block
from server.store.local_index.index import LocalIndex
from server.store.local_index.rows import Rows
from server.store.records import Document
from server.telemetry.metrics import Metrics
from tests.support.fakes import PATIENCE_S
from tests.support.toys import toy_texts

RECALL, PROBES = "inkwell_recall_at_10", "inkwell_recall_probe_seconds_count"
D = 32


def vectors(number: int, seed: int = 0) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal((number, D)).astype(np.float32)


@pytest.fixture
def coded(monkeypatch: pytest.MonkeyPatch) -> LocalIndex:
    """An index of few vectors that uses codes all the same."""
    monkeypatch.setattr(index_module, "SCAN_FROM", 1000)
    monkeypatch.setattr(scan_module, "DIRECT_ROWS", 100)
    labels = np.arange(4000, dtype=np.int64)
    return LocalIndex(D).plus(labels, vectors(4000)).compacted()


def test_probe_agrees_with_what_was_measured_at_compaction(coded: LocalIndex) -> None:
    measured = coded.stats().recall_at_10
    assert measured is not None
    probes = [coded.probed_recall(seed) for seed in range(8)]
    assert all(probe is not None and 0.9 <= probe <= 1 for probe in probes)
    assert abs(float(np.mean([probe or 0 for probe in probes])) - measured) < 0.03


def test_same_seed_asks_the_same_and_another_one_other_queries(coded: LocalIndex) -> None:
    scan = coded._scan
    assert scan is not None
    first, again, other = (calibration.Trial.of(scan, 16, seed).queries for seed in (1, 1, 2))
    assert (first == again).all() and not (first == other).all()
    assert first.shape[1] == D and 8 <= len(first) <= 16


def test_probe_sees_that_searches_find_too_little(coded: LocalIndex) -> None:
    scan = coded._scan
    assert scan is not None
    codes = scan.quantiser.coded(Rows.of(vectors(4000, seed=9)))
    (block,) = scan.blocks
    astray = Block.of(block.labels, block.rows, codes, block.alive)
    poor = replace(scan, blocks=(astray,), candidates=100)
    assert np.mean([calibration.probed(poor, seed) for seed in range(4)]) < 0.5


def test_index_that_compares_all_needs_no_probe() -> None:
    assert LocalIndex(D).plus(np.arange(5), vectors(5)).probed_recall(0) is None


# --- in a registry ---------------------------------------------------------------------------------


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Rounds follow each other without a pause."""
    monkeypatch.setattr(probing_module, "EVERY_S", 0)
    monkeypatch.setattr(probing_module, "LOOK_S", 0)
    yield


def test_round_probes_what_has_codes_and_waits_until_nothing_is_computed(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, soon: None
) -> None:
    monkeypatch.setattr(index_module, "SCAN_FROM", 500)

    async def test() -> None:
        metrics, config = Metrics(), Config(lanes=1)
        models = ModelRegistry([toy_model], config, metrics, asyncio.get_running_loop())
        registry = CollectionRegistry(DataFolder(tmp_path / "data"), models, config, metrics)
        metrics.registry.register(CollectionMetrics(registry.stats))
        large, small = [await registry.create(name, None, models.default) for name in ("a", "b")]
        texts = list(dict.fromkeys(toy_texts(900)))
        await large.add([Document(id=str(n), text=text) for n, text in enumerate(texts)])
        await small.add([Document(id="1", text="墨")])
        while large.collection.index.stats().kind != "fastscan":
            await asyncio.sleep(0)
        busy, looks = True, 0

        def idle() -> bool:
            nonlocal looks
            looks += 1
            return not busy and models.idle

        probing = RecallProbe(registry, metrics, idle)
        value = metrics.registry.get_sample_value
        while looks < 5:
            await asyncio.sleep(0)
        assert value(PROBES) == 0
        busy = False
        while not value(PROBES):
            await asyncio.sleep(0)
        await probing.close()
        recall = value(RECALL, {"collection": "a"})
        assert recall is not None and 0.9 <= recall <= 1
        assert value(RECALL, {"collection": "b"}) is None
        await registry.close()
        await asyncio.to_thread(models.close)

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_default_collection_that_is_gone_is_not_made_again_by_a_probe(
    toy_model: Model, tmp_path: Path
) -> None:
    async def test() -> None:
        metrics, config = Metrics(), Config(lanes=1)
        models = ModelRegistry([toy_model], config, metrics, asyncio.get_running_loop())
        registry = CollectionRegistry(DataFolder(tmp_path / "data"), models, config, metrics)
        assert not await registry.probe("default", 1)
        assert registry.names == []
        await registry.close()
        await asyncio.to_thread(models.close)

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_collection_that_fails_does_not_end_the_rounds(
    toy_model: Model, tmp_path: Path, soon: None, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        metrics, config = Metrics(), Config(lanes=1)
        models = ModelRegistry([toy_model], config, metrics, asyncio.get_running_loop())
        registry = CollectionRegistry(DataFolder(tmp_path / "data"), models, config, metrics)
        live, tried = await registry.create("a", None, models.default), 0

        async def probe(seed: int) -> bool:
            nonlocal tried
            tried += 1
            raise ArithmeticError

        live.probe = probe  # type: ignore[method-assign]
        probing = RecallProbe(registry, metrics, lambda: True)
        while tried < 3:
            await asyncio.sleep(0)
        await probing.close()
        await registry.close()
        await asyncio.to_thread(models.close)

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))
    assert "collection a was not probed" in caplog.text
