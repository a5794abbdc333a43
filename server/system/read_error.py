"""Tells a disk that cannot be read from a database that is damaged.

SQLite reports both as damage: where the disk refuses to read a page (EIO), a query ends with
SQLITE_CORRUPT. So the file is read again here. Where that fails too, nothing stored is lost yet, and
the advice is another one.
"""

import os
from pathlib import Path

from server.clock import now

DESCRIPTORS = Path("/proc/self/fd")
PIECE_BYTES = 1 << 20
# A file that is damaged may be large, and every query to it comes here.
MOST_S = 1.0


def read_error(path: Path) -> OSError | None:
    """Return the error with which the disk refuses to read a database that this process has open.

    None where it can be read, or where reading all of it takes too long.

    subtle: this reads through SQLite's own descriptors. Closing another descriptor of the same file
    would release SQLite's locks on it.
    """
    whole = str(path.resolve())
    names = {whole, f"{whole}-wal"}
    ends = now() + MOST_S
    for descriptor in _descriptors(names):
        place = 0
        try:
            while now() < ends and (piece := os.pread(descriptor, PIECE_BYTES, place)):
                place += len(piece)
        except OSError as error:
            return error
    return None


def _descriptors(names: set[str]) -> list[int]:
    found: dict[str, int] = {}
    for link in DESCRIPTORS.iterdir() if DESCRIPTORS.exists() else ():
        try:
            found[os.readlink(link)] = int(link.name)
        except OSError:
            continue  # closed meanwhile
    return [descriptor for name, descriptor in found.items() if name in names]
