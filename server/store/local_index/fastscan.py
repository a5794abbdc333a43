"""The blocks of a large index, the quantiser they share, and the recall measured with it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from server.store.local_index.exact import members, merged
from server.store.local_index.fastscan_block import (
    SLICE_ROWS,
    Block,
    Candidates,
    Quantiser,
    Rows,
    train,
)
from server.store.selection import Selection
from server.store.vector_index import Hits
from server.types import Labels, Vectors, unit

# One pass over 1,020,192 codes for 500 candidates takes 4.8 / 4.0 / 3.6 / 3.0 ms in blocks of 32,768 /
# 65,536 / 131,072 / 262,144 rows; a block of the last size is copied in 0.1 s and coded in 3
# (2026-11-24, 2-core VM, AVX512-VNNI, 512 wide, one thread).
BLOCK_ROWS = 262_144
# A block with fewer rows than half of that, or with a quarter of them dead, is rebuilt.
SMALLEST_SHARE = 0.5
ALIVE_SHARE = 0.75
# A search for more than 10 neighbours scores this many more candidates for each of them.
CANDIDATES_A_NEIGHBOUR = 5
# PCA and k-means on more rows than these find nothing better.
SAMPLE_ROWS = 16_384
# At so many times the rows, the quantiser is trained again: new documents may be unlike the first.
RETRAIN_GROWTH = 4
# At so many times the rows, or with new codes, recall is measured again: 3 s for a million rows.
MEASURE_GROWTH = 1.25

# Neighbours at which recall is measured, and the recall required on queries harder than real ones.
DEPTH = 10
TARGET_RECALL = 0.995
LADDER = (100, 150, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 4000)
MEASURE_QUERIES = 64
PROBE_QUERIES = 16
# A query is the sum of this many vectors drawn at random. Recall@10 among 1,020,192 vectors (2026-11-24,
# as in `block`) with 100 / 200 / 500 candidates: real questions 0.957 / 0.988 / 0.999; one vector
# with as much noise as itself 1.000 / 1.000 / 1.000, far too easy; three vectors 0.971 / 0.987 /
# 0.996; four 0.907 / 0.963 / 0.990. With four, 64 queries are enough to stay on the safe side.
VECTORS_A_QUERY = 4


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Rows to build from: labels int64 (n,), -1 where deleted; (n, D), float16 or float32."""

    labels: Labels
    rows: Rows | Vectors


@dataclass(frozen=True, slots=True)
class Scan:
    """Blocks that are searched by their codes, then by their rows; immutable.

    trained_on, measured_on: how many rows there were. candidates: how many a search scores.
    recall_at_10: of searches with that many, on generated queries.
    """

    quantiser: Quantiser
    blocks: tuple[Block, ...]
    trained_on: int
    measured_on: int = 0
    candidates: int = LADDER[0]
    recall_at_10: float = 0.0

    def __len__(self) -> int:
        return sum(block.n_alive for block in self.blocks)

    @property
    def labels(self) -> Labels:
        return np.concatenate([block.labels[block.alive] for block in self.blocks])

    @property
    def n_dead(self) -> int:
        return sum(len(block.labels) for block in self.blocks) - len(self)

    @property
    def bytes_held(self) -> int:
        return self.quantiser.axes.nbytes + sum(block.bytes_held for block in self.blocks)

    def minus(self, labels: Labels) -> "Scan":
        labels = np.sort(labels)
        return replace(self, blocks=tuple(block.minus(labels) for block in self.blocks))

    def search(self, queries: Vectors, k: int, within: Selection | None) -> Iterator[Hits]:
        """Yield the nearest of each block; queries: float32 (Q, D) of unit length."""
        turned = self.quantiser.turned(queries)
        wanted = self.candidates + CANDIDATES_A_NEIGHBOUR * max(0, k - DEPTH)
        coded: list[tuple[Block, list[Candidates]]] = []
        for block in self.blocks:
            candidates = block.candidates(turned, within, wanted)
            if candidates is not None:
                coded.append((block, candidates))
            else:
                yield block.scored(queries, block.selected(within), k)
        if coded and len(queries):
            rows = [
                _best(coded, wanted, query, queries[query : query + 1], k)
                for query in range(len(queries))
            ]
            yield Hits(
                np.concatenate([hits.scores for hits in rows]),
                np.concatenate([hits.labels for hits in rows]),
            )


def _best(
    coded: list[tuple[Block, list[Candidates]]], wanted: int, number: int, query: Vectors, k: int
) -> Hits:
    """Score the `wanted` best candidates of query `number` over all blocks."""
    estimates = np.concatenate([candidates[number].estimates for _, candidates in coded])
    worst = -math.inf
    if len(estimates) > wanted:
        worst = float(-np.partition(-estimates, wanted - 1)[wanted - 1])
    found = []
    for block, candidates in coded:
        mine = candidates[number]
        found.append(block.scored(query, mine.places[mine.estimates >= worst], k))
    return merged(found, 1, k)


