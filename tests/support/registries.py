"""The collections of one model, on the event loop of a test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from server.collections.registry import CollectionRegistry
from server.config import Config
from server.inference.model import Model
from server.inference.registry import ModelRegistry
from server.store.folder import DataFolder
from server.telemetry.metrics import Metrics


@asynccontextmanager
async def opened(model: Model, folder: Path, **settings: Any) -> AsyncIterator[CollectionRegistry]:
    """Open the collections of a data folder; settings: of the server, with one lane unless given."""
    metrics, config = Metrics(), Config(**{"lanes": 1, **settings})
    models = ModelRegistry([model], config, metrics, asyncio.get_running_loop())
    registry = CollectionRegistry(DataFolder(folder), models, config, metrics)
    try:
        yield registry
    finally:
        await registry.close()
        await asyncio.to_thread(models.close)
