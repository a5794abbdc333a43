"""FAISS index files of other programs: the vectors of the texts in a file beside, one text a line.

They are read and written in batches, so the index need not fit into memory.
"""

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import faiss
import numpy as np

from server.errors import BadSettings
from server.system.regular_file import open_regular
from server.types import Labels, Vectors, unit

# What FAISS writes before the rows of an IndexFlatIP: its kind, D, N, two numbers without meaning,
# trained, metric; then how many float32 numbers follow.
HEADER = struct.Struct("<4siqqqBiQ")
UNUSED = 1 << 20
# Rows are read from the mapped file, where this FAISS can.
READING = getattr(faiss, "IO_FLAG_MMAP_IFC", 0)
# Kinds that keep their rows. Others return an approximation or nothing, and some of those
# (IndexIVFPQFastScan of FAISS 1.15) end the process.
KEEPING = (
    faiss.IndexFlat,
    faiss.IndexScalarQuantizer,
    faiss.IndexIVFFlat,
    faiss.IndexIVFScalarQuantizer,
    faiss.IndexHNSWFlat,
    faiss.IndexHNSWSQ,
)


def write_vectors(file: BinaryIO, dimension: int, number: int, batches: Iterable[Vectors]) -> None:
    """Write an IndexFlatIP of `number` rows, float32 (B, D) a batch, scaled to unit length."""
    size = number * dimension
    file.write(HEADER.pack(b"IxFI", dimension, number, UNUSED, UNUSED, 1, 0, size))
    for vectors in batches:
        file.write(unit(vectors).astype("<f4").tobytes())


class StoredVectors:
    """The rows of an index file of a kind that keeps them: Flat, HNSW, IVF, SQ, or IDMap of these.

    number: of rows. Where rows have ids, as in an IDMap, those must be the numbers of lines.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            open_regular(path).close()  # FAISS would report a folder as damaged, and wait at a pipe
            index = faiss.read_index(str(path), READING)
            self.dimension, self.number = int(index.d), int(index.ntotal)
            # subtle: an IDMap deletes its inner index when it goes, so both are kept.
            self._outer = index
            self._index, self._places = _inner(index)
        except OSError as error:
            raise _unreadable(path, str(error.strerror)) from None
        except RuntimeError as error:
            raise _unreadable(path, _first_line(error)) from None
        except ValueError as error:
            raise _unreadable(path, str(error)) from None

    def rows(self, begin: int, end: int) -> Vectors:
        """Return the vectors of these lines, float32 (B, D); raises BadSettings for a bad one."""
        if self._places is None and isinstance(self._index, faiss.IndexFlat):
            found = np.asarray(self._index.reconstruct_n(begin, end - begin))
        else:
            # subtle: FAISS reads other kinds on several threads; an error there ends the process.
            found = np.empty((end - begin, self.dimension), dtype=np.float32)
            for row in range(begin, end):
                place = row if self._places is None else int(self._places[row])
                self._index.reconstruct(place, found[row - begin])
        wrong = np.flatnonzero(~np.isfinite(found).all(axis=1))
        if len(wrong):
            row = begin + int(wrong[0])
            raise _unreadable(self._path, f"vector {row} has a number that is not finite")
        return found


def _inner(index: faiss.Index) -> tuple[faiss.Index, Labels | None]:
    """Return the index that keeps the rows, and each line's place in it; None: they are the same.

    Raises ValueError or RuntimeError where lines are not known or rows cannot be read.
    """
    places = None
    if isinstance(index, faiss.IndexIDMap):
        ids = faiss.vector_to_array(index.id_map)
        places = np.argsort(ids)
        if not np.array_equal(ids[places], np.arange(len(ids))):
            raise ValueError(f"its ids are not the numbers of lines, 0 to {len(ids) - 1}")
        index = faiss.downcast_index(index.index)
    if not isinstance(index, KEEPING):
        raise ValueError(f"{type(index).__name__} does not keep its vectors")
    if isinstance(index, faiss.IndexIVF):
        index.make_direct_map()
    return index, places


def _unreadable(path: Path, why: str) -> BadSettings:
    return BadSettings(
        "the vectors of {path} cannot be read: {why}; index the texts without them: index TEXTS",
        path=path,
        why=why,
    )


def _first_line(error: RuntimeError) -> str:
    """Return FAISS's message without the place in its source before it."""
    return str(error).rpartition(": ")[2].splitlines()[0]
