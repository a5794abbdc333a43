"""The blocks of a large index, searched together."""

import math
from dataclasses import dataclass, replace

import faiss
import numpy as np

from server.store.local_index.exact import merged
from server.store.local_index.fastscan_block import Block, Quantiser, count, places
from server.store.local_index.rows import SLICE_ROWS, Places, apart
from server.store.selection import Mask, Selection
from server.store.vector_index import Hits
from server.types import Labels, Vectors

# A search for more than 10 neighbours scores this many more candidates for each of them.
CANDIDATES_A_NEIGHBOUR = 5
# Neighbours at which recall is measured.
DEPTH = 10
# The most candidates that calibration tries; a search for many neighbours scores more.
MOST_CANDIDATES = 4000
# So many rows, or one in so many, are all scored where a filter leaves no more: 0.2 us each.
DIRECT_ROWS, DIRECT_SHARE = 2048, 256
# Searches of fewer of all rows than this check whether they found enough: a filter may leave rows that
# are all about as far from the query, and then no candidate stands out.
MOST_ROWS_SHARE = 0.9
# How many errors of an estimate the next candidate must be farther away than the last neighbour.
DOUBT = 1.5
# High halves give a cosine to 0.001: that changes the order of near ones only.
SPARE_NEIGHBOURS = 8


