"""Whether an artifact puts the candidates of a query in the order of the float32 model.

A reranker is used for nothing else. Its scores may agree well and its orders badly, where it gives all
candidates nearly the same score.
"""

import numpy as np
import numpy.typing as npt

from export.errors import DisagreesWithCheckpoint
from server.inference.manifest import OrderAgreement
from server.types import Vectors


def kendall_tau(found: Vectors, expected: Vectors) -> float:
    """Return the agreement of two orders: 1 for the same, -1 for the opposite.

    Both are float32 (N,). Of all pairs that `expected` tells apart, those in the same order less those in the
    other; 1 where it tells none apart.
    """
    apart = _signs(expected)
    n_apart = np.count_nonzero(apart)
    return float((_signs(found) * apart).sum() / n_apart) if n_apart else 1.0


def _signs(scores: Vectors) -> npt.NDArray[np.float32]:
    """Return which of each two scores is higher: float32 (N, N), -1, 0 or 1."""
    return np.asarray(np.sign(scores[:, None] - scores[None, :]), dtype=np.float32)


def check_order(found: Vectors, expected: Vectors, candidates: int, least: float) -> OrderAgreement:
    """Compare orders; raises DisagreesWithCheckpoint where their mean agreement is below `least`.

    Both are float32 (N, 1): the scores of `candidates` rows a query.
    """
    taus = [
        kendall_tau(*rows)
        for rows in zip(
            found.reshape(-1, candidates), expected.reshape(-1, candidates), strict=True
        )
    ]
    mean = float(np.mean(taus))
    if not mean >= least:
        raise DisagreesWithCheckpoint(
            "the order of candidates agrees with the float32 model's at a mean Kendall's tau of {mean:.3f} "
            "(needs {least}); calibrate on texts like yours (--calibration FILE), export --precision fp32, "
            "or accept less (--min-agreement MEAN,MIN,TAU)",
            mean=mean,
            least=least,
        )
    return OrderAgreement(round(mean, 4), round(min(taus), 4), len(taus))
