"""A scrape by Prometheus reads collections, disk, memory, and a bounded number of labels."""

import asyncio
import math
import os
import re
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.collections import metrics as collection_metrics
from server.collections.metrics import OTHERS, CollectionMetrics
from server.collections.registry import CollectionRegistry
from server.inference.model import Model
from server.store.records import CollectionStats
from server.telemetry.metrics import Metrics
from tests.support.clients import app_of, lifespan, run, serving, stateful
from tests.support.dialects import metric
from tests.support.fakes import PACKING, PATIENCE_S, Broken, with_parts

DOCUMENTS = [{"id": str(number), "text": f"墨池 {number}"} for number in range(7)]


def some(
    parts: int, recall: float | None = None, snapshot_s: float | None = None
) -> CollectionStats:
    return CollectionStats(parts, 10 * parts, 100, 50, 25, snapshot_s, 3, recall)


def shown(*found: tuple[str, CollectionStats]) -> str:
    metrics = Metrics()
    metrics.registry.register(CollectionMetrics(lambda: found))
    return metrics.render().decode()


def test_collection_is_told_with_its_files_and_its_memory(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await client.post("/documents", json={"documents": DOCUMENTS})
        page = (await client.get("/metrics")).text
        of = {"collection": "default"}
        assert metric(page, "parts", **of) == metric(page, "snapshot_behind_parts", **of) == 7
        assert metric(page, "index_bytes", **of) >= 7 * 4 * 32
        assert metric(page, "database_bytes", **of) > 0 < metric(page, "wal_bytes", **of)
        assert metric(page, "snapshot_bytes", **of) == 0
        assert "snapshot_timestamp_seconds{" not in page and "recall_at_10{" not in page
        assert 0 < metric(page, "disk_free_bytes") < metric(page, "disk_bytes")
        assert metric(page, "threads") >= 4 and metric(page, "ready") == 1
        assert metric(page, "memory_limit_bytes") > 0

    run(test, toy_model)


def test_collection_that_is_removed_is_told_no_more(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await client.post("/collections", json={"name": "laws"})
        assert 'collection="laws"' in (await client.get("/metrics")).text
        await client.delete("/collections/laws")
        assert 'collection="laws"' not in (await client.get("/metrics")).text

    run(test, toy_model)


def test_collections_beyond_the_bound_share_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection_metrics, "MAX_LABELLED", 2)
    found = [(f"c{number}", some(number, 0.9 + number / 100, number)) for number in range(5)]
    page = shown(*found)
    assert set(re.findall(r'collection="([^"]*)"', page)) == {"c0", "c1", OTHERS}
    assert metric(page, "parts", collection=OTHERS) == 2 + 3 + 4
    assert metric(page, "recall_at_10", collection=OTHERS) == 0.92
    assert metric(page, "snapshot_timestamp_seconds", collection=OTHERS) == 2


def test_what_no_collection_has_is_no_sample() -> None:
    page = shown(("a", some(1)))
    assert "# TYPE inkwell_recall_at_10 gauge" in page
    assert "inkwell_recall_at_10{" not in page and "\ninkwell_disk_bytes " not in page


def test_limits_are_not_added_up_over_processes() -> None:
    one = shown(("a", some(1)))
    whole = Metrics().render([one]).decode()
    assert metric(whole, "memory_limit_bytes") == metric(one, "memory_limit_bytes")
    assert metric(whole, "threads") > metric(one, "threads")
    assert metric(whole, "key_expiry_timestamp_seconds") == math.inf
    assert metric(whole, "parts", collection="a") == 1
    assert len(list(text_string_to_metric_families(whole))) > 40


def test_refusals_are_counted_by_their_code(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await client.post("/embed", json={"texts": []})
        await client.post("/v1/embeddings", json={"model": "none", "input": "墨"})
        await client.post("/embed", content=b"{}")
        page = (await client.get("/metrics")).text
        codes = ("empty_input", "model_not_found", "unsupported_media_type")
        assert [metric(page, "errors_total", code=code) for code in codes] == [1, 1, 1]

    run(test, toy_model)


def test_lanes_count_the_time_of_batches_that_failed_too(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        assert (await client.post("/embed", json={"texts": ["墨"]})).status_code == 500
        page = (await client.get("/metrics")).text
        assert metric(page, "lane_busy_seconds_total") > 0 == metric(page, "lanes_busy")

    run(test, with_parts(toy_model, encoder=Broken(), wide=None))


def test_limits_that_were_set_are_told(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        page = (await client.get("/metrics")).text
        assert metric(page, "batch_tokens_max") == 99
        assert metric(page, "queue_tokens_limit", kind="interactive") == 1234
        assert metric(page, "queue_tokens_limit", kind="bulk") == 5678

    run(test, toy_model, batch_tokens=99, interactive_queue_tokens=1234, bulk_queue_tokens=5678)


def test_loop_answers_while_a_page_waits_for_the_disk(toy_model: Model) -> None:
    async def test() -> None:
        app = app_of(toy_model, lanes=1)
        async with lifespan(app) as state:
            registry: CollectionRegistry = state["collections"]
            live = await registry.writable("default")
            asked, answered = threading.Event(), threading.Event()

            def slow() -> Any:
                asked.set()
                assert answered.wait(PATIENCE_S)
                return some(1)

            live.stats = slow  # type: ignore[method-assign]
            transport = httpx.ASGITransport(stateful(app, state))
            async with httpx.AsyncClient(transport=transport, base_url="http://inkwell") as client:
                page = asyncio.ensure_future(client.get("/metrics"))
                await asyncio.to_thread(asked.wait, PATIENCE_S)
                assert (await client.get("/health")).status_code == 200
                assert not page.done()
                answered.set()
                assert (await page).status_code == 200

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


# --- ready ----------------------------------------------------------------------------------------


async def check_not_ready(client: httpx.AsyncClient, *words: str) -> None:
    for path in ("/ready", "/metrics", "/health"):
        reply = await client.get(path)
        if path == "/ready":
            assert reply.status_code == 503 and int(reply.headers["retry-after"]) > 0
            error = reply.json()["error"]
            assert error["code"] == "not_ready"
            assert all(word in error["message"] for word in words)
        else:
            assert reply.status_code == 200
            assert path == "/health" or metric(reply.text, "ready") == 0


def test_full_disk_is_not_ready_and_alive(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.store.folder.MIN_FREE_BYTES", 1 << 60)
    run(lambda client: check_not_ready(client, "bytes are free", str(1 << 60)), toy_model)


def test_data_folder_that_is_gone_is_not_ready(toy_model: Model) -> None:
    async def test() -> None:
        app = app_of(toy_model, lanes=1)
        async with lifespan(app) as state:
            place: Path = state["collections"]._folder.path
            os.rename(place, place.with_name("away"))
            transport = httpx.ASGITransport(stateful(app, state))
            async with httpx.AsyncClient(transport=transport, base_url="http://inkwell") as client:
                await check_not_ready(client, "No such file")
            os.rename(place.with_name("away"), place)

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


class Deadly:
    """Ends the lane that runs it, as only what is no Exception can."""

    packing = PACKING

    def encode(self, texts: object) -> Any:
        raise SystemExit


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_lane_that_has_ended_is_not_ready(toy_model: Model) -> None:
    async def test() -> None:
        model = with_parts(toy_model, encoder=Deadly(), wide=None)
        async with serving(model, lanes=1) as client:
            request = asyncio.ensure_future(client.post("/embed", json={"texts": ["墨"]}))
            while (await client.get("/ready")).status_code == 200:
                await asyncio.sleep(0)
            await check_not_ready(client, "1 of 2 lanes")
            for path in ("/ping", "/.well-known/ready"):
                assert (await client.get(path)).status_code == 503
            request.cancel()

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))
