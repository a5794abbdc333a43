"""The file of a local index: every byte has a checksum, and it is replaced whole or not at all."""

import os
import struct
import uuid
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from server.store.local_index.exact import Exact, Segment
from server.store.local_index.fastscan import Scan
from server.store.local_index.fastscan_block import (
    Block,
    Quantiser,
    packed,
    unpacked,
    unpacked_codec,
    width_of,
)
from server.store.local_index.rows import Held, Rows, SnapshotFile, Stored
from server.system.atomic_file import replacing
from server.system.regular_file import open_regular

# A snapshot is HEADER, then records: RECORD and as many bytes. First COUNTS. If there are blocks, the
# axes, the codec, the centroids and guides of the lists, and of every block labels, alive, codes, scales, high and
# low halves of rows. Of every segment labels, rows.
HEADER = struct.Struct("<8s16sI")  # MAGIC, identity of the database, D
RECORD = struct.Struct("<QI")  # bytes, CRC-32 of them
COUNTS = struct.Struct("<IIQQIIddd")  # segments, blocks, the numbers of a Scan in their order
MAGIC = b"INKWELL4"

# Low halves read or written at once.
PART_ROWS, PART_BYTES = 4096, 1 << 21

Bytes = npt.NDArray[np.uint8]


def write(path: Path, dimension: int, identity: uuid.UUID, scan: Scan | None, tail: Exact) -> None:
    """Replace the file; raises OSError, and then the old file is still there."""
    # A fixed name: the next write overwrites what a killed process left.
    starts = []
    with replacing(path, scratch=path.with_name(path.name + ".tmp")) as file:
        file.write(HEADER.pack(MAGIC, identity.bytes, dimension))
        for content in _contents(scan, tail):
            if isinstance(content, Rows):
                starts.append(_write_low(file, content))
            else:
                file.write(RECORD.pack(len(content), zlib.crc32(content)))
                file.write(content)
        written = os.fstat(file.fileno())
    if scan is not None and scan.quantiser.lists > 1:
        _move(scan, path, written, starts)


def _write_low(file: BinaryIO, rows: Rows) -> int:
    """Write the low halves, which may lie in another file, and return where they begin."""
    checksum, size = 0, rows.high.nbytes
    for part in _low_parts(rows):
        checksum = zlib.crc32(part, checksum)
    file.write(RECORD.pack(size, checksum))
    start = file.tell()
    for part in _low_parts(rows):
        file.write(part)
    return start


def _low_parts(rows: Rows) -> Iterator[memoryview]:
    for start in range(0, len(rows), PART_ROWS):
        yield _bytes(np.ascontiguousarray(rows.low.slice(start, start + PART_ROWS)))


def _move(scan: Scan, path: Path, written: os.stat_result, starts: list[int]) -> None:
    """Let the rows of a large index read their low halves from the file that was just written."""
    try:
        file = SnapshotFile(path)
    except OSError:
        return  # They stay where they are.
    if file.is_same(written):
        for block, start in zip(scan.blocks, starts, strict=True):
            block.rows.move(file, start)


def _contents(scan: Scan | None, tail: Exact) -> Iterator[memoryview | Rows]:
    if scan is None:
        yield memoryview(COUNTS.pack(len(tail.segments), 0, 0, 0, 0, 0, 0.0, 0.0, 0.0))
    else:
        sizes = (len(tail.segments), len(scan.blocks), scan.trained_on, scan.measured_on)
        effort = (scan.candidates, scan.probes, scan.recall_at_10, scan.error, scan.reach)
        yield memoryview(COUNTS.pack(*sizes, *effort))
        yield _bytes(scan.quantiser.axes)
        yield packed(scan.quantiser.codec).data
        yield _bytes(scan.quantiser.centroids)
        yield packed(scan.quantiser.guides).data
        for block in scan.blocks:
            yield _bytes(block.labels)
            yield _bytes(block.alive)
            yield packed(block.codes).data
            yield _bytes(block.rows.scales)
            yield _bytes(block.rows.high)
            yield block.rows
    for segment in tail.segments:
        yield _bytes(segment.labels)
        yield _bytes(segment.rows)


