"""The nearest vectors of an index in one order, whatever number of them is asked for."""

from dataclasses import dataclass

import numpy as np

from server.store.selection import Selection
from server.store.vector_index import VectorIndex
from server.types import Labels, Vectors

# Where equals are cut off, so many times as many candidates are looked for, and no more than MOST_EQUALS: a
# search among 20,000 equal vectors takes three times as long (2026-11-30).
EQUALS, MOST_EQUALS = 8, 5_000


@dataclass(slots=True)
class Candidates:
    """Candidates of one query, best first. complete: there are no more than these."""

    labels: Labels
    scores: Vectors
    complete: bool

    def cuts_equals(self, number: int) -> bool:
        """Return whether the last of so many may have equals that are not among these."""
        return not self.complete and bool(self.scores[-1] == self.scores[number - 1])

    def first(self, number: int) -> "Candidates":
        """Return the best `number`, of equal ones the oldest."""
        labels, scores = self.labels, self.scores
        if (scores[1:] == scores[:-1]).any():
            order = np.lexsort((labels, -scores))
            labels, scores = labels[order], scores[order]
        complete = self.complete and len(labels) <= number
        return Candidates(labels[:number], scores[:number], complete)

    def at_least(self, min_score: float | None) -> "Candidates":
        """Leave out candidates with a lower score."""
        if min_score is None:
            return self
        good = self.scores >= min_score
        complete = self.complete or not good.all()
        return Candidates(self.labels[good], self.scores[good], complete)


def nearest(
    index: VectorIndex, vectors: Vectors, depth: int, within: Selection | None
) -> list[Candidates]:
    """Return the `depth` nearest vectors of each query, by cosine; of equal ones the oldest.

    vectors: float32 (Q, D). Texts that are stored twice have equal vectors, and an index gives equals in an
    order that depends on `depth`. So without this, pages would repeat some and leave out others. One more than
    `depth` shows whether equals were cut off at the end; then more are looked for, until all are there.
    """
    found = scored(index, vectors, depth + 1, within)
    for place, each in enumerate(found):
        more = EQUALS * (depth + 1)
        while each.cuts_equals(depth) and more <= MOST_EQUALS:
            (each,) = scored(index, vectors[place : place + 1], more, within)
            more *= EQUALS
        found[place] = each.first(depth)
    return found


def scored(
    index: VectorIndex, vectors: Vectors, depth: int, within: Selection | None
) -> list[Candidates]:
    """Return the `depth` nearest vectors of each query as the index has them: equal ones in any order."""
    hits = index.search(vectors, depth, within)
    found = []
    for labels, scores in zip(hits.labels, hits.scores, strict=True):
        there = labels >= 0
        found.append(Candidates(labels[there], scores[there], not there.all()))
    return found
