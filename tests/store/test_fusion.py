"""Fusion against sums by hand, and its invariances."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.store.fusion import LEAST_WEIGHT, MOST_WEIGHT, RANKS, blend, fuse, nearness
from server.types import Labels


def labels(*values: int) -> Labels:
    return np.array(values, dtype=np.int64)


def test_scores_are_the_sum_of_weighted_reciprocal_ranks() -> None:
    found, scores = fuse([labels(7, 8, 9), labels(9, 7)], [1.0, 0.5], k=60)
    assert found.tolist() == [7, 9, 8]
    expected = [1 / 61 + 0.5 / 62, 1 / 63 + 0.5 / 61, 1 / 62]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    assert found.dtype == np.int64 and scores.dtype == np.float32


def test_equals_come_in_the_order_of_the_first_ranking() -> None:
    found, _ = fuse([labels(5, 3), labels(3, 5)], [1.0, 1.0])
    assert found.tolist() == [5, 3]
    found, _ = fuse([labels(9, 1), labels(4, 2)], [1.0, 1.0])
    assert found.tolist() == [9, 4, 1, 2]


def test_nothing_found_is_an_empty_ranking() -> None:
    for rankings in ([], [labels()], [labels(), labels()]):
        found, scores = fuse(rankings, [1.0] * len(rankings))
        assert found.dtype == np.int64 and scores.dtype == np.float32
        assert found.shape == scores.shape == (0,)
    assert blend(np.empty(0), np.empty(0), (1.0, 1.0)).tolist() == []


def test_one_ranking_alone_keeps_its_order() -> None:
    assert fuse([labels(4, 2, 8), labels()], [1.0, 1.0])[0].tolist() == [4, 2, 8]


def test_a_ranking_without_weight_has_no_say_in_the_order() -> None:
    found, scores = fuse([labels(1, 2), labels(3, 2)], [1.0, 0.0])
    assert found.tolist() == [1, 2, 3]
    assert scores[2] == 0


def test_a_weight_for_each_ranking_is_needed() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        fuse([labels(1), labels(2)], [1.0])


RANKINGS = st.lists(st.lists(st.integers(0, 20), unique=True, max_size=12), min_size=1, max_size=4)


@given(RANKINGS, st.data())
def test_fusion_equals_sums_in_a_dictionary(
    rankings: Sequence[list[int]], data: st.DataObject
) -> None:
    weight = st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0])
    weights = data.draw(st.lists(weight, min_size=len(rankings), max_size=len(rankings)))
    sums: dict[int, float] = {}
    for one, part in zip(rankings, weights, strict=True):
        for place, label in enumerate(one, 1):
            sums[label] = sums.get(label, 0.0) + part / (10 + place)
    expected = sorted(sums, key=lambda label: -round(sums[label] / (max(weights) or 1), 12))
    found, scores = fuse([labels(*one) for one in rankings], weights, k=10)
    assert found.tolist() == expected
    np.testing.assert_allclose(scores, [sums[label] for label in expected], rtol=1e-6)


def test_blended_scores_are_weighted_means_of_nearness_and_shares() -> None:
    cosines = np.array([0.9, 0.5, -0.2, 0.0])
    scores = blend(cosines, np.array([0.0, 0.5, 1.0, 0.0]), (1.0, 0.6))
    np.testing.assert_allclose(scores, [0.704 / 1.6, 0.425 / 1.6, 0.592 / 1.6, 0], atol=1e-6)


def test_nearness_is_the_cube_of_a_cosine_and_straight_where_it_is_high() -> None:
    assert nearness(np.array([-1.0, 0.4, 0.8, 1.0])) == pytest.approx([-1, 0.064, 0.512, 0.896])
    # There is no step: neither in the values nor in how fast they rise.
    around = nearness(np.array([0.7999, 0.8, 0.8001]))
    assert np.diff(around) == pytest.approx([1.92e-4] * 2, rel=1e-3)


def test_a_greater_cosine_or_share_never_lowers_a_blended_score() -> None:
    # The bound of what no search has found yet rests on this.
    steps = np.linspace(-1, 1, 401)
    assert (np.diff(blend(steps, 0.3, (1.0, 1.0))) >= 0).all()
    shares = np.linspace(0, 1, 401)
    assert (np.diff(blend(np.full(401, -0.4), shares, (1.0, 1.0))) >= 0).all()


def test_a_blended_score_does_not_depend_on_the_others() -> None:
    cosines, shares = np.array([0.9, 0.5, 0.1]), np.array([0.0, 0.4, 0.2])
    together = blend(cosines, shares, (1.0, 0.7))
    alone = [blend(cosines[n : n + 1], shares[n : n + 1], (1.0, 0.7))[0] for n in range(3)]
    assert together.tolist() == alone


@pytest.mark.parametrize("weight", [LEAST_WEIGHT, MOST_WEIGHT])
def test_greatest_and_least_weights_leave_finite_scores_in_order(weight: float) -> None:
    found, scores = fuse([labels(*range(1000)), labels(3, 5)], (weight, weight))
    assert np.isfinite(scores).all() and (scores > 0).all()
    assert found[:3].tolist() == [3, 5, 0] and (np.diff(scores) <= 0).all()
    assert blend(np.array([0.5]), np.array([0.5]), (weight, 0.0)).tolist() == [0.125]


def test_ranks_far_below_add_nothing() -> None:
    found, scores = fuse([labels(*range(RANKS + 2)), labels(RANKS)], (1.0, 1.0))
    assert found[-1] == RANKS + 1 and scores[-1] == 0
    assert found[:2].tolist() == [0, RANKS]
    assert scores[:2] == pytest.approx([1 / 11] * 2), "the rank in the first adds nothing"