@dataclass(frozen=True, slots=True)
class Scan:
    """Blocks that are searched by their codes, then by their rows; immutable.

    trained_on, measured_on: how many rows there were. candidates: how many a search scores; probes: how
    many lists it reads. recall_at_10: of such searches, on the queries of the last measurement. error: of
    estimates by codes, root mean square. reach: how much nearer the last neighbour of such a query was, at
    least, than the guide of the last list it read.
    """

    quantiser: Quantiser
    blocks: tuple[Block, ...]
    trained_on: int
    measured_on: int = 0
    candidates: int = DEPTH * CANDIDATES_A_NEIGHBOUR
    probes: int = 1
    recall_at_10: float = 0.0
    error: float = 0.0
    reach: float = -math.inf

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
        shared = self.quantiser.axes.nbytes + self.quantiser.centroids.nbytes
        return shared + sum(block.bytes_held for block in self.blocks)

    def minus(self, labels: Labels) -> "Scan":
        labels = np.sort(labels)
        return replace(self, blocks=tuple(block.minus(labels) for block in self.blocks))

    def search(self, queries: Vectors, k: int, within: Selection | None) -> Hits:
        """Return the nearest of all blocks; queries: float32 (Q, D) of unit length."""
        chosen = [Chosen.of(block, within) for block in self.blocks]
        chosen = [some for some in chosen if some.number]
        number = sum(some.number for some in chosen)
        if not number or not len(queries):
            return merged([], len(queries), k)
        share = number / sum(len(some.block.labels) for some in chosen)
        effort = self._effort(k, share)
        if number <= max(DIRECT_ROWS, len(self) // DIRECT_SHARE, effort.candidates):
            return every(chosen, queries, k)
        return self._by_codes(chosen, queries, k, effort)

    def _effort(self, k: int, share: float) -> "Effort":
        """Return how far to search where this share of the rows may be found.

        The best of the rows that a filter leaves lie farther away, and so do the last of many neighbours.
        """
        wanted = self.candidates + CANDIDATES_A_NEIGHBOUR * max(0, k - DEPTH)
        farther = max(1, k / DEPTH) ** 0.1 * share**-0.1
        probes = min(self.quantiser.lists, math.ceil(self.probes * farther))
        return Effort(wanted, probes, share < MOST_ROWS_SHARE)

    def _by_codes(self, chosen: "list[Chosen]", queries: Vectors, k: int, effort: "Effort") -> Hits:
        """Read the lists near each query, score the best candidates, and search on where that may not do."""
        turned = self.quantiser.turned(queries)
        guides, lists = self.quantiser.near(turned, effort.probes)
        blocks = [some.block for some in chosen]
        scores = np.empty((len(queries), k), dtype=np.float32)
        labels = np.empty((len(queries), k), dtype=np.int64)
        doubtful = []
        found = candidates(chosen, turned, lists, effort.candidates)
        for row, (each, query) in enumerate(zip(found, queries, strict=True)):
            places, cut = each.best(effort.candidates)
            hits = refined(blocks, places, query, k)
            scores[row], labels[row] = hits.scores[0], hits.labels[0]
            last = scores[row, -1]
            # Others may be as near as the last of these: estimates are that wrong, or it is so far that they
            # may lie in other lists.
            near = cut > last - DOUBT * self.error or last < guides[row, -1] + self.reach
            if (effort.checked and near) or labels[row, -1] < 0:
                doubtful.append(row)
        if doubtful and (more := effort.more(self.quantiser.lists)):
            again = self._by_codes(chosen, queries[doubtful], k, more)
            scores[doubtful], labels[doubtful] = again.scores, again.labels
        return Hits(scores, labels)


@dataclass(frozen=True, slots=True)
class Effort:
    """How many candidates and lists a search takes. checked: whether it goes on
    where others may be as near; it always does where it found too few.
    """

    candidates: int
    probes: int
    checked: bool

    def more(self, lists: int) -> "Effort | None":
        """Return the next effort; None after the last."""
        if self.candidates >= MOST_CANDIDATES and self.probes == lists:
            return None
        most = max(MOST_CANDIDATES, self.candidates)
        return Effort(min(most, 4 * self.candidates), min(lists, 2 * self.probes), self.checked)


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """The rows of a block that a search may find, `number` of them."""

    block: Block
    selected: Places | Mask
    number: int

    @classmethod
    def of(cls, block: Block, within: Selection | None) -> "Chosen":
        selected = block.selected(within)
        number = block.n_alive if selected is block.alive else count(selected)
        return cls(block, selected, number)


@dataclass(frozen=True, slots=True)
class Found:
    """Candidates of one query: in the order of blocks, estimates float32 (C,) and places of each."""

    estimates: list[Vectors]
    places: list[Places]

    def best(self, wanted: int) -> tuple[list[Places], float]:
        """Return the places of the `wanted` best, by block, and the estimate of the last of them."""
        whole = np.concatenate(self.estimates)
        if len(whole) < wanted:
            return self.places, -math.inf
        worst = float(-np.partition(-whole, wanted - 1)[wanted - 1])
        return [
            places[estimates >= worst]
            for estimates, places in zip(self.estimates, self.places, strict=True)
        ], worst


def candidates(chosen: list[Chosen], turned: Vectors, lists: Labels, wanted: int) -> list[Found]:
    """Return up to `wanted` candidates in these lists of every block, for each turned query."""
    by_block = [
        some.block.candidates(turned, lists, min(wanted, some.number), some.selected)
        for some in chosen
    ]
    found = []
    for query in range(len(turned)):
        there = [some.places[query] >= 0 for some in by_block]
        found.append(
            Found(
                [some.estimates[query][t] for some, t in zip(by_block, there, strict=True)],
                [some.places[query][t] for some, t in zip(by_block, there, strict=True)],
            )
        )
    return found


def refined(blocks: list[Block], places: list[Places], query: Vectors, k: int) -> Hits:
    """Score these places of the blocks for one query, float32 (D,): the `k` best, scores (1, k)."""
    owners = np.repeat(np.arange(len(blocks)), [len(some) for some in places])
    kept, together = 2 * k + SPARE_NEIGHBOURS, np.concatenate(places)
    if len(together) > kept:
        rough = np.concatenate(
            [block.rows.estimates(some, query) for block, some in zip(blocks, places, strict=True)]
        )
        near = np.argpartition(-rough, kept - 1)[:kept]
        owners, together = owners[near], together[near]
    scores, labels = [], []
    for owner, block in enumerate(blocks):
        mine = together[owners == owner]
        if len(mine):
            scores.append(block.rows.products(mine, query))
            labels.append(block.labels[mine])
    absent = Hits(np.full((1, 1), -np.inf, dtype=np.float32), np.full((1, 1), -1, dtype=np.int64))
    exact = [Hits(s[None], n[None]) for s, n in zip(scores, labels, strict=True)]
    # With one that is absent, `merged` sorts even where there are `k`.
    return merged([*exact, absent], 1, k)


def every(chosen: list[Chosen], queries: Vectors, k: int) -> Hits:
    """Score all chosen rows: the `k` best of each query."""
    kept, blocks = 2 * k + SPARE_NEIGHBOURS, [some.block for some in chosen]
    # Several queries share the rows' way into the cache; one would gain nothing.
    if len(queries) == 1 or sum(some.number for some in chosen) <= kept:
        own = [places(some.selected) for some in chosen]
        return _together([refined(blocks, own, query, k) for query in queries])
    # Numbers of rows over all blocks; the high halves choose which are scored whole.
    near, first = [], 0
    for some in chosen:
        mine = places(some.selected)
        for start in range(0, len(mine), SLICE_ROWS):
            part = mine[start : start + SLICE_ROWS]
            rough, which = faiss.knn(
                queries,
                some.block.rows.coarse(part),
                min(kept, len(part)),
                metric=faiss.METRIC_INNER_PRODUCT,
            )
            near.append(Hits(rough, part[which] + first))
        first += len(some.block.labels)
    best = merged(near, len(queries), kept).labels
    sizes = [len(block.labels) for block in blocks]
    found = []
    for numbers, query in zip(best, queries, strict=True):
        numbers = np.sort(numbers[numbers >= 0])
        found.append(refined(blocks, apart(numbers, sizes), query, k))
    return _together(found)


def _together(found: list[Hits]) -> Hits:
    """Return the hits of one query after another as those of all."""
    return Hits(
        np.concatenate([hits.scores for hits in found]),
        np.concatenate([hits.labels for hits in found]),
    )
