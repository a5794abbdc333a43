"""Samples recall while the server runs: does a search still find what comparing all would find?

Recall is measured when an index is compacted. Until the next compaction documents come and go, and new
ones may be unlike those that the codes were made for.

A probe asks 16 generated queries, other ones each time, by codes and by comparing all. It runs on one
thread beside the loop, when the server is idle.
"""

import asyncio
import logging
from collections.abc import Callable
from itertools import count

from server.clock import now
from server.collections.registry import CollectionRegistry
from server.errors import CollectionNotFound
from server.telemetry.metrics import Metrics

# Between two rounds over all collections.
EVERY_S = 600.0
# Between two checks whether the server is idle; a running probe does not stop for a request.
LOOK_S = 5.0

log = logging.getLogger(__name__)


class RecallProbe:
    """Runs on the registry's loop; `close` it before the registry."""

    def __init__(
        self, registry: CollectionRegistry, metrics: Metrics, idle: Callable[[], bool]
    ) -> None:
        self._registry = registry
        self._metrics = metrics
        self._idle = idle
        self._seeds = count(1)
        self._task = asyncio.ensure_future(self._repeat())

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            await self.round()

    async def round(self) -> None:
        """Probe every collection once, each in an idle moment."""
        for name in self._registry.names:
            while not self._idle():
                await asyncio.sleep(LOOK_S)
            try:
                await self._probe(name)
            except CollectionNotFound:
                continue  # Removed meanwhile.
            except Exception:
                log.exception("the recall of collection %s was not probed", name)

    async def _probe(self, name: str) -> None:
        started, seed = now(), next(self._seeds)
        if await self._registry.probe(name, seed):
            self._metrics.recall_probe_seconds.observe(now() - started)
