"""Arranges vectors for searching: blocks from the tail, bigger blocks from small ones.

A compaction works on values that never change, in a thread of its own: searches and writes go on
beside it. It codes the rows of the tail, of small blocks and of blocks with many deleted rows. Blocks that
are only many are joined, without coding a row again.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from server.store.local_index.calibration import measured
from server.store.local_index.drawing import Source, drawn
from server.store.local_index.fastscan import Scan
from server.store.local_index.fastscan_block import Block, Quantiser, joined, train
from server.store.local_index.rows import SLICE_ROWS, Rows
from server.store.selection import found_in
from server.types import Vectors

# One pass over 1,020,192 codes for 500 candidates takes 4.8 / 4.0 / 3.6 / 3.0 ms in blocks of 32,768 /
# 65,536 / 131,072 / 262,144 rows; a block of the last size is copied in 0.1 s and coded in 3
# (2026-11-24, 2-core VM, AVX512-VNNI, 512 wide, one thread).
BLOCK_ROWS = 262_144
# A block with fewer rows than an eighth of that, or with a quarter of them dead, is rebuilt.
SMALLEST_SHARE = 0.125
ALIVE_SHARE = 0.75
# Blocks are joined up to this size: a list of 8,192 has 30 rows in each of four blocks of a million, and
# then most of the time goes into beginning lists. Joining takes 1 us a row, and memory for both.
MOST_ROWS = 10 * BLOCK_ROWS
# More new rows than these in a compaction come from a start without a snapshot, or from an import.
MANY_ROWS = BLOCK_ROWS // 4
# PCA and k-means on more rows than these find nothing better.
SAMPLE_ROWS = 16_384
# Below this, reading all codes takes 1.5 ms at most.
LISTS_FROM = 300_000
# Measured 2026-11-30: a million vectors, 300 and more questions on other subjects; how much of all must be
# read for 0.99 of ten neighbours: 0.20 with 2,048 lists, 0.15 with 4,096, 0.09 with 8,192, 0.05 with
# 16,384. Then choosing lists takes as long as reading them.
LISTS_A_ROOT = 8
ROWS_A_LIST = 16
# Codes of vectors shorter than WIDE that find less than this of the ten nearest are not used, where comparing all
# costs so many products at most, 15 ms. Vectors of 8 / 16 / 32 numbers without structure, 100,000 of them,
# 2026-11-30: codes find 0.67 / 0.81 / 0.92 in 0.7 / 0.9 / 0.9 ms, comparing all takes 0.5 / 0.7 / 0.9 ms.
LEAST_RECALL, MOST_PRODUCTS, WIDE = 0.98, 50_000_000, 64
# Codes are of two pieces at least, and a piece of two numbers.
NARROWEST = 4
# At so many times the rows, the quantiser is trained again: new documents may be unlike the first.
RETRAIN_GROWTH = 4
# At so many times the rows, or with new codes, recall is measured again: 3 s for a million rows.
MEASURE_GROWTH = 1.5


def compacted(
    scan: Scan | None, sources: list[Source], queries: Vectors | None = None
) -> Scan | None:
    """Return a scan of the vectors that are alive and these rows, with few dead rows in its blocks.

    None where codes would find too few, and comparing all costs no more. queries: past ones, to calibrate with.
    """
    held = () if scan is None else scan.blocks
    kept = [block for block in held if not (wants_rebuild(block) or is_small(block))]
    loose = [block.source() for block in held if block not in kept] + sources
    number = sum(block.n_alive for block in held) + sum(len(some.labels) for some in sources)
    if scan is None or _wants_training(scan, number):
        quantiser = _trained([*(block.source() for block in kept), *loose], number)
        scan = Scan(quantiser, (), number)
        kept = [
            Block.of(block.labels, block.rows, quantiser.coded(block.rows), block.alive)
            for block in kept
        ]
    new = sum(len(some.labels) for some in sources)
    blocks = [*kept, *_built(scan.quantiser, loose)]
    scan = replace(scan, blocks=tuple(_joined(scan.quantiser, blocks, many=new > MANY_ROWS)))
    if number >= MEASURE_GROWTH * scan.measured_on:
        guided = replace(scan, quantiser=scan.quantiser.guided_by(scan.blocks))
        scan = measured(guided, queries)
    return scan if is_useful(scan) else None


def is_useful(scan: Scan) -> bool:
    """Return whether codes find enough, or comparing all would cost more."""
    dimension = scan.quantiser.turn.d_in
    cheap = dimension < WIDE and len(scan) * dimension <= MOST_PRODUCTS
    return scan.recall_at_10 >= LEAST_RECALL or not cheap


def lists_for(number: int) -> int:
    """Return how many lists to learn from so many vectors: a power of two, as it suits twice as many."""
    if number < LISTS_FROM:
        return 1
    return 1 << round(math.log2(LISTS_A_ROOT * math.sqrt(2 * number)))


def wants_rebuild(block: Block) -> bool:
    """Return whether too many of a block's rows are dead."""
    return block.n_alive < ALIVE_SHARE * len(block.labels)


