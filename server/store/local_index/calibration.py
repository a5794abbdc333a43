"""How many candidates and lists a search needs, measured with queries whose neighbours are known.

Past queries are the best ones, where the caller has some. Others are made of the vectors themselves, so
that they are harder than most real ones.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from server.store.local_index.drawing import drawn
from server.store.local_index.exact import merged
from server.store.local_index.fastscan import (
    DEPTH,
    MOST_CANDIDATES,
    Chosen,
    Found,
    Scan,
    candidates,
    every,
)
from server.store.local_index.fastscan_block import Block
from server.store.local_index.rows import Places
from server.types import Vectors, unit

# Of queries made here, which are easier than some real ones; of past queries.
TARGET_RECALL, PAST_RECALL = 0.995, 0.992
LADDER = (100, 150, 200, 300, 500, 700, 1000, 1500, 2000, 3000, MOST_CANDIDATES)
# Of all lists, in sixty-fourths.
PROBED = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 32, 48, 64)
# Nanoseconds to read a code and to score a candidate: they choose between reading more lists and scoring
# more candidates.
CODE_NS, CANDIDATE_NS = 5, 200
MEASURE_QUERIES = 64
PROBE_QUERIES = 16
# A query is the sum of this many vectors drawn at random. Recall@10 among 1,020,192 vectors (2026-11-24,
# 2-core VM, AVX512-VNNI, one thread) with 100 / 200 / 500 candidates: real questions 0.957 / 0.988 / 0.999;
# one vector with as much noise as itself 1.000 / 1.000 / 1.000, far too easy; three vectors 0.971 / 0.987 /
# 0.996; four 0.907 / 0.963 / 0.990. With four, 64 queries are enough to stay on the safe side.
VECTORS_A_QUERY = 4
# With lists, where real questions about other subjects lie between many of them: with 4 / 6 / 8 vectors a
# query, a million different vectors ask for 500 candidates in 0.19, 500 in 0.16, 700 in 0.19 of 8,192 lists;
# 1,000 questions find 0.993, 0.991 and 0.993 so (2026-11-30). Small collections need the last.
VECTORS_A_LISTS_QUERY = 8
# The most past queries that are asked: more cost time and change nothing.
MOST_QUERIES = 256
# Neighbours as near as the last that counts, but for this: ties count as found.
TIE = 1e-5
# Candidates with a lower estimate than needed, by more than this, are no neighbours by their whole rows.
FAR = 0.01


def _questions(rows: Vectors, each: int, seed: int) -> Vectors:
    """Make queries of `each` drawn rows: float32 (Q, D) of unit length."""
    number = len(rows) // each
    mixed = np.random.default_rng(seed).permutation(rows)[: number * each]
    return unit(mixed.reshape(number, each, -1).sum(axis=1))


@dataclass(frozen=True, slots=True)
class Trial:
    """Queries, float32 (Q, D), and the score of the DEPTH-th nearest of each, (Q, 1)."""

    queries: Vectors
    needed: Vectors

    @classmethod
    def of(cls, scan: Scan, n_queries: int, seed: int) -> "Trial":
        """Return a trial with queries made of the scan's own vectors."""
        sources = [block.source() for block in scan.blocks]
        each = VECTORS_A_QUERY if scan.quantiser.lists == 1 else VECTORS_A_LISTS_QUERY
        rows = drawn(sources, n_queries * each, seed)
        return cls.asking(scan, _questions(rows, each, seed + 1))

    @classmethod
    def asking(cls, scan: Scan, queries: Vectors) -> "Trial":
        chosen = [Chosen.of(block, None) for block in scan.blocks if block.n_alive]
        return cls(queries, every(chosen, queries, DEPTH).scores[:, -1:] - np.float32(TIE))

    def recall(self, scan: Scan) -> float:
        hits = merged([scan.search(self.queries, DEPTH, None)], len(self.queries), DEPTH)
        return float((hits.scores >= self.needed).mean())

    def ranks(self, scan: Scan, probes: int) -> list[list[int]]:
        """Return for each query how many candidates come before each neighbour in these lists."""
        blocks, found = self._found(scan, probes)
        return [
            _ranks(blocks, each.estimates, each.places, query, float(needed))
            for each, query, (needed,) in zip(found, self.queries, self.needed, strict=True)
        ]

    def error(self, scan: Scan) -> float:
        """Return how wrong estimates by codes are: the root mean square over the best candidates."""
        blocks, found = self._found(scan, scan.probes)
        wrong = [
            estimates - block.rows.estimates(places, query)
            for each, query in zip(found, self.queries, strict=True)
            for block, estimates, places in zip(blocks, each.estimates, each.places, strict=True)
        ]
        return float(np.sqrt(np.mean(np.concatenate(wrong) ** 2)))

    def reach(self, scan: Scan) -> float:
        """Return how much nearer the last neighbour is, at least, than the guide of the last list."""
        if scan.quantiser.lists == 1:
            return -math.inf
        turned = scan.quantiser.turned(self.queries)
        guides, _ = scan.quantiser.near(turned, scan.probes)
        return float((self.needed - guides[:, -1:]).min())

    def _found(self, scan: Scan, probes: int) -> tuple[list[Block], list[Found]]:
        chosen = [Chosen.of(block, None) for block in scan.blocks if block.n_alive]
        turned = scan.quantiser.turned(self.queries)
        _, lists = scan.quantiser.near(turned, probes)
        found = candidates(chosen, turned, lists, MOST_CANDIDATES)
        return [some.block for some in chosen], found


