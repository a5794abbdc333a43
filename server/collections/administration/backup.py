"""A backup of one collection as a stream of bytes, while it is read and written as before.

How this works. The database is copied into a file without a name, as it is at one moment. The file is then
sent as fast as the client takes it. So a slow client holds neither a snapshot nor a writer: only room on the
disk, which is free again at the end, also after a kill.
"""

from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from server.collections.live_collection import LiveCollection, uninterrupted
from server.collections.reading.long_streams import Pace, Running
from server.collections.reading.opened import opened
from server.store.collection import Collection
from server.store.folder import DataFolder
from server.store.upkeep.database_file import copy_held, held

PIECE_BYTES = 1 << 18
# A client must take so many bytes a second.
BYTES_PER_S = 1 << 18
RUNNING = Running(
    2, 30, "{number} backups are being made or sent, at most {most} are possible at once"
)


async def backup_of(live: LiveCollection, folder: DataFolder) -> AsyncGenerator[bytes, None]:
    """Yield the file that `restore` reads, piece by piece.

    Raises Overloaded where too many run, DiskFull, and RequestTooLarge where the client takes too long.
    """
    pace = Pace("the backup", BYTES_PER_S, "use the command `backup` on the server's machine")
    with RUNNING.one():
        # It may be renamed or replaced in between: each read finds the one that is there.
        await live.read(lambda: folder.check_room(live.collection.bytes_on_disk()))
        async with opened(_copied(live, folder)) as copy:
            while piece := await uninterrupted(partial(copy.read, PIECE_BYTES)):
                with pace.waiting(len(piece)):
                    yield piece


async def _copied(live: LiveCollection, folder: DataFolder) -> BinaryIO:
    """Return a copy of a collection's database as it is now, that no name leads to."""
    async with opened(live.read(lambda: _Held(live.collection))) as held:
        return await uninterrupted(lambda: held.copied(folder))


class _Held:
    """A database as it is at one moment, until it is copied."""

    def __init__(self, collection: Collection) -> None:
        self._path = collection.path
        self._connection = held(collection.path)

    def copied(self, folder: DataFolder) -> BinaryIO:
        """Return a copy, open for reading, that no name leads to."""
        with folder.staging() as staged:
            target: Path = staged / "backup"
            copy_held(self._connection, self._path, target)
            return target.open("rb")

    def close(self) -> None:
        self._connection.close()
