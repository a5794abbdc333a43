"""A collection from a backup that comes as a stream of bytes: received, checked, and then put in place.

Nothing that is served changes before the whole file has been checked and its index is built. What a kill leaves
is deleted at the next start.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TypeVar

from server.collections.live_collection import uninterrupted
from server.collections.reading.long_streams import Running
from server.collections.reading.opened import opened
from server.errors import ShuttingDown
from server.store.folder import DataFolder
from server.store.upkeep.restoring import fill

T = TypeVar("T")
# Bytes that are written at once.
PIECE_BYTES = 1 << 20
# Each keeps a core busy.
RUNNING = Running(1, 60, "another backup is being restored, and only one is possible at once")


class Restoring:
    """One restore, from its first byte until its files are ready to be put in place.

    Use as an async context manager: what was received is deleted at the end.
    """

    def __init__(self, folder: DataFolder, name: str) -> None:
        self._folder = folder
        self._name = name
        self._stopped = False
        self._counted = ExitStack()
        self._received: Path | None = None
        self._made: Path | None = None

    async def __aenter__(self) -> "Restoring":
        self._counted.enter_context(RUNNING.one())
        return self

    async def __aexit__(self, *_: object) -> None:
        with self._counted:
            await uninterrupted(self._clear)

    def _clear(self) -> None:
        for each in (self._received, self._made):
            if each is not None:
                shutil.rmtree(each, ignore_errors=True)

    async def receive(self, pieces: AsyncIterator[bytes]) -> None:
        """Write the backup to the disk as it comes; raises DiskFull before the disk is full."""
        self._received = await uninterrupted(self._folder.staged)
        path = self._received / "backup"
        async with opened(uninterrupted(lambda: path.open("wb"))) as file:
            waiting: list[bytes] = []
            size = 0
            async for piece in pieces:
                waiting.append(piece)
                size += len(piece)
                if size >= PIECE_BYTES:
                    await uninterrupted(partial(self._write, file.write, b"".join(waiting)))
                    waiting, size = [], 0
            await uninterrupted(partial(self._write, file.write, b"".join(waiting)))

    def _write(self, write: Callable[[bytes], int], piece: bytes) -> None:
        # As much again for the database that is made of it.
        self._folder.check_room(2 * len(piece))
        with self._folder.reporting(self._name):
            write(piece)

    async def check(self) -> Path:
        """Check the backup, and return a folder with a collection made from it, its index built."""
        assert self._received is not None
        file = self._received / "backup"
        self._made = await uninterrupted(self._folder.staged)
        return await self._run(lambda: self._make(file, self._made))

    def _make(self, file: Path, folder: Path | None) -> Path:
        assert folder is not None
        self._folder.check_room(file.stat().st_size)
        with self._folder.reporting(self._name):
            fill(folder, file, self._name, self._go_on)
        self._folder.build_index(folder)
        return folder

    async def _run(self, work: Callable[[], T]) -> T:
        """Run work on a thread; where the caller is cancelled, it ends at its next step."""
        task = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._stopped = True
            await asyncio.wait([task])
            raise

    def _go_on(self) -> None:
        if self._stopped:
            raise ShuttingDown("the server stopped before the backup was restored", retry_after_s=5)
