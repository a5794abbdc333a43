"""The cache of query vectors: each computed once, bounded, and equal to a new computation."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest

from server.collections.query_cache import ENTRY_BYTES, QueryCache
from server.config import Config
from server.errors import EmptyInput
from server.inference.engine import Engine
from server.inference.model import Model
from server.inference.registry import ModelRegistry
from server.telemetry.metrics import Metrics
from tests.support.fakes import PATIENCE_S, Broken, Gated, with_parts

ROW_BYTES = 32 * 4


class Remembered:
    """Query vectors of one model."""

    def __init__(self, queries: QueryCache, engine: Engine) -> None:
        self.all, self.engine = queries, engine

    async def of(self, texts: Sequence[str]) -> np.ndarray:
        return await self.all.of(texts, self.engine)


@asynccontextmanager
async def remembering(
    model: Model, max_bytes: int = 1 << 20
) -> AsyncIterator[tuple[Remembered, Metrics]]:
    metrics = Metrics()
    models = ModelRegistry([model], Config(lanes=1), metrics, asyncio.get_running_loop())
    try:
        yield Remembered(QueryCache(max_bytes, metrics), models.default), metrics
    finally:
        await asyncio.to_thread(models.close)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def outcomes(metrics: Metrics) -> list[float]:
    """Hits, shared, misses."""
    value = metrics.registry.get_sample_value
    return [
        value("inkwell_query_cache_total", {"outcome": outcome}) or 0.0
        for outcome in ("hit", "shared", "miss")
    ]


def expected(model: Model, texts: Sequence[str]) -> np.ndarray:
    ids = model.tokenizer.encode(texts, "query").ids
    return np.concatenate([model.encoder.encode([row]) for row in ids])


def test_a_query_asked_again_is_not_computed_again(toy_model: Model) -> None:
    async def test() -> None:
        async with remembering(toy_model) as (queries, metrics):
            first = await queries.of(["墨池"])
            again = await queries.of(["墨池"])
            assert first.tobytes() == again.tobytes()
            np.testing.assert_allclose(first, expected(toy_model, ["墨池"]), atol=1e-5)
            assert outcomes(metrics) == [1, 0, 1]

    run(test)


def test_several_are_answered_in_order_whatever_is_known(toy_model: Model) -> None:
    async def test() -> None:
        async with remembering(toy_model) as (queries, metrics):
            await queries.of(["笔"])
            texts = ["墨池", "笔", "纸", "墨池"]
            found = await queries.of(texts)
            np.testing.assert_allclose(found, expected(toy_model, texts), atol=1e-5)
            assert outcomes(metrics) == [1, 0, 3]
            assert (await queries.of(texts)).tobytes() == found.tobytes()

    run(test)


def test_the_same_query_at_the_same_time_is_computed_once(toy_model: Model) -> None:
    async def test() -> None:
        gate = Gated(toy_model.encoder)
        async with remembering(with_parts(toy_model, encoder=gate)) as (queries, metrics):
            tasks = [asyncio.ensure_future(queries.of(["墨池"])) for _ in range(5)]
            await asyncio.to_thread(gate.entered.wait, PATIENCE_S)
            gate.open()
            found = await asyncio.gather(*tasks)
            assert len({vectors.tobytes() for vectors in found}) == 1
            assert gate.texts == 1
            assert outcomes(metrics) == [0, 4, 1]

    run(test)


def test_one_who_leaves_does_not_take_the_answer_from_the_others(toy_model: Model) -> None:
    async def test() -> None:
        gate = Gated(toy_model.encoder)
        async with remembering(with_parts(toy_model, encoder=gate)) as (queries, _):
            first = asyncio.ensure_future(queries.of(["墨池"]))
            second = asyncio.ensure_future(queries.of(["墨池"]))
            await asyncio.to_thread(gate.entered.wait, PATIENCE_S)
            first.cancel()
            gate.open()
            assert (await second).shape == (1, 32)
            assert first.cancelled()

    run(test)


def test_memory_is_bounded_and_the_latest_stay(toy_model: Model) -> None:
    async def test() -> None:
        room = 3 * (ENTRY_BYTES + 4 + ROW_BYTES)
        async with remembering(toy_model, room) as (queries, metrics):
            for text in "墨池笔":
                await queries.of([text])
            await queries.of(["墨"])
            await queries.of(["纸"])
            held = metrics.registry.get_sample_value("inkwell_query_cache_bytes")
            assert held == room
            before = outcomes(metrics)[2]
            for text in "墨笔纸":
                await queries.of([text])
            assert outcomes(metrics)[2] == before
            await queries.of(["池"])
            assert outcomes(metrics)[2] == before + 1

    run(test)


def test_query_larger_than_the_cache_takes_no_others_place(toy_model: Model) -> None:
    async def test() -> None:
        room = ENTRY_BYTES + 4 * 10 + ROW_BYTES
        async with remembering(toy_model, room) as (queries, metrics):
            await queries.of(["墨" * 10])
            await queries.of(["池" * 11])
            assert metrics.registry.get_sample_value("inkwell_query_cache_bytes") == room
            await queries.of(["墨" * 10])
            assert outcomes(metrics) == [1, 0, 2]

    run(test)


def test_queries_that_two_callers_embed_at_once_are_held_once(toy_model: Model) -> None:
    async def test() -> None:
        async with remembering(toy_model) as (queries, metrics):
            texts = ["墨", "池"]
            one, other = await asyncio.gather(queries.of(texts), queries.of(texts))
            np.testing.assert_allclose(one, other, atol=1e-5)
            held = metrics.registry.get_sample_value("inkwell_query_cache_bytes")
            assert held == 2 * (ENTRY_BYTES + 4 + ROW_BYTES)

    run(test)


def test_vectors_of_a_model_that_is_no_longer_served_are_forgotten(toy_model: Model) -> None:
    async def test() -> None:
        async with remembering(toy_model) as (queries, metrics):
            bytes_held = "inkwell_query_cache_bytes"
            await queries.of(["墨", "池"])
            queries.all.forget_retired()
            assert metrics.registry.get_sample_value(bytes_held) == 2 * (
                ENTRY_BYTES + 4 + ROW_BYTES
            )
            queries.engine.retire()
            queries.all.forget_retired()
            assert metrics.registry.get_sample_value(bytes_held) == 0
            # One that was being embedded meanwhile.
            queries.all._remember((queries.engine, "笔"), np.zeros(32, dtype=np.float32))
            assert metrics.registry.get_sample_value(bytes_held) == 0

    run(test)


def test_nothing_is_remembered_where_there_is_no_room(toy_model: Model) -> None:
    async def test() -> None:
        async with remembering(toy_model, 0) as (queries, metrics):
            await queries.of(["墨"])
            await queries.of(["墨"])
            assert outcomes(metrics) == [0, 0, 2]
            assert metrics.registry.get_sample_value("inkwell_query_cache_bytes") == 0

    run(test)


def test_a_failure_is_told_and_not_remembered(toy_model: Model) -> None:
    async def test() -> None:
        async with remembering(with_parts(toy_model, encoder=Broken(), wide=None)) as (queries, _):
            for _ in range(2):
                with pytest.raises(Exception, match="ArithmeticError"):
                    await queries.of(["墨"])
            with pytest.raises(EmptyInput):
                await queries.of([""])

    run(test)


def test_what_is_under_way_is_forgotten_when_it_ends(toy_model: Model) -> None:
    async def test() -> None:
        async with remembering(toy_model) as (queries, _):
            await queries.of(["墨"])
            await asyncio.sleep(0)
            assert not queries.all._coming

    run(test)
