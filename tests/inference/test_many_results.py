"""Results of sparse weights and token vectors, and how two of them are compared."""

import numpy as np
import pytest

from server.inference.comparison import COMPARISONS
from server.inference.results import ResultForm, SparseWeights
from server.types import Vectors

SPARSE, TOKENS = COMPARISONS["sparse"], COMPARISONS["token_vectors"]


def weights(**words: float) -> SparseWeights:
    """Return the weights of words w1, w2 and so on."""
    ids = np.array([int(name[1:]) for name in words], np.int64)
    return SparseWeights(ids, np.array([*words.values()], np.float32))


def agreement(a: SparseWeights, b: SparseWeights) -> float:
    (found,) = SPARSE.agreement(*SPARSE.rows(a, b))
    return float(found)


def test_largest_weight_of_a_word_counts_and_none_of_zero_or_less() -> None:
    form = ResultForm("sparse", by_token=True)
    rows: Vectors = np.array([[0.5], [0.25], [0.75], [0.0], [1.0]], np.float32)
    first, second = form.results(rows, [np.array([7, 3, 7]), np.array([9, 3])])
    assert (first.ids.tolist(), first.weights.tolist()) == ([3, 7], [0.25, 0.75])
    assert (second.ids.tolist(), second.weights.tolist()) == ([3], [1.0])


def test_weight_that_is_no_number_is_not_sound() -> None:
    form = ResultForm("sparse", by_token=True)
    (found,) = form.results(np.array([[np.nan]], np.float32), [np.array([7])])
    assert not SPARSE.is_sound(SPARSE.rows(found, found)[0])


def test_token_vectors_keep_no_batch_in_memory_and_skip_the_first() -> None:
    form = ResultForm("token_vectors", by_token=True, skipped_tokens=1)
    rows = np.arange(10, dtype=np.float32).reshape(5, 2)
    first, second = form.results(rows, [np.arange(3), np.arange(2)])
    assert first.tolist() == [[2, 3], [4, 5]] and second.tolist() == [[8, 9]]
    assert first.base is None and second.base is None


def test_weights_agree_as_far_as_they_matter() -> None:
    whole = weights(w1=0.3, w2=0.2)
    assert agreement(whole, whole) == pytest.approx(1)
    assert agreement(weights(), weights()) == pytest.approx(1)
    # A word close to 0 may be missing; one that counts may not, nor may it be another word.
    assert agreement(weights(w1=0.02), weights()) > 0.97
    assert agreement(weights(w1=0.3), weights()) < 0.4
    assert agreement(weights(w1=0.3), weights(w2=0.3)) < 0.2
    assert agreement(whole, weights(w1=0.3, w2=0.21, w3=0.01)) > 0.99


def test_summaries_tell_other_results_apart() -> None:
    summaries = [
        SPARSE.summary(each) for each in (weights(w1=0.3), weights(w2=0.3), weights(), weights())
    ]
    first, second, empty, same = summaries
    assert float(SPARSE.agreement(first[None], second[None])[0]) < 0.2
    assert float(SPARSE.agreement(empty[None], same[None])[0]) == pytest.approx(1)
    rows = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)
    one, other = TOKENS.summary(rows), TOKENS.summary(rows[::-1])
    assert one.shape == (8,) and one.dtype == np.float32
    assert float(TOKENS.agreement(one[None], other[None])[0]) < 0.95
