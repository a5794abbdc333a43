"""Checks the order of rows: a damaged tree may return one row again and again, and reading would not end."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from server.errors import StoreDamaged

Row = tuple[Any, ...]


def ascending(rows: Iterable[Row], after: int, path: Path) -> Iterator[Row]:
    """Yield rows whose first numbers ascend from beyond `after`; raises StoreDamaged for others.

    path: of the database.
    """
    for row in rows:
        if not isinstance(row[0], int) or row[0] <= after:
            raise StoreDamaged(
                "{path} returns number {found} behind number {after}: the disk or another program has "
                "changed it; restore the collection from a backup",
                path=path,
                found=ascii(row[0])[:40],
                after=after,
            )
        after = row[0]
        yield row
