"""A lock for asyncio: many calls inside at once, or one that has the whole place to itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ReadWriteGate:
    """Readers pass through it side by side; `closed` waits until none is inside and keeps others out."""

    def __init__(self) -> None:
        self._inside = 0
        self._open = asyncio.Event()
        self._open.set()
        self._empty = asyncio.Event()
        self._empty.set()

    async def __aenter__(self) -> None:
        while not self._open.is_set():
            await self._open.wait()
        self._inside += 1
        self._empty.clear()

    async def __aexit__(self, *_: object) -> None:
        self._inside -= 1
        if not self._inside:
            self._empty.set()

    @asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        """Hold the gate closed for the block; one caller at a time."""
        self._open.clear()
        try:
            while self._inside:
                await self._empty.wait()
            yield
        finally:
            self._open.set()
