"""The error for something stored that is not what was written."""

from pathlib import Path

from server.errors import StoreDamaged


def damaged(path: Path, what: str) -> StoreDamaged:
    """Return the error for a part of the database at `path`; what: names the part."""
    return StoreDamaged(
        "{path}: {what} is not what was written: the disk or another program has changed it; "
        "restore the collection from a backup",
        path=path,
        what=what,
    )
