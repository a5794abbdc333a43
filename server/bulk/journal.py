"""Vectors that were computed for a part that is not complete, in files that a kill cannot spoil.

Each attempt at a part writes a file of its own, so two processes that work on the same part, one of them
left over from a run that was killed, never write into each other's records. A record that is not whole, or
whose sum is wrong, ends the file.
"""

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from server.types import Vectors


def record(dimension: int) -> np.dtype[Any]:
    """Return the type of a record: a digest, its vector, and the CRC-32 of both."""
    return np.dtype([("digest", "u1", 32), ("vector", "<f4", dimension), ("crc", "<u4")])


def append(file: BinaryIO, digests: Sequence[bytes], vectors: Vectors) -> None:
    """Write records; vectors: float32 (B, D)."""
    rows = np.zeros(len(digests), record(vectors.shape[1]))
    rows["digest"] = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    rows["vector"] = vectors
    rows["crc"] = [_crc(row) for row in rows]
    file.write(rows.tobytes())
    file.flush()


def read(folder: Path, part: str, dimension: int) -> Iterator[tuple[bytes, Vectors]]:
    """Yield digest and vector, float32 (D,), of each record that attempts at a part have left."""
    kind = record(dimension)
    for path in sorted(folder.glob(f"{part}.*.vectors")):
        with path.open("rb") as file:
            while len(found := file.read(kind.itemsize)) == kind.itemsize:
                (row,) = np.frombuffer(found, kind)
                if row["crc"] != _crc(row):
                    break
                yield row["digest"].tobytes(), row["vector"].astype(np.float32)


@contextmanager
def writing(folder: Path, part: str) -> Iterator[BinaryIO]:
    """Yield a new file for the records of one attempt at a part."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{part}.{os.urandom(8).hex()}.vectors").open("xb") as file:
        yield file


def forget(folder: Path, part: str) -> None:
    """Delete the records of a part that is complete."""
    for path in folder.glob(f"{part}.*.vectors"):
        path.unlink(missing_ok=True)


def _crc(row: Any) -> int:
    return zlib.crc32(row["vector"].tobytes(), zlib.crc32(row["digest"].tobytes()))
