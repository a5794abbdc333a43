"""A cache of the vectors of search queries: people and dashboards ask the same things again.

A query that is being embedded is not embedded a second time. The most recently used vectors stay,
within a bound in bytes.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from server.errors import EmptyInput, shown
from server.inference.engine import Engine
from server.telemetry.metrics import Metrics
from server.types import Vectors

# What Python needs for one entry beside the bytes of vector and text.
ENTRY_BYTES = 300


# Each model makes another vector of a text.
Key = tuple[Engine, str]


class QueryCache:
    """Vectors of queries, by engine and text; belongs to the engines' loop."""

    def __init__(self, max_bytes: int, metrics: Metrics) -> None:
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._held: OrderedDict[Key, Vectors] = OrderedDict()
        self._bytes = 0
        self._coming: dict[Key, asyncio.Future[Vectors]] = {}
        metrics.query_cache_bytes.set_function(lambda: self._bytes)

    async def of(self, texts: Sequence[str], engine: Engine) -> Vectors:
        """Embed `texts` as queries: float32 (B, D). Raises what `Engine.embed` raises."""
        if len(texts) == 1:
            return (await self._one((engine, texts[0])))[None]
        keys = [(engine, text) for text in texts]
        known = self._held.keys() | self._coming.keys()
        new = [key for key in dict.fromkeys(keys) if key not in known]
        if len(new) < 2:
            return np.stack([await self._one(key) for key in keys])
        # One job for what is new; the others are in the cache or being embedded.
        fresh = dict(zip(new, await _embed(engine, [text for _, text in new]), strict=True))
        for key, vector in fresh.items():
            self._remember(key, vector)
        self._metrics.query_cache.labels("miss").inc(len(new))
        return np.stack([fresh[key] if key in fresh else await self._one(key) for key in keys])

    async def _one(self, key: Key) -> Vectors:
        counted = self._metrics.query_cache.labels
        while True:
            held = self._held.get(key)
            if held is not None:
                self._held.move_to_end(key)
                counted("hit").inc()
                return held
            coming = self._coming.get(key)
            if coming is None:
                counted("miss").inc()
                return await self._compute(key)
            # subtle: not the future itself: a caller that is cancelled would cancel it.
            await asyncio.wait([coming])
            if not coming.cancelled():
                counted("shared").inc()
                return coming.result()
            # The caller that embedded it was cancelled; the first to wake up takes over.

    async def _compute(self, key: Key) -> Vectors:
        engine, text = key
        coming = self._coming[key] = asyncio.get_running_loop().create_future()
        try:
            vector: Vectors = (await _embed(engine, [text]))[0]
        except asyncio.CancelledError:
            coming.cancel()
            raise
        except Exception as error:
            coming.set_exception(error)
            # Marked as retrieved, also where no other caller waits for it.
            coming.exception()
            raise
        else:
            coming.set_result(vector)
            self._remember(key, vector)
            return vector
        finally:
            del self._coming[key]

    def forget_retired(self) -> None:
        """Forget vectors of models that are no longer served, and with them the models."""
        for key in [key for key in self._held if key[0].retired]:
            self._bytes -= _size(key, self._held.pop(key))

    def _remember(self, key: Key, vector: Vectors) -> None:
        size = _size(key, vector)
        if size > self._max_bytes or key in self._held or key[0].retired:
            return
        # A row of a batch would keep the whole batch alive.
        self._held[key] = vector.copy()
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._bytes -= _size(*self._held.popitem(last=False))


async def _embed(engine: Engine, queries: Sequence[str]) -> Vectors:
    """Return the vectors of queries; raises EmptyInput that shows a query without a vector.

    Its number means nothing to the client: those that the cache has are not among them.
    """
    try:
        return (await engine.embed(queries, "query")).vectors
    except EmptyInput as error:
        if error.index is None:
            raise
        raise EmptyInput(
            f"the query {shown(queries[error.index])} has no vector: the model knows no token of it; add a"
            " word that it knows, or search with mode lexical",
            param="query",
        ) from None


def _size(key: Key, vector: Vectors) -> int:
    # A character of a Python text takes up to four bytes.
    return ENTRY_BYTES + 4 * len(key[1]) + vector.nbytes
