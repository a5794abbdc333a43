"""Comparisons of results by task: with another machine's, with float32's, with a batch's.

A cosine compares vectors. It says nothing about a score: any two numbers of one sign have cosine 1. Scores
are compared as probabilities: the sigmoid of the number that the graph gives, whatever the model's activation.
So a difference means the same for every model, and an unbounded score has no scale of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from server.inference.results import SparseWeights
from server.messages.message import Message
from server.types import Task, Vectors, unit

# Least cosine between a self-test vector computed here and the stored one. An int8 graph on a CPU
# without VNNI gives 0.9966 (its pairs of products saturate); any sound CPU with it gives 0.999999 with ONNX
# Runtime, and 0.9992 with the kernels. Both are as close to float32 (0.99917): wherever two exact ways differ in the
# last bit of a float, now and then a byte is rounded the other way, and layers multiply that. The same graph in
# float64 has 0.99992 on average (2026-11-30).
SAME_VECTORS = 0.999
USABLE_VECTORS = 0.98
# The same for scores, as 1 minus the difference. A trained cross-encoder of three layers in int8 gives 0.99 on a
# CPU without VNNI, where it gives 0.9999999 elsewhere; int8 itself moves a score by 0.035 at most (2026-11-29,
# Haswell emulated). Other models drift further, and a wrong graph is wrong by more than 0.1.
SAME_SCORES = 0.9999
USABLE_SCORES = 0.9

# A summary of sparse weights adds them up in so many places, and has SHARED in one more.
FOLDED = 1024
SUMMARY = FOLDED + 1
# A weight that any two results of sparse weights have in common. Without it a text whose one word is close to 0
# here and 0 there would have cosine 0, and two texts without weights none at all; with it they have 1. The weights of
# bge-m3 are up to 0.4, those of SPLADE up to 3.
SHARED = 0.1

Agreement = Callable[[Vectors, Vectors], Vectors]
Rows = tuple[Vectors, Vectors]


def one_row(a: Any, b: Any) -> Rows:
    """Return two results of one text as arrays of rows, float32 (R, D) twice: a vector is one row."""
    return np.atleast_2d(a), np.atleast_2d(b)


def itself(result: Any) -> Vectors:
    """Return a vector or score as its own summary."""
    return cast(Vectors, result)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Compares results of one task; all arrays are float32 (B, D), with D = 1 for scores before activation.

    measure: what `agreement` is called in messages. agreement: of each row with the same row of the
    other array, float32 (B,), 1 for equal rows and less the further they are apart. distance: how far
    each row of the first array is from that of the second, which is right; float32 (B,).
    same, usable: the least agreement of results that count as equal, and of results that may be served.
    zero_is_sound: whether a result may consist of zeros. rows: of two results of one text, the rows to
    compare. summary: of a result, float32 (S,), the same number S for every text; agreement compares summaries too.
    """

    measure: Message
    agreement: Agreement
    distance: Agreement
    same: float
    usable: float
    zero_is_sound: bool
    rows: Callable[[Any, Any], Rows] = one_row
    summary: Callable[[Any], Vectors] = itself

    def is_sound(self, results: Vectors) -> bool:
        """Return whether every number is finite, and no row is zero where that means nothing."""
        finite = bool(np.isfinite(results).all())
        return finite and (self.zero_is_sound or bool(results.any(axis=1).all()))


def row_cosines(a: Vectors, b: Vectors) -> Vectors:
    """Return the cosine of each row of a with the same row of b: float32 (B, D) twice -> (B,)."""
    return cast(Vectors, (unit(a) * unit(b)).sum(axis=1))


def _differences(a: Vectors, b: Vectors) -> Vectors:
    """Return the largest absolute difference in each row."""
    return cast(Vectors, np.abs(a - b).max(axis=1))


def sigmoid(logits: Vectors) -> Vectors:
    """Return numbers from 0 to 1, float32; none overflows."""
    return cast(Vectors, 0.5 * (1 + np.tanh(0.5 * logits)))


def _closeness(a: Vectors, b: Vectors) -> Vectors:
    return 1 - _differences(sigmoid(a), sigmoid(b))


def _scaled_differences(a: Vectors, b: Vectors) -> Vectors:
    """Return the differences of scores, of large ones as parts of b's."""
    return cast(Vectors, _differences(a, b) / np.maximum(1, np.abs(b).max(axis=1)))


def _relative_differences(a: Vectors, b: Vectors) -> Vectors:
    """Return the same as parts of the length of b's rows."""
    return cast(Vectors, _differences(a, b) / np.linalg.norm(b, axis=1))


def _weights_side_by_side(a: SparseWeights, b: SparseWeights) -> Rows:
    """Return the weights of both for every word that one of them has, and SHARED: float32 (1, words + 1) twice."""
    words = np.union1d(a.ids, b.ids)
    rows = np.full((2, 1, len(words) + 1), SHARED, np.float32)
    rows[:, :, :-1] = 0
    for row, (ids, weights) in zip(rows, (a, b), strict=True):
        row[0, np.searchsorted(words, ids)] = weights
    return rows[0], rows[1]


def _folded(result: SparseWeights) -> Vectors:
    """Return the weights added up in FOLDED places, by token id, and SHARED behind them: float32 (SUMMARY,)."""
    folded = np.zeros(SUMMARY, np.float32)
    folded[FOLDED] = SHARED
    np.add.at(folded, result.ids % FOLDED, result.weights)
    return folded


def _mean_by_place(result: Vectors) -> Vectors:
    """Return the mean of a text's token vectors, later ones with more weight, so that their order counts."""
    return cast(
        Vectors,
        np.average(result, axis=0, weights=np.arange(1, len(result) + 1)).astype(np.float32),
    )


VECTORS = Comparison(
    Message("cosine"),
    row_cosines,
    _relative_differences,
    SAME_VECTORS,
    USABLE_VECTORS,
    zero_is_sound=False,
)
SCORES = Comparison(
    Message("1 minus the difference of scores"),
    _closeness,
    _scaled_differences,
    SAME_SCORES,
    USABLE_SCORES,
    zero_is_sound=True,
)
TOKEN_VECTORS = Comparison(
    Message("cosine of token vectors"),
    row_cosines,
    _relative_differences,
    SAME_VECTORS,
    USABLE_VECTORS,
    zero_is_sound=False,
    summary=_mean_by_place,
)
SPARSE_WEIGHTS = Comparison(
    Message("cosine of sparse weights"),
    row_cosines,
    _scaled_differences,
    SAME_VECTORS,
    USABLE_VECTORS,
    zero_is_sound=True,
    rows=_weights_side_by_side,
    summary=_folded,
)
# A model of another task cannot be checked, and so is not served.
COMPARISONS: Mapping[Task, Comparison] = {
    "dense": VECTORS,
    "score": SCORES,
    "token_vectors": TOKEN_VECTORS,
    "sparse": SPARSE_WEIGHTS,
}
