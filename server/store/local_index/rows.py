"""Vectors as 16-bit integers in two halves: high bytes in memory, low bytes in the snapshot.

How this works. A vector is a scale times integers. Its high bytes alone give a cosine to about 0.001,
which is enough to choose among the candidates of a search. Only the few that may be returned are
scored with all 16 bits, to about 0.00001 of the float32 cosine. So the low bytes of a large index need no
memory: once a snapshot holds them, they are read from it. In a small one they stay in memory.

They are read with `pread`, not mapped: a file that was cut short or cannot be read gives an error, not a
signal that ends the process. A snapshot is replaced, never changed, so an open one stays as it was.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from server.errors import StoreError
from server.types import Vectors

# FAISS's own description of its types lacks some that its libraries have.
native: Any = faiss
Halves = npt.NDArray[np.int8]  # (n, D)
Places = npt.NDArray[np.int64]  # of rows in a block

# The largest integer of a row: its high byte is rounded, and 127 is the last.
LARGEST = 127 * 256
# Rows converted at once: few enough to stay in the L2 cache and to release the interpreter lock every
# millisecond.
SLICE_ROWS = 2048
# Rows that are turned into float32 for one query: 512 KB of them, 512 wide, which an L2 cache holds. 6,000 rows
# take 0.85 ms so, and 1.4 ms by 2,048 (2026-11-30).
CACHED_ROWS = 256


class SnapshotFile:
    """A snapshot kept open for reading while rows lie in it; closed with the last of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def __del__(self) -> None:
        # Where opening failed there is none.
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def is_same(self, other: os.stat_result) -> bool:
        return os.path.samestat(os.fstat(self._descriptor), other)

    def read(self, start: int, length: int) -> bytes:
        """Return so many bytes; raises StoreError where the file has fewer or cannot be read."""
        try:
            content = os.pread(self._descriptor, length, start)
        except OSError as error:
            raise self._lost(error.strerror) from None
        if len(content) != length:
            raise self._lost("it was cut short")
        return content

    def _lost(self, reason: str | None) -> StoreError:
        return StoreError(
            "{path}: the vectors in this file cannot be read ({reason}); start the server again, and "
            "it rebuilds the file from the documents",
            path=self.path,
            reason=reason,
        )


@dataclass(frozen=True, slots=True)
class Stored:
    """The low halves of n rows in a file, one behind the other."""

    file: SnapshotFile
    start: int
    n: int
    dimension: int

    @property
    def nbytes(self) -> int:
        return 0

    def take(self, places: Places) -> Halves:
        width = self.dimension
        read, start = self.file.read, self.start
        content = b"".join([read(start + place * width, width) for place in places.tolist()])
        return np.frombuffer(content, dtype=np.int8).reshape(len(places), width)

    def slice(self, start: int, end: int) -> Halves:
        end = min(end, self.n)
        content = self.file.read(
            self.start + start * self.dimension, (end - start) * self.dimension
        )
        return np.frombuffer(content, dtype=np.int8).reshape(end - start, self.dimension)


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """The low halves of rows in memory."""

    halves: Halves

    @property
    def nbytes(self) -> int:
        return self.halves.nbytes

    def take(self, places: Places) -> Halves:
        return self.halves.take(places, axis=0)

    def slice(self, start: int, end: int) -> Halves:
        return self.halves[start:end]


