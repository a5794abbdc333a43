"""Fuses what was found by meaning and what was found by words into one score for each chunk.

Both fusions have fixed scales: a score depends on the query and the collection, but not on how many hits
are wanted nor on what else was found.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from server.types import Labels, Vectors

# Chosen on eight development tasks, 2026-11-30, bge-small-zh-v1.5 int8, one vector a document, nDCG@10, by
# `benchmarks.development` and `benchmarks.retrieval`. CMRC2018 dev (848 passages, 3,218 questions), DRCD dev
# (1,000; 3,524), SciFact train (1,884; 550). Laws: 5,000 articles, found by their title in their text alone,
# in title and text (100 titles), by a clause (1,975). STS-B valid: 245 sentences and their paraphrases among
# 2,550, where words mislead most. Codes: 900 texts whose standards, models, cases and errors differ in one
# number (340).
#                   CMRC   DRCD   SciFact  title  title+text  clause  STS-B  codes  mean
#     dense         96.20  78.18  39.44    85.18  98.48       50.65   95.74  78.51  77.80
#     lexical       98.79  97.22  76.21    77.99  99.34       91.44   89.84  99.89  91.34
#     1 and 0.7     99.37  96.40  75.98    83.66  99.51       91.23   96.04  99.89  92.76
#     1 and 0.85    99.37  96.79  76.37    83.39  99.51       91.48   95.70  99.89  92.81
#     1 and 1       99.35  96.98  76.58    83.46  99.51       91.69   95.47  99.89  92.87
#     1 and 1.2     99.31  97.14  76.74    82.98  99.51       91.78   95.17  99.89  92.82
#     1 and 1.6     99.30  97.32  76.89    82.37  99.51       91.87   94.73  99.89  92.74
#     cosine itself 99.21  96.84  76.46    83.11  99.51       91.40   95.33  99.89  92.72
# Either half of the questions gains, and so do sets that no choice was made on (other laws and codes, STS-B
# test): mean 93.34, with the cosine itself 93.17. Recall@100 is nowhere below that of the better half. nDCG@10
# is by 1.7 in `title`, where others that cite the law come first by words (over 100 questions this may be
# chance: 95 % interval -4.2 to 0.6), and on the other sets by 1.6 there, 1.3 in STS-B and 0.4 for clauses.
# Other forms, each at its best. Within 0.1 in the mean, where some sets gain what others lose: the cosine to
# the power of 2 to 5, its exponential, 1 - (1 - cosine^3)(1 - share), the share to the power of 0.7 to 1.5,
# less weight for few words (share * k / (k + 3), BM25 / (attainable + 120)), the idf of the words that a text
# has as a further term (SciFact gains 0.6, titles lose 0.6). The cube of the cosine less the mean of all
# cosines of the query: 92.96, but DRCD is 0.4 below its better half, and each collection would need its mean
# vector. Worse: cosines in standard deviations, 92.64. The share of the best text: STS-B loses 0.6. Less
# weight of words where texts are short on average: STS-B gains 0.8, but codes of few words lose. The longest
# run of the query in the text: 0.06 more, but all candidates must be read. With all-MiniLM-L6-v2 SciFact gets
# 80.75, with the cosine itself 81.16, by either half alone 73.75 and 76.21. What paid was in the words: a
# text with all of them, and with an identifier, gets more (`words.ranking`).
RANK_CONSTANT = 10
# Ranks beyond this add nothing to `fuse`.
RANKS = 1000
DENSE_WEIGHT, LEXICAL_WEIGHT = 1.0, 1.0
# See `nearness`.
CERTAIN = 0.8
# Weights outside of this, but for 0, are refused: float32 has no room for such scores.
LEAST_WEIGHT, MOST_WEIGHT = 1e-6, 1e6
# Digits of a blended score. The last bits of a cosine depend on which rows are compared together.
DIGITS = 6

Scores = npt.NDArray[np.float64]


def blend(cosines: Scores, shares: Scores | float, weights: tuple[float, float]) -> Scores:
    """Return the weighted mean of nearness and of shares of the attainable BM25: float64 (K,).

    A higher cosine or share never means a lower score. Where a text fits nothing, the score is near 0.
    """
    dense, lexical = weights
    return ((dense * nearness(cosines) + lexical * shares) / (dense + lexical)).round(DIGITS)


def nearness(cosines: Scores) -> Scores:
    """Return how much cosines count beside words: the cube, and from CERTAIN on its tangent: float64 (K,).

    Models give unrelated texts cosines of 0.2 to 0.5, whose differences say little. Above CERTAIN all is
    alike, also in models that give 0.8 to unrelated texts, so that words still decide between near twins.
    """
    slope = 3 * CERTAIN**2
    return np.where(cosines < CERTAIN, cosines**3, slope * cosines - 2 * CERTAIN**3)


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