def _bytes(array: npt.NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def read(path: Path, dimension: int, identity: uuid.UUID) -> tuple[Scan | None, Exact]:
    """Read blocks and tail; raises OSError, and struct.error or ValueError where a byte is wrong."""
    with open_regular(path) as file:
        magic, owner, found = HEADER.unpack(file.read(HEADER.size))
        if magic != MAGIC:
            raise ValueError("not a snapshot of this version")
        if owner != identity.bytes:
            raise ValueError("made from another database")
        if found != dimension:
            raise ValueError(f"dimension {found}, not {dimension}")
        n_segments, n_blocks, *numbers = COUNTS.unpack(_record(file).data)
        scan = _scan(path, file, dimension, n_blocks, numbers) if n_blocks else None
        tail = Exact(tuple(_segment(file, dimension) for _ in range(n_segments)))
        if file.read(1):
            raise ValueError("more bytes than it should have")
    return scan, tail


def _scan(
    path: Path, file: BufferedReader, dimension: int, n_blocks: int, numbers: list[Any]
) -> Scan:
    axes = _record(file).view(np.float32).reshape(-1, dimension)
    codec = unpacked_codec(_record(file))
    # Their width is that of `train`.
    centroids = _record(file).view(np.float32).reshape(-1, width_of(codec))
    guides = unpacked_codec(_record(file), len(centroids))
    quantiser = Quantiser.of(axes, codec, centroids, guides)
    # As `write` leaves them.
    whole = _opened(path, file) if quantiser.lists > 1 else None
    blocks = tuple(_block(file, whole, dimension) for _ in range(n_blocks))
    return Scan(quantiser, blocks, *numbers)


def _opened(path: Path, file: BufferedReader) -> SnapshotFile:
    whole = SnapshotFile(path)
    if not whole.is_same(os.fstat(file.fileno())):
        raise ValueError("replaced while it was read")
    return whole


def _block(file: BufferedReader, whole: SnapshotFile | None, dimension: int) -> Block:
    """Read a block; whole: the file that keeps the low halves, None where memory does."""
    labels, alive = _record(file).view(np.int64), _record(file).view(np.bool_)
    codes = unpacked(_record(file), len(labels))
    scales = _record(file).view(np.float32)
    high = _record(file).view(np.int8).reshape(len(labels), dimension)
    low: Held | Stored
    if whole is None:
        low = Held(_record(file).view(np.int8).reshape(high.shape))
    else:
        low = Stored(whole, file.tell() + RECORD.size, *high.shape)
        if _passed(file) != high.nbytes:
            raise ValueError("low halves of other rows")
    return Block.of(labels, Rows(scales, high, low), codes, alive)


def _passed(file: BufferedReader) -> int:
    """Check a record that is not kept in memory; returns its length."""
    length, checksum = RECORD.unpack(file.read(RECORD.size))
    found, left = 0, length
    while left:
        part = file.read(min(left, PART_BYTES))
        if not part:
            break
        found, left = zlib.crc32(part, found), left - len(part)
    if left or found != checksum:
        raise ValueError(f"damaged or cut short before byte {file.tell()}")
    return int(length)


def _segment(file: BufferedReader, dimension: int) -> Segment:
    labels = _record(file).view(np.int64)
    return Segment.of(labels, _record(file).view(np.float32).reshape(len(labels), dimension))


def _record(file: BufferedReader) -> Bytes:
    length, checksum = RECORD.unpack(file.read(RECORD.size))
    # A damaged length must not allocate more memory than the file could fill.
    content = np.empty(min(length, os.fstat(file.fileno()).st_size), dtype=np.uint8)
    # subtle: bytes that are not read keep what the memory held before, maybe the very bytes missing.
    n_read = file.readinto(content.data)
    # FAISS has no checksums: it would read damaged bytes as other vectors.
    if n_read != length or zlib.crc32(content.data) != checksum:
        raise ValueError(f"damaged or cut short before byte {file.tell()}")
    return content