class Rows:
    """Rows of numbers, (n, D), that never change; where their low halves lie may."""

    __slots__ = ("high", "low", "scales")

    def __init__(self, scales: Vectors, high: Halves, low: Held | Stored) -> None:
        """Keep rows. scales: float32 (n,), of one step of the 16-bit integers."""
        self.scales, self.high, self.low = scales, high, low

    @classmethod
    def empty(cls, n: int, dimension: int) -> "Rows":
        """Return rows for `put`."""
        halves = [np.empty((n, dimension), dtype=np.int8) for _ in range(2)]
        return cls(np.empty(n, dtype=np.float32), halves[0], Held(halves[1]))

    @classmethod
    def of(cls, vectors: Vectors) -> "Rows":
        rows = cls.empty(*vectors.shape)
        for start in range(0, len(vectors), SLICE_ROWS):
            some = slice(start, start + SLICE_ROWS)
            rows.put(some, vectors[some])
        return rows

    def __len__(self) -> int:
        return len(self.high)

    @property
    def bytes_held(self) -> int:
        return self.scales.nbytes + self.high.nbytes + self.low.nbytes

    def put(self, places: Places | slice, vectors: Vectors) -> None:
        """Set rows that nothing reads yet."""
        assert isinstance(self.low, Held)
        largest = np.abs(vectors).max(axis=1, initial=0)
        scales = np.where(largest > 0, largest, 1).astype(np.float32) / np.float32(LARGEST)
        whole = np.rint(vectors / scales[:, None]).astype(np.int16)
        high = (whole + np.int16(128)) >> 8
        self.scales[places] = scales
        self.high[places] = high
        self.low.halves[places] = whole - (high << 8)

    def whole(self, places: Places) -> Vectors:
        """Return these rows with all their bits."""
        return self._joined(
            self.high.take(places, axis=0), self.low.take(places), self.scales[places]
        )

    def slice(self, start: int, end: int) -> Vectors:
        """Return the rows from `start` on and before `end`, with all their bits."""
        return self._joined(
            self.high[start:end], self.low.slice(start, end), self.scales[start:end]
        )

    def estimates(self, places: Places, query: Vectors) -> Vectors:
        """Return the products of these rows' high halves and a query, float32 (D,)."""
        products = np.empty(len(places), dtype=np.float32)
        for start in range(0, len(places), CACHED_ROWS):
            some = places[start : start + CACHED_ROWS]
            high = self.high.take(some, axis=0).astype(np.float32)
            _put_products(high, query, products[start : start + CACHED_ROWS])
        products *= self.scales[places] * np.float32(256)
        return products

    def products(self, places: Places, query: Vectors) -> Vectors:
        """Return the products of these whole rows and a query, float32 (D,)."""
        return _products(self.whole(places), query)

    def coarse(self, places: Places) -> Vectors:
        """Return these rows by their high halves alone."""
        high = self.high.take(places, axis=0).astype(np.float32)
        high *= (self.scales[places] * np.float32(256))[:, None]
        return high

    def copy(self, places: Places, other: "Rows") -> None:
        """Set rows that nothing reads yet, at ascending places, to all rows of another."""
        assert isinstance(self.low, Held)
        for start in range(0, len(other), SLICE_ROWS):
            end = min(start + SLICE_ROWS, len(other))
            some: Places | slice = places[start:end]
            if places[end - 1] - places[start] == end - 1 - start:
                # They ascend, so these are neighbours: a plain copy is ten times as fast.
                some = slice(int(places[start]), int(places[end - 1]) + 1)
            self.scales[some] = other.scales[start:end]
            self.high[some] = other.high[start:end]
            self.low.halves[some] = other.low.slice(start, end)

    def move(self, file: SnapshotFile, start: int) -> None:
        """Free the low halves, which stand in this file from the byte `start` on."""
        # subtle: a search at the same moment has either; both give the same rows.
        self.low = Stored(file, start, *self.high.shape)

    @staticmethod
    def _joined(high: Halves, low: Halves, scales: npt.NDArray[Any]) -> Vectors:
        whole = high.astype(np.float32)
        whole *= 256
        whole += low
        whole *= scales[:, None]
        return whole


def apart(numbers: Places, sizes: Sequence[int]) -> list[Places]:
    """Return ascending numbers of rows over several parts as places in each part; sizes: of the parts."""
    ends = np.cumsum(sizes)
    parts = np.split(numbers, np.searchsorted(numbers, ends[:-1]))
    return [part - start for part, start in zip(parts, ends - sizes, strict=True)]


def _products(rows: Vectors, query: Vectors) -> Vectors:
    products = np.empty(len(rows), dtype=np.float32)
    _put_products(rows, query, products)
    return products


def _put_products(rows: Vectors, query: Vectors, products: Vectors) -> None:
    # Not numpy's product: its BLAS would use every core.
    native.fvec_inner_products_ny(
        faiss.swig_ptr(products),
        faiss.swig_ptr(query),
        faiss.swig_ptr(rows),
        rows.shape[1],
        len(rows),
    )
