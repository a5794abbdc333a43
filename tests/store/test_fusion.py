"""Fusion against sums by hand, and its invariances."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.store import Labels
from server.store.fusion import Ranking, blend, fuse


def labels(*values: int) -> Labels:
    return np.array(values, dtype=np.int64)


def ranking(*pairs: tuple[int, float], least: float | None = None) -> Ranking:
    scores = np.array([score for _, score in pairs], dtype=np.float32)
    return Ranking(labels(*(label for label, _ in pairs)), scores, least)


def test_scores_are_the_sum_of_weighted_reciprocal_ranks() -> None:
    found, scores = fuse([labels(7, 8, 9), labels(9, 7)], [1.0, 0.5], top=10, k=60)
    assert found.tolist() == [7, 9, 8]
    expected = [1 / 61 + 0.5 / 62, 1 / 63 + 0.5 / 61, 1 / 62]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    assert found.dtype == np.int64 and scores.dtype == np.float32


def test_equals_come_in_the_order_of_the_first_ranking() -> None:
    found, _ = fuse([labels(5, 3), labels(3, 5)], [1.0, 1.0], top=10)
    assert found.tolist() == [5, 3]
    found, _ = fuse([labels(9, 1), labels(4, 2)], [1.0, 1.0], top=10)
    assert found.tolist() == [9, 4, 1, 2]


def test_nothing_found_is_an_empty_ranking() -> None:
    for rankings in ([], [labels()], [labels(), labels()]):
        found, scores = fuse(rankings, [1.0] * len(rankings), top=10)
        assert found.dtype == np.int64 and scores.dtype == np.float32
        assert found.shape == scores.shape == (0,)
    assert blend([ranking(), ranking()], [1.0, 1.0], top=10)[0].tolist() == []


def test_one_ranking_alone_keeps_its_order() -> None:
    assert fuse([labels(4, 2, 8), labels()], [1.0, 1.0], top=2)[0].tolist() == [4, 2]
    assert blend([ranking(), ranking((4, 9.0), (2, 1.0))], [1.0, 1.0], 9)[0].tolist() == [4, 2]


def test_a_ranking_without_weight_has_no_say_in_the_order() -> None:
    found, scores = fuse([labels(1, 2), labels(3, 2)], [1.0, 0.0], top=10)
    assert found.tolist() == [1, 2, 3]
    assert scores[2] == 0


def test_a_weight_for_each_ranking_is_needed() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        fuse([labels(1), labels(2)], [1.0], top=1)


RANKINGS = st.lists(st.lists(st.integers(0, 20), unique=True, max_size=12), min_size=1, max_size=4)


@given(RANKINGS, st.integers(0, 30), st.data())
def test_fusion_equals_sums_in_a_dictionary(
    rankings: Sequence[list[int]], top: int, data: st.DataObject
) -> None:
    weight = st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0])
    weights = data.draw(st.lists(weight, min_size=len(rankings), max_size=len(rankings)))
    sums: dict[int, float] = {}
    for one, part in zip(rankings, weights, strict=True):
        for place, label in enumerate(one, 1):
            sums[label] = sums.get(label, 0.0) + part / (10 + place)
    expected = sorted(sums, key=lambda label: -round(sums[label], 12))[:top]
    found, scores = fuse([labels(*one) for one in rankings], weights, top, k=10)
    assert found.tolist() == expected
    np.testing.assert_allclose(scores, [sums[label] for label in expected], rtol=1e-6)


def test_blended_scores_are_weighted_means_of_stretched_scores() -> None:
    dense = ranking((1, 0.9), (2, 0.7), (3, 0.5))
    lexical = ranking((2, 8.0), (4, 2.0), least=0.0)
    found, scores = blend([dense, lexical], [1.0, 0.6], top=10)
    assert found.tolist() == [2, 1, 4, 3]
    expected = [(0.5 + 0.6) / 1.6, 1 / 1.6, 0.6 * 0.25 / 1.6, 0]
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_what_is_best_everywhere_has_a_blended_score_of_1() -> None:
    found, scores = blend([ranking((1, 0.4), (2, 0.3)), ranking((1, 7.0))], [1.0, 0.7], top=1)
    assert (found.tolist(), scores.tolist()) == ([1], [1.0])


def test_blending_does_not_depend_on_the_scale_of_scores() -> None:
    pairs, words = [(1, 0.9), (2, 0.8), (3, 0.1)], ranking((3, 5.0), (2, 4.0), least=0.0)
    plain = blend([ranking(*pairs), words], [1.0, 0.7], top=10)
    moved = blend([ranking(*((n, 10 * x + 3) for n, x in pairs)), words], [1.0, 0.7], top=10)
    assert plain[0].tolist() == moved[0].tolist()
    np.testing.assert_allclose(plain[1], moved[1], atol=1e-6)


def test_equal_scores_are_all_the_best() -> None:
    found, scores = blend([ranking((3, 0.5), (1, 0.5))], [2.0], top=10)
    assert (found.tolist(), scores.tolist()) == ([3, 1], [1.0, 1.0])
