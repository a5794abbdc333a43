"""Nearest vectors by cosine with FAISS, exactly; derived from the documents, never the truth.

How this works. An `Index` is a value: it never changes, and `plus` and `minus` return another. The
collection swaps one reference, so a search uses one index from start to end: it never sees half an
update, waits for no write, and there is no lock. What makes that affordable is that the vectors
lie in segments of up to SEGMENT_ROWS rows which the old and the new index share; a write copies
only the segments it touches, all others are the same objects. A search asks every segment and
merges. An approximate kind of segment, or one made of several, can stand beside the exact one.

Vectors and queries are scaled to unit length here, so that scores are cosines.
"""

import os
import struct
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import faiss
import numpy as np

from server.store import Labels
from server.types import Vectors

# Measured 2026-11-23 on a 2-core VM, 512 wide: copying a segment of 4,096 / 8,192 / 16,384 rows
# takes 0.9 / 2.3 / 20 ms (from there on fresh pages cost more than the copy), searching one
# 0.17 / 0.56 / 1.2 ms, and asking one more segment costs 10 us.
SEGMENT_ROWS = 8192

# A snapshot is HEADER, then for every segment RECORD and as many bytes as FAISS made of it.
HEADER = struct.Struct("<8s16sII")  # MAGIC, identity of the database, D, number of segments
RECORD = struct.Struct("<QI")  # bytes, CRC-32 of them
MAGIC = b"INKWELL1"


class BadSnapshot(Exception):
    """The file is no snapshot of this database; the index must be made anew from the documents.

    No ServerError: it never leaves the store.
    """


@dataclass(frozen=True, slots=True)
class Hits:
    """The nearest of Q queries, best first.

    scores: float32 (Q, K), cosines, -inf where fewer than K vectors exist.
    labels: int64 (Q, K), -1 where fewer than K exist.
    """

    scores: Vectors
    labels: Labels


class Index:
    """An immutable set of labelled unit vectors; empty unless given segments."""

    def __init__(self, dimension: int, segments: tuple[faiss.IndexIDMap2, ...] = ()) -> None:
        self.dimension = dimension
        self._segments = segments

    def __len__(self) -> int:
        return sum(segment.ntotal for segment in self._segments)

    @property
    def labels(self) -> Labels:
        """Of all vectors, int64 (N,), in no order."""
        held = [_labels(segment) for segment in self._segments]
        return np.concatenate([np.empty(0, dtype=np.int64), *held])

    def plus(self, labels: Labels, vectors: Vectors) -> "Index":
        """Return this index and these vectors, float32 (B, D), under labels it does not hold yet.

        A vector of zeros stays one: its cosine with everything is 0. Raises ValueError for vectors
        that are not finite.
        """
        rows = _unit(vectors, self.dimension)
        segments = list(self._segments)
        for start in range(0, len(labels), SEGMENT_ROWS):
            part = slice(start, start + SEGMENT_ROWS)
            # The smallest, so that segments thinned by deletes fill up again.
            smallest = min(segments, key=lambda segment: segment.ntotal, default=None)
            if smallest is not None and smallest.ntotal + len(labels[part]) <= SEGMENT_ROWS:
                segments.remove(smallest)
                segment = _copy(smallest)
            else:
                segment = faiss.IndexIDMap2(faiss.IndexFlatIP(self.dimension))
            segment.add_with_ids(rows[part], labels[part])
            segments.append(segment)
        return Index(self.dimension, tuple(segments))

    def minus(self, labels: Labels) -> "Index":
        """Return this index without these labels; those it does not hold are skipped."""
        if not len(labels):
            return self
        segments = []
        for segment in self._segments:
            n_gone = int(np.isin(_labels(segment), labels).sum())
            if n_gone == segment.ntotal:
                continue
            if n_gone:
                segment = _copy(segment)
                segment.remove_ids(faiss.IDSelectorBatch(labels))
            segments.append(segment)
        return Index(self.dimension, tuple(segments))

    def search(self, vectors: Vectors, k: int) -> Hits:
        """The `k` nearest of each row of `vectors`, float32 (Q, D); one thread."""
        # subtle: OpenMP keeps this setting for the calling thread only, so every search sets it.
        faiss.omp_set_num_threads(1)
        queries = _unit(vectors, self.dimension)
        found = [segment.search(queries, min(k, segment.ntotal)) for segment in self._segments]
        absent = np.full((len(queries), k), -np.inf, dtype=np.float32)
        scores = np.concatenate([*(scores for scores, _ in found), absent], axis=1)
        labels = np.concatenate(
            [*(labels for _, labels in found), np.full(absent.shape, -1, dtype=np.int64)], axis=1
        )
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]  # (Q, K)
        return Hits(np.take_along_axis(scores, best, 1), np.take_along_axis(labels, best, 1))

    def save(self, path: Path, identity: uuid.UUID) -> None:
        """Write a snapshot that replaces the last one whole or not at all; raises OSError.

        identity: of the database that this index was derived from.
        """
        temporary = path.with_name(path.name + ".tmp")
        try:
            with temporary.open("wb") as file:
                count = len(self._segments)
                file.write(HEADER.pack(MAGIC, identity.bytes, self.dimension, count))
                for segment in self._segments:
                    body = faiss.serialize_index(segment).data
                    file.write(RECORD.pack(len(body), zlib.crc32(body)))
                    file.write(body)
                file.flush()
                # Without it the rename could reach the disk before the bytes. The rename itself
                # may get lost: the snapshot before it is as good.
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: Path, dimension: int, identity: uuid.UUID) -> "Index":
        """Read a snapshot; raises BadSnapshot unless every byte is as it was saved."""
        try:
            with path.open("rb") as file:
                return cls(dimension, _read_segments(file, dimension, identity))
        except OSError as error:
            raise BadSnapshot(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, struct.error) as error:
            raise BadSnapshot(f"{path} is of no use: {error}") from None


