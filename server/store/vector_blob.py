"""Vectors as the database keeps them: float16 with one power of two a vector.

float32 took twice the room, half of all that a short document has on the disk. A vector is first scaled
by a power of two, which is exact, so that its largest number is between 0.5 and 1. So any float32 vector
can be kept, of whatever length. Each number is then right to 1 part in 2,048, or to 1 part in 33 million
of the largest: a cosine of 512 numbers moves by some 0.00001, where
quantising a model moves it by 0.001.

A blob is the exponent, int16, and D numbers, float16, all little endian.
"""

from collections.abc import Sequence

import numpy as np

from server.types import Vectors

EXPONENT = np.dtype("<i2")
NUMBER = np.dtype("<f2")


def blob_bytes(dimension: int) -> int:
    """Return the length of the blob of a vector with so many numbers."""
    return EXPONENT.itemsize + NUMBER.itemsize * dimension


def packed(vectors: Vectors) -> list[bytes]:
    """Return the blob of each row of float32 (B, D), finite."""
    _, exponents = np.frexp(np.abs(vectors).max(axis=1, initial=0.0))
    # subtle: two steps, because 2 ** 149 is beyond float32; each is exact.
    halves = -(exponents // 2)
    scaled = np.ldexp(np.ldexp(vectors, halves[:, None]), (-exponents - halves)[:, None])
    numbers = scaled.astype(NUMBER)
    return [
        exponent.tobytes() + row.tobytes()
        for exponent, row in zip(exponents.astype(EXPONENT), numbers, strict=True)
    ]


def unpacked(blobs: Sequence[bytes], dimension: int) -> Vectors:
    """Return the vectors of blobs, float32 (B, D); a damaged one may hold numbers that are not finite.

    Raises ValueError for blobs of another length.
    """
    joined = np.frombuffer(b"".join(blobs), dtype=np.uint8)
    rows = joined.reshape(len(blobs), blob_bytes(dimension))
    exponents = np.ascontiguousarray(rows[:, : EXPONENT.itemsize]).view(EXPONENT)
    numbers = np.ascontiguousarray(rows[:, EXPONENT.itemsize :]).view(NUMBER).astype(np.float32)
    with np.errstate(over="ignore"):
        return np.ldexp(numbers, exponents.astype(np.int32))


def from_float32(stored: bytes) -> bytes:
    """Return the blob of a vector that a file of version 1 or 2 keeps: D numbers, float32.

    Numbers that are not finite, of a damaged row, become others; the row's checksum shows the damage.
    """
    numbers = np.frombuffer(stored, dtype="<f4")
    return packed(np.nan_to_num(numbers)[None])[0]


def rounded(vectors: Vectors) -> Vectors:
    """Return the vectors as they will be read again: float32 (B, D)."""
    return unpacked(packed(vectors), vectors.shape[1])