def compacted(scan: Scan | None, sources: list[Source]) -> Scan:
    """Return a scan of the vectors that are alive and these rows, with few dead rows in its blocks."""
    blocks = () if scan is None else scan.blocks
    kept = [block for block in blocks if not (wants_rebuild(block) or is_small(block))]
    loose = [source(block) for block in blocks if block not in kept] + sources
    number = sum(block.n_alive for block in blocks) + sum(len(some.labels) for some in sources)
    if scan is None or number >= RETRAIN_GROWTH * scan.trained_on:
        quantiser = train(_drawn([*map(source, kept), *loose], SAMPLE_ROWS))
        scan = Scan(quantiser, (), number)
        kept = [
            Block.of(block.labels, block.rows, quantiser.coded(block.rows), block.alive)
            for block in kept
        ]
    scan = replace(scan, blocks=(*kept, *_built(scan.quantiser, loose)))
    return _measured(scan) if number >= MEASURE_GROWTH * scan.measured_on else scan


def wants_rebuild(block: Block) -> bool:
    """Return whether too many of a block's rows are dead."""
    return block.n_alive < ALIVE_SHARE * len(block.labels)


def is_small(block: Block) -> bool:
    """Return whether a block should be joined with others."""
    return block.n_alive < SMALLEST_SHARE * BLOCK_ROWS


def source(block: Block) -> Source:
    """Return the rows of a block, to build another from."""
    return Source(np.where(block.alive, block.labels, -1), block.rows)


def _built(quantiser: Quantiser, sources: list[Source]) -> Iterator[Block]:
    """Yield blocks of equal sizes; labels ascend from one to the next."""
    held = [some.labels[some.labels >= 0] for some in sources]
    labels = np.sort(np.concatenate([np.empty(0, dtype=np.int64), *held]))
    for some_labels in (
        np.array_split(labels, math.ceil(len(labels) / BLOCK_ROWS)) if len(labels) else ()
    ):
        rows = np.empty((len(some_labels), sources[0].rows.shape[1]), dtype=np.float16)
        for some in sources:
            inside = np.flatnonzero(members(some.labels, some_labels))
            places = np.searchsorted(some_labels, some.labels[inside])
            for start in range(0, len(inside), SLICE_ROWS):
                piece = slice(start, start + SLICE_ROWS)
                rows[places[piece]] = some.rows[inside[piece]]
        yield Block.of(some_labels, rows, quantiser.coded(rows))


def _drawn(sources: list[Source], most: int, seed: int = 0) -> Vectors:
    """Draw rows from all that are alive: float32 (n, D), in their order."""
    alive = [np.flatnonzero(some.labels >= 0) for some in sources]
    ends = np.cumsum([len(places) for places in alive])
    chosen = np.arange(ends[-1])
    if len(chosen) > most:
        chosen = np.unique(np.random.default_rng(seed).integers(ends[-1], size=most))
    parts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
    starts = ends - [len(places) for places in alive]
    return np.concatenate(
        [
            some.rows.take(places[part - start], axis=0).astype(np.float32)
            for some, places, part, start in zip(sources, alive, parts, starts, strict=True)
        ]
    )


def _questions(drawn: Vectors, seed: int) -> Vectors:
    """Make queries of a few drawn rows each: float32 (Q, D) of unit length."""
    number = len(drawn) // VECTORS_A_QUERY
    mixed = np.random.default_rng(seed).permutation(drawn)[: number * VECTORS_A_QUERY]
    queries = mixed.reshape(number, VECTORS_A_QUERY, -1).sum(axis=1)
    return unit(queries)


@dataclass(frozen=True, slots=True)
class Trial:
    """Queries, float32 (Q, D), and the score of the DEPTH-th nearest of each, (Q, 1)."""

    queries: Vectors
    needed: Vectors

    @classmethod
    def of(cls, scan: Scan, n_queries: int, seed: int) -> "Trial":
        drawn = _drawn([*map(source, scan.blocks)], n_queries * VECTORS_A_QUERY, seed)
        queries = _questions(drawn, seed + 1)
        exact = [block.scored(queries, block.selected(None), DEPTH) for block in scan.blocks]
        # Ties count as found.
        return cls(queries, merged(exact, len(queries), DEPTH).scores[:, -1:] - 1e-6)

    def recall(self, scan: Scan) -> float:
        hits = merged(list(scan.search(self.queries, DEPTH, None)), len(self.queries), DEPTH)
        return float((hits.scores >= self.needed).mean())


def _measured(scan: Scan) -> Scan:
    """Return the scan with the fewest candidates that reach the target recall."""
    trial, recall = Trial.of(scan, MEASURE_QUERIES, 0), 0.0
    for candidates in LADDER:
        scan = replace(scan, candidates=candidates)
        recall = trial.recall(scan)
        if recall >= TARGET_RECALL:
            break
    return replace(scan, measured_on=len(scan), recall_at_10=recall)


def probed(scan: Scan, seed: int) -> float:
    """Measure recall@10 of a scan in use; another seed tries other queries."""
    return Trial.of(scan, PROBE_QUERIES, seed).recall(scan)
