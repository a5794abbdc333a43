"""A backup of one collection as a stream of bytes, while it is read and written as before.

How this works. The database is copied into a file without a name, as it is at one moment. The file is then
sent as fast as the client takes it. So a slow client holds neither a snapshot nor a writer: only room on the
disk, which is free again at the end, also after a kill.
"""

from collections.abc import AsyncGenerator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from server.clock import now
from server.collections.live_collection import LiveCollection, uninterrupted
from server.errors import Overloaded, RequestTooLarge
from server.store.collection import Collection
from server.store.folder import DataFolder
from server.store.upkeep.database_file import copy_held, held

PIECE_BYTES = 1 << 18
# Backups of this process at once, and seconds after which another may be possible.
MOST_AT_ONCE, RETRY_S = 2, 30
# Seconds for which a client is waited for in all, and bytes for which it gets more of them.
WAIT_S, BYTES_PER_S = 60.0, 1 << 18

_running: set[object] = set()


async def backup_of(live: LiveCollection, folder: DataFolder) -> AsyncGenerator[bytes, None]:
    """Yield the file that `restore` reads, piece by piece.

    Raises Overloaded where too many run, DiskFull, and RequestTooLarge where the client takes too long.
    """
    with _counted():
        collection = live.collection
        size = await live.read(collection.bytes_on_disk)
        folder.check_room(size)
        file = await live.read(lambda: _Held(collection))
        with await uninterrupted(lambda: file.copied(folder)) as copy:
            waited_s, sent = 0.0, 0
            while piece := await uninterrupted(partial(copy.read, PIECE_BYTES)):
                began = now()
                yield piece
                waited_s, sent = waited_s + now() - began, sent + len(piece)
                _check_pace(waited_s, sent)


class _Held:
    """A database as it is at one moment, until it is copied."""

    def __init__(self, collection: Collection) -> None:
        self._path = collection.path
        self._connection = held(collection.path)

    def copied(self, folder: DataFolder) -> BinaryIO:
        """Return a copy, open for reading, that no name leads to."""
        with closing(self._connection), folder.staging() as staged:
            target: Path = staged / "backup"
            copy_held(self._connection, self._path, target)
            return target.open("rb")


@contextmanager
def _counted() -> Iterator[None]:
    if len(_running) >= MOST_AT_ONCE:
        raise Overloaded(
            f"{len(_running)} backups are being made or sent, at most {MOST_AT_ONCE} are possible at once;"
            " try again later",
            retry_after_s=RETRY_S,
        )
    own = object()
    _running.add(own)
    try:
        yield
    finally:
        _running.discard(own)


def _check_pace(waited_s: float, sent: int) -> None:
    if waited_s > WAIT_S + sent / BYTES_PER_S:
        raise RequestTooLarge(
            f"the client took {sent} bytes of the backup in {waited_s:.0f} s, and at least {BYTES_PER_S}"
            f" bytes a second are needed after the first {WAIT_S:g} s; use the command `backup` on the"
            " server's machine"
        )
