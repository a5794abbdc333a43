"""Chooses hits that are relevant and unlike each other (maximal marginal relevance).

Carbonell and Goldstein, SIGIR 1998. The first hit is the most relevant one. Each further hit is the one with
the most of relevance x score - (1 - relevance) x the greatest cosine with the hits before it.
"""

import numpy as np
import numpy.typing as npt

from server.types import Vectors, unit


def diverse(
    scores: npt.NDArray[np.float64], vectors: Vectors, relevance: float, number: int
) -> list[int]:
    """Return the places of at most `number` candidates in the order in which they are chosen.

    scores: float64 (C,), best first, on the scale of a cosine. vectors: float32 (C, D). Equal candidates keep
    their order. It costs number x C x D multiplications.
    """
    rows = unit(vectors)
    nearest = np.full(len(scores), -1.0)
    free = np.ones(len(scores), dtype=bool)
    chosen: list[int] = []
    for place in range(min(number, len(scores))):
        worth = relevance * scores - (1 - relevance) * nearest if place else scores
        best = int(np.argmax(np.where(free, worth, -np.inf)))
        chosen.append(best)
        free[best] = False
        nearest = np.maximum(nearest, rows @ rows[best])
    return chosen
