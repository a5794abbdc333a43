"""The chunks that have words of a query, each with its BM25."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from server.store.selection import found_in
from server.types import Labels, Vectors

NO_LABELS: Labels = np.empty(0, dtype=np.int64)


class Term(NamedTuple):
    """A term that was looked for.

    chunks: how many chunks have it, at most. weight: its inverse document frequency.
    """

    term: str
    chunks: int
    weight: float


@dataclass(frozen=True)
class Matches:
    """Every chunk that a query's words find, best first.

    labels: int64 (K,). scores: float32 (K,), BM25. attainable: a BM25 that no chunk exceeds for this
    query, whatever its text; 0 where nothing matches. terms: what was looked for, the rarest
    first. is_strict: no other chunk may be a hit, whatever its vector: the query quotes a phrase.
    excluded: chunks that may not be hits, ascending. It has no slots, so that it keeps its shares and
    the order of its labels: an explanation asks for them for each hit.
    """

    labels: Labels
    scores: Vectors
    attainable: float
    terms: tuple[Term, ...] = ()
    is_strict: bool = False
    excluded: Labels = field(default_factory=lambda: NO_LABELS)

    @cached_property
    def shares(self) -> npt.NDArray[np.float64]:
        """The part of the attainable BM25 that each chunk has: float64 (K,), 0 to 1."""
        if not len(self.scores):
            return np.empty(0, dtype=np.float64)
        # The frequency of a single character is an estimate, which can be too high.
        return np.minimum(self.scores.astype(np.float64) / self.attainable, 1.0)

    def shares_of(self, labels: Labels) -> npt.NDArray[np.float64]:
        """Return the part of the attainable BM25 that these chunks have: 0 where no word matches."""
        return self._of(labels, self.shares)

    def scores_of(self, labels: Labels) -> npt.NDArray[np.float64]:
        """Return the BM25 of these chunks: 0 where no word matches."""
        return self._of(labels, self.scores)

    @property
    def is_restricted(self) -> bool:
        """Whether the query has phrases or exclusions, so that not every near chunk may be a hit."""
        return self.is_strict or len(self.excluded) > 0

    def allows(self, labels: Labels) -> npt.NDArray[np.bool_]:
        """Return which of these chunks may be hits, also if only their vectors are near."""
        allowed = np.ones(len(labels), dtype=bool)
        if self.is_strict:
            allowed &= np.isin(labels, self.labels)
        if len(self.excluded):
            allowed &= ~np.isin(labels, self.excluded)
        return allowed

    @cached_property
    def _ascending(self) -> tuple[Labels, Labels]:
        """The places of the labels in ascending order, and the labels in that order."""
        order = np.argsort(self.labels)
        return order, self.labels[order]

    def _of(self, labels: Labels, values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
        found = np.zeros(len(labels), dtype=np.float64)
        order, ascending = self._ascending
        places, there = found_in(ascending, labels)
        found[there] = values[order[places[there]]]
        return found


NO_MATCHES = Matches(NO_LABELS, np.empty(0, dtype=np.float32), 0.0)
