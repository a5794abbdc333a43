"""Vectors of search queries, remembered: people and dashboards ask the same things again.

A query that is being computed is not computed a second time, and the most recently used vectors
stay, within a bound in bytes.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from server.engine import Engine
from server.metrics import Metrics
from server.types import Vectors

# What Python needs beside a vector's and a text's own bytes, for one entry.
ENTRY_BYTES = 300


class QueryVectors:
    """Lives on the engine's loop."""

    def __init__(self, engine: Engine, max_bytes: int, metrics: Metrics) -> None:
        self._engine = engine
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._held: OrderedDict[str, Vectors] = OrderedDict()
        self._bytes = 0
        self._coming: dict[str, asyncio.Future[Vectors]] = {}
        metrics.query_cache_bytes.set_function(lambda: self._bytes)

    async def of(self, texts: Sequence[str]) -> Vectors:
        """Embed `texts` as queries: float32 (B, D). Raises what `Engine.embed` raises."""
        if len(texts) == 1:
            return (await self._one(texts[0]))[None]
        new = [t for t in dict.fromkeys(texts) if t not in self._held and t not in self._coming]
        if len(new) < 2:
            return np.stack([await self._one(text) for text in texts])
        # One job for what is new; the others are remembered or on their way.
        fresh = dict(zip(new, (await self._engine.embed(new, "query")).vectors, strict=True))
        for text, vector in fresh.items():
            self._remember(text, vector)
        self._metrics.query_cache.labels("miss").inc(len(new))
        return np.stack([fresh[text] if text in fresh else await self._one(text) for text in texts])

    async def _one(self, text: str) -> Vectors:
        counted = self._metrics.query_cache.labels
        while True:
            held = self._held.get(text)
            if held is not None:
                self._held.move_to_end(text)
                counted("hit").inc()
                return held
            coming = self._coming.get(text)
            if coming is None:
                counted("miss").inc()
                return await self._compute(text)
            # subtle: not the future itself, because who leaves while waiting for it would cancel it.
            await asyncio.wait([coming])
            if not coming.cancelled():
                counted("shared").inc()
                return coming.result()
            # Who was computing it has left; the first to wake up takes over.

    async def _compute(self, text: str) -> Vectors:
        coming = self._coming[text] = asyncio.get_running_loop().create_future()
        try:
            vector: Vectors = (await self._engine.embed([text], "query")).vectors[0]
        except asyncio.CancelledError:
            coming.cancel()
            raise
        except Exception as error:
            coming.set_exception(error)
            # Seen, also where nobody else waits for it.
            coming.exception()
            raise
        else:
            coming.set_result(vector)
            self._remember(text, vector)
            return vector
        finally:
            del self._coming[text]

    def _remember(self, text: str, vector: Vectors) -> None:
        size = _size(text, vector)
        if size > self._max_bytes or text in self._held:
            return
        # A row of a batch would keep the whole batch alive.
        self._held[text] = vector.copy()
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._bytes -= _size(*self._held.popitem(last=False))


def _size(text: str, vector: Vectors) -> int:
    # A character of a Python text takes up to four bytes.
    return ENTRY_BYTES + 4 * len(text) + vector.nbytes
