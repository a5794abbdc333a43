"""Is what the index finds still what comparing all would find? Tried now and then, when nobody waits.

Recall is measured when an index is compacted. Until the next time documents come and go, and those that
come may be unlike those that the codes were made for; so it is sampled while the server runs.

A probe asks 16 made-up queries, each time others, by codes and by comparing all, on one thread beside
the loop.
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
# Between two looks whether the server is idle; a probe that has begun does not stop for a request.
LOOK_S = 5.0

log = logging.getLogger(__name__)


class Probing:
    """Lives on the library's loop; `close` it before the library."""

    def __init__(
        self, library: CollectionRegistry, metrics: Metrics, idle: Callable[[], bool]
    ) -> None:
        self._library = library
        self._metrics = metrics
        self._idle = idle
        self._seeds = count(1)
        self._task = asyncio.ensure_future(self._go_on())

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            await self.round()

    async def round(self) -> None:
        """Probe every collection once, each in an idle moment."""
        for name in self._library.names:
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
        if await self._library.probe(name, seed):
            self._metrics.recall_probe_seconds.observe(now() - started)
