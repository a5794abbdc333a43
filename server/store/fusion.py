"""Fuses what was found by meaning and what was found by words into one score for each chunk.

Both fusions have fixed scales: a score depends on the query and the collection, but not on how many hits
are wanted nor on what else was found.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from server.types import Labels, Vectors

# Chosen on seven development tasks, 2026-11-29, bge-small-zh-v1.5 int8, one vector a document, nDCG@10.
# CMRC2018 dev (848 passages, 3,218 questions), DRCD dev (1,000; 3,524), SciFact train (1,884; 550). Laws:
# 5,000 articles, found by their title in their text alone, by title in title and text (258 titles), by a
# clause (1,457). STS-B valid: 248 sentences and their paraphrases among 2,798, where words mislead most.
#                            CMRC   DRCD   SciFact  title  title+text  clause  STS-B
#     dense                  96.20  78.35  39.51    50.20  89.15       73.69   95.09
#     lexical                98.81  97.21  74.44    47.35  94.88       96.26   89.35
#     fuse, 1 and 0.7        97.96  88.97  60.33    53.32  92.79       84.33   94.00
#     blend, 1 and 0.3       98.74  92.83  71.18    53.55  94.97       90.32   94.77
#     blend, 1 and 0.5       99.07  95.50  74.27    53.49  95.47       93.00   94.77
#     blend, 1 and 0.7       99.16  96.53  75.34    53.52  95.78       94.21   95.16
#     blend, 1 and 1         99.27  97.12  75.32    52.94  95.97       95.11   94.97
#     blend, 1 and 1.5       99.25  97.39  75.68    51.49  96.08       95.62   94.41
# Scores stretched between the best and the hundredth, as they were before, with 1 and 0.7:
#                            98.68  93.27  61.60    53.42  94.88       87.15   94.71
RANK_CONSTANT = 10
# Ranks beyond this add nothing to `fuse`.
RANKS = 1000
DENSE_WEIGHT, LEXICAL_WEIGHT = 1.0, 0.7
# Weights outside of this, but for 0, are refused: float32 has no room for such scores.
LEAST_WEIGHT, MOST_WEIGHT = 1e-6, 1e6
# Digits of a blended score. The last bits of a cosine depend on which rows are compared together.
DIGITS = 6

Scores = npt.NDArray[np.float64]


def blend(cosines: Scores, shares: Scores | float, weights: tuple[float, float]) -> Scores:
    """Return the weighted mean of cosines and of shares of the attainable BM25: float64 (K,).

    It is 1 only for a chunk that says exactly what the query says and has all of its words many times.
    """
    dense, lexical = weights
    return ((dense * cosines + lexical * shares) / (dense + lexical)).round(DIGITS)


def fuse(
    rankings: Sequence[Labels], weights: Sequence[float], k: int = RANK_CONSTANT
) -> tuple[Labels, Vectors]:
    """Return all labels by weighted reciprocal ranks, best first: int64 (K,), float32 (K,).

    rankings: int64 (K,) each, best first, a label once at most, no -1; lengths may differ. The score
    of a label is the sum over the rankings that have it, where it stands at rank 1, 2, ... up to
    RANKS, of weight / (k + rank). Scores are not used, so they may be on any scale (Cormack, Clarke
    and Buettcher, SIGIR 2009). Equal scores keep the order of the first ranking.
    """
    if not rankings:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
    shares = []
    for labels, weight in zip(rankings, weights, strict=True):
        ranks = np.arange(1, len(labels) + 1, dtype=np.float64)
        shares.append(np.where(ranks <= RANKS, weight / (k + ranks), 0.0))
    found, first, place = np.unique(
        np.concatenate(rankings), return_index=True, return_inverse=True
    )
    sums = np.bincount(place, weights=np.concatenate(shares), minlength=len(found))
    # subtle: adding in another order moves the last bits, which must not tell equals apart.
    order = np.lexsort((first, -(sums / (max(weights) or 1)).round(12)))
    return found[order], sums[order].astype(np.float32)