def _read_segments(
    file: BinaryIO, dimension: int, identity: uuid.UUID
) -> tuple[faiss.IndexIDMap2, ...]:
    """All of a snapshot; raises struct.error or ValueError where it is not as it should be."""
    magic, owner, found_dimension, count = HEADER.unpack(file.read(HEADER.size))
    if magic != MAGIC:
        raise ValueError("not a snapshot of this version")
    if owner != identity.bytes:
        raise ValueError("made from another database")
    if found_dimension != dimension:
        raise ValueError(f"dimension {found_dimension}, not {dimension}")
    segments = tuple(_read_segment(file, dimension) for _ in range(count))
    if file.read(1):
        raise ValueError("more bytes than it should have")
    return segments


def _read_segment(file: BinaryIO, dimension: int) -> faiss.IndexIDMap2:
    length, checksum = RECORD.unpack(file.read(RECORD.size))
    # A damaged length must not ask for more memory than the file could fill.
    body = file.read(min(length, os.fstat(file.fileno()).st_size))
    # FAISS has no checksum of its own: it would read damaged bytes as other vectors.
    if zlib.crc32(body) != checksum:
        raise ValueError(f"damaged or cut short before byte {file.tell()}")
    try:
        segment = faiss.deserialize_index(np.frombuffer(body, dtype=np.uint8))
    except RuntimeError as error:
        raise ValueError(f"not readable by this FAISS: {error}") from None
    if not isinstance(segment, faiss.IndexIDMap2) or segment.d != dimension:
        raise ValueError("another kind of index inside")
    return segment


def _copy(segment: faiss.IndexIDMap2) -> faiss.IndexIDMap2:
    return cast(faiss.IndexIDMap2, faiss.clone_index(segment))


def _labels(segment: faiss.IndexIDMap2) -> Labels:
    return faiss.vector_to_array(segment.id_map)


def _unit(vectors: Vectors, dimension: int) -> Vectors:
    assert vectors.ndim == 2 and vectors.shape[1] == dimension
    if not np.isfinite(vectors).all():
        raise ValueError("a vector has a value that is not finite")
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)
