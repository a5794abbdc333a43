"""Means over the questions, with their intervals, and whether two ways differ at all.

Two ways answer the same questions, so their difference is judged question by question. That interval is
much narrower than those of the two means, which mostly show that some questions are harder than others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from server.cli.evaluation.judging import Judged, Outcome, Way
from server.cli.evaluation.metrics import interval

# With fewer questions a bootstrap interval is too narrow to build on.
LEAST_QUESTIONS = 20
# Digits of what is shown, so that no difference is called one that its figures do not show.
DIGITS = 3

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Means:
    """Means of one way over all judged questions. interval: 95%, of nDCG@10."""

    ndcg_at_10: float
    interval: Interval
    recall_at_10: float
    recall_at_100: float
    mrr_at_10: float


@dataclass(frozen=True, slots=True)
class Difference:
    """What the better way's nDCG@10 has more than the other's. interval: 95%, of the difference."""

    better: Way
    other: Way
    difference: float
    interval: Interval

    @property
    def is_clear(self) -> bool:
        return round(self.interval[0], DIGITS) > 0


def means(judged: Sequence[Judged]) -> dict[Way, Means]:
    """Return the means of every way, over the questions that have outcomes."""
    outcomes = [each.outcomes for each in judged if each.outcomes]
    return {way: _means([each[way] for each in outcomes]) for way in outcomes[0]}


def _means(outcomes: Sequence[Outcome]) -> Means:
    values = np.array(
        [(o.ndcg_at_10, o.recall_at_10, o.recall_at_100, o.mrr_at_10) for o in outcomes]
    )
    ndcg, *others = values.mean(axis=0).tolist()
    return Means(ndcg, interval(values[:, 0]), *others)


def differences(judged: Sequence[Judged], found: Mapping[Way, Means]) -> list[Difference]:
    """Return how the best way differs from each other one; () where questions are too few to tell."""
    outcomes = [each.outcomes for each in judged if each.outcomes]
    if len(outcomes) < LEAST_QUESTIONS:
        return []
    best, *others = sorted(found, key=lambda way: -found[way].ndcg_at_10)
    differing = []
    for other in others:
        values = np.array([o[best].ndcg_at_10 - o[other].ndcg_at_10 for o in outcomes])
        differing.append(Difference(best, other, float(values.mean()), interval(values)))
    return differing
