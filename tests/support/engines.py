"""Engines with their lanes on a loop of their own."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from server.config import Config
from server.inference.answers import Embedded
from server.inference.engine import Engine
from server.inference.model import Model
from server.inference.registry import ModelRegistry
from server.telemetry.metrics import Metrics
from tests.support.fakes import PATIENCE_S

# Largest difference between the vectors of one text in any company.
SAME = 1e-5


@asynccontextmanager
async def models_of(
    *models: Model, metrics: Metrics | None = None, **settings: Any
) -> AsyncIterator[ModelRegistry]:
    config = Config(**{"lanes": 2, **settings})
    served = ModelRegistry(models, config, metrics or Metrics(), asyncio.get_running_loop())
    try:
        yield served
    finally:
        await asyncio.to_thread(served.close)


@asynccontextmanager
async def running(
    model: Model, metrics: Metrics | None = None, **settings: Any
) -> AsyncIterator[Engine]:
    async with models_of(model, metrics=metrics, **settings) as models:
        yield models.default


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Call an asynchronous function; neither it nor a callback of its loop may fail."""
    failures: list[Any] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, about: failures.append(about))
        await asyncio.wait_for(test(), PATIENCE_S)

    asyncio.run(watched())
    assert failures == []


def embed(model: Model, texts: list[str], *arguments: Any, **options: Any) -> Embedded:
    async def once() -> Embedded:
        async with running(model) as engine:
            return await engine.embed(texts, *arguments, **options)

    return asyncio.run(asyncio.wait_for(once(), PATIENCE_S))


def counter(metrics: Metrics, name: str) -> float:
    value = metrics.registry.get_sample_value(f"inkwell_{name}")
    assert value is not None
    return value