def is_small(block: Block) -> bool:
    """Return whether a block should be joined with others."""
    return block.n_alive < SMALLEST_SHARE * BLOCK_ROWS


def _wants_training(scan: Scan, number: int) -> bool:
    grown = number >= RETRAIN_GROWTH * scan.trained_on
    return grown or (scan.quantiser.lists == 1 and lists_for(number) > 1)


def _trained(sources: list[Source], number: int) -> Quantiser:
    lists = lists_for(number)
    wide = None if lists == 1 else drawn(sources, lists * ROWS_A_LIST, seed=1)
    return train(drawn(sources, SAMPLE_ROWS), lists, wide)


def _joined(quantiser: Quantiser, blocks: Sequence[Block], *, many: bool) -> list[Block]:
    """Join blocks, the smallest first, as far as the result is not too large; small ones stay apart.

    A small one will be built again soon, with the rows of the next tail. many: rows come in by the hundred
    thousand, so that a block is joined only with one of its own size: each row is copied a few times then.
    """
    apart, large = [block for block in blocks if is_small(block)], _large(blocks)
    while len(large) > 1:
        larger, smaller = large[-2:]
        alike = _size(larger) < 2 * _size(smaller)
        if _size(larger) + _size(smaller) > MOST_ROWS or (many and not alike):
            break
        large[-2:] = [joined(quantiser, larger, smaller)]
        large.sort(key=_size, reverse=True)
    return [*large, *apart]


def are_many(blocks: Sequence[Block]) -> bool:
    """Return whether some of these blocks can be joined."""
    return len(large := _large(blocks)) > 1 and _size(large[-1]) + _size(large[-2]) <= MOST_ROWS


def _large(blocks: Sequence[Block]) -> list[Block]:
    return sorted((block for block in blocks if not is_small(block)), key=_size, reverse=True)


def _size(block: Block) -> int:
    return len(block.labels)


def _built(quantiser: Quantiser, sources: list[Source]) -> Iterator[Block]:
    """Yield blocks of equal sizes; labels ascend from one to the next."""
    held = [some.labels[some.labels >= 0] for some in sources]
    labels = np.sort(np.concatenate([np.empty(0, dtype=np.int64), *held]))
    for some_labels in (
        np.array_split(labels, math.ceil(len(labels) / BLOCK_ROWS)) if len(labels) else ()
    ):
        rows = Rows.empty(len(some_labels), quantiser.turn.d_in)
        for some in sources:
            places, there = found_in(some_labels, some.labels)
            inside = np.flatnonzero(there)
            for start in range(0, len(inside), SLICE_ROWS):
                piece = inside[start : start + SLICE_ROWS]
                rows.put(places[piece], some.take(piece))
        yield Block.of(some_labels, rows, quantiser.coded(rows))