def _ranks(
    blocks: list[Block],
    estimates: list[Vectors],
    places: list[Places],
    query: Vectors,
    needed: float,
) -> list[int]:
    near = []
    for block, some in zip(blocks, places, strict=True):
        mask = block.rows.estimates(some, query) >= needed - FAR
        close = np.flatnonzero(mask)
        mask[close] = block.rows.products(some[close], query) >= needed
        near.append(mask)
    order = np.argsort(-np.concatenate(estimates), kind="stable")
    ranks: list[int] = np.flatnonzero(np.concatenate(near)[order])[:DEPTH].tolist()
    return ranks


def measured(scan: Scan, queries: Vectors | None = None) -> Scan:
    """Return the scan with the cheapest numbers of candidates and lists that reach the target recall.

    queries: past ones, float32 (Q, D) of unit length; they count instead of made ones where they are enough.
    """
    if queries is None or len(queries) < MEASURE_QUERIES:
        trial, target = Trial.of(scan, MEASURE_QUERIES, 0), TARGET_RECALL
    else:
        trial, target = Trial.asking(scan, queries[-MOST_QUERIES:]), PAST_RECALL
    scan = _cheapest(scan, trial, target)
    scan = replace(scan, error=trial.error(scan), reach=trial.reach(scan))
    return replace(scan, measured_on=len(scan), recall_at_10=trial.recall(scan))


def _cheapest(scan: Scan, trial: Trial, target: float) -> Scan:
    lists, codes = scan.quantiser.lists, sum(len(block.labels) for block in scan.blocks)
    best = replace(scan, probes=lists, candidates=LADDER[-1])
    least = float("inf")
    for probes in sorted({max(1, lists * part // 64) for part in PROBED}):
        reading = codes * probes / lists * CODE_NS
        if reading >= least:
            break
        ranks = trial.ranks(scan, probes)
        for number in LADDER:
            cost = reading + number * CANDIDATE_NS
            if cost >= least:
                break
            found = sum(rank < number for each in ranks for rank in each)
            if found >= target * DEPTH * len(ranks):
                best, least = replace(scan, probes=probes, candidates=number), cost
                break
    return best


def probed(scan: Scan, seed: int) -> float:
    """Measure recall@10 of a scan in use; another seed tries other queries."""
    return Trial.of(scan, PROBE_QUERIES, seed).recall(scan)
