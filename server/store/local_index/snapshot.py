"""The file of a local index: every byte has a checksum, and it is replaced whole or not at all."""

import os
import struct
import uuid
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from server.store.local_index.exact import Exact, Segment
from server.store.local_index.fastscan import Scan
from server.store.local_index.fastscan_block import Block, Quantiser, packed, unpacked
from server.system.atomic_file import replacing
from server.system.regular_file import open_regular

# A snapshot is HEADER, then records: RECORD and as many bytes. First COUNTS. If there are blocks, the
# axes and the codec, and of every block labels, alive, codes, rows. Of every segment labels, rows.
HEADER = struct.Struct("<8s16sI")  # MAGIC, identity of the database, D
RECORD = struct.Struct("<QI")  # bytes, CRC-32 of them
COUNTS = struct.Struct("<IIQQId")  # segments, blocks, the numbers of a Scan in their order
MAGIC = b"INKWELL2"

Bytes = npt.NDArray[np.uint8]


def write(path: Path, dimension: int, identity: uuid.UUID, scan: Scan | None, tail: Exact) -> None:
    """Replace the file; raises OSError, and then the old file is still there."""
    # A fixed name: the next write overwrites what a killed process left.
    with replacing(path, scratch=path.with_name(path.name + ".tmp")) as file:
        file.write(HEADER.pack(MAGIC, identity.bytes, dimension))
        for content in _contents(scan, tail):
            file.write(RECORD.pack(len(content), zlib.crc32(content)))
            file.write(content)


def _contents(scan: Scan | None, tail: Exact) -> Iterator[memoryview]:
    if scan is None:
        yield memoryview(COUNTS.pack(len(tail.segments), 0, 0, 0, 0, 0.0))
    else:
        numbers = (scan.trained_on, scan.measured_on, scan.candidates, scan.recall_at_10)
        yield memoryview(COUNTS.pack(len(tail.segments), len(scan.blocks), *numbers))
        yield _bytes(scan.quantiser.axes)
        yield packed(scan.quantiser.codec).data
        for block in scan.blocks:
            yield _bytes(block.labels)
            yield _bytes(block.alive)
            yield packed(block.codes).data
            yield _bytes(block.rows)
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
        scan = _scan(file, dimension, n_blocks, numbers) if n_blocks else None
        tail = Exact(tuple(_segment(file, dimension) for _ in range(n_segments)))
        if file.read(1):
            raise ValueError("more bytes than it should have")
    return scan, tail


def _scan(file: BufferedReader, dimension: int, n_blocks: int, numbers: list[Any]) -> Scan:
    axes = _record(file).view(np.float32).reshape(-1, dimension)
    quantiser = Quantiser.of(axes, unpacked(_record(file), 0))
    blocks = tuple(_block(file, dimension) for _ in range(n_blocks))
    return Scan(quantiser, blocks, *numbers)


def _block(file: BufferedReader, dimension: int) -> Block:
    labels, alive = _record(file).view(np.int64), _record(file).view(np.bool_)
    codes = unpacked(_record(file), len(labels))
    rows = _record(file).view(np.float16).reshape(len(labels), dimension)
    return Block.of(labels, rows, codes, alive)


def _segment(file: BufferedReader, dimension: int) -> Segment:
    labels = _record(file).view(np.int64)
    return Segment(labels, _record(file).view(np.float32).reshape(len(labels), dimension))


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
