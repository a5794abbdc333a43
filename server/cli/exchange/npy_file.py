"""The vectors of a .npy file, one for each line of another file."""

from pathlib import Path

import numpy as np

from server.errors import BadSettings
from server.messages.message import Message
from server.system.regular_file import open_regular
from server.types import Vectors


class NpyRows:
    """The rows of a matrix of numbers, which stays on the disk.

    number: of rows. dimension: numbers of each.
    """

    def __init__(self, path: Path) -> None:
        """Open the file; raises BadSettings where it holds no matrix of numbers."""
        try:
            open_regular(path).close()
            self._rows = np.load(path, mmap_mode="r", allow_pickle=False)
        except OSError as error:
            raise _unreadable(path, error.strerror or str(error)) from None
        except (ValueError, EOFError, SyntaxError) as error:
            raise _unreadable(path, str(error)) from None
        if self._rows.ndim != 2 or self._rows.dtype.kind not in "fiu":
            raise _unreadable(
                path,
                Message(
                    "it holds {kind} of the shape {shape}, and rows of numbers are needed",
                    kind=str(self._rows.dtype),
                    shape=str(self._rows.shape),
                ),
            )
        self.number, self.dimension = self._rows.shape

    def row(self, place: int) -> Vectors:
        """Return one row, float32 (D,); numbers beyond float32 become infinite."""
        with np.errstate(over="ignore"):
            return np.asarray(self._rows[place], dtype=np.float32)


def _unreadable(path: Path, why: object) -> BadSettings:
    return BadSettings("the vectors of {path} cannot be read: {why}", path=path, why=why)
