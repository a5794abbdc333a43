"""What a ranking is worth: nDCG, recall and reciprocal rank, as BEIR and trec_eval define them.

found: ids of documents, best first, each once. relevant: the right documents of the question with their
relevance above 0. A grade is a gain as it stands: 2 counts twice as much as 1.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

# Resamples of an interval, and how many questions' values are drawn at once.
RESAMPLES, DRAWN_AT_ONCE = 2000, 1 << 20
# The bounds of a 95% interval.
BOUNDS = (2.5, 97.5)


def ndcg(found: Sequence[str], relevant: Mapping[str, float], depth: int = 10) -> float:
    """Return the gain of the first hits, discounted by rank, as a share of the most possible."""
    discount = 1 / np.log2(np.arange(2, depth + 2))
    gains = np.array([relevant.get(id, 0.0) for id in found[:depth]])
    ideal = np.sort(np.array(list(relevant.values())))[::-1][:depth]
    most = float((ideal * discount[: len(ideal)]).sum())
    return float((gains * discount[: len(gains)]).sum()) / most


def recall(found: Sequence[str], relevant: Mapping[str, float], depth: int) -> float:
    """Return the share of the right documents that the first hits have."""
    return len(relevant.keys() & set(found[:depth])) / len(relevant)


def reciprocal_rank(found: Sequence[str], relevant: Mapping[str, float], depth: int = 10) -> float:
    """Return 1 divided by the rank of the first right document, 0 where the first hits have none."""
    ranks = (rank for rank, id in enumerate(found[:depth], 1) if id in relevant)
    return 1 / next(ranks, float("inf"))


def interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95% interval of the mean of values (N,), one a question, by bootstrap.

    It says between which means other questions of the same kind would lie. The same values always give
    the same interval.
    """
    random = np.random.default_rng(0)
    rows = max(1, DRAWN_AT_ONCE // len(values))
    means = np.concatenate(
        [
            values[
                random.integers(0, len(values), (min(rows, RESAMPLES - begin), len(values)))
            ].mean(axis=1)
            for begin in range(0, RESAMPLES, rows)
        ]
    )
    low, high = np.percentile(means, BOUNDS)
    return float(low), float(high)
