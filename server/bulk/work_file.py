"""Files that two tasks may write at the same time: each writes beside the place, and the last rename counts.

Both have the same content. The second one is left over from a run that was killed while its cluster went on.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from server.system import atomic_file


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that takes the place of `path` when the block ends; if it raises, `path` stays."""
    scratch = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
    with atomic_file.replacing(path, scratch=scratch) as file:
        yield file


def forget_scratch(*folders: Path) -> None:
    """Delete what killed tasks have left beside files."""
    for folder in folders:
        for path in folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)
