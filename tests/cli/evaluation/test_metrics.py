"""Figures of a ranking are what they are by hand, and an interval holds its mean."""

import numpy as np
import pytest

from server.cli.evaluation.metrics import interval, ndcg, recall, reciprocal_rank


def test_figures_are_those_by_hand() -> None:
    found, relevant = ["a", "x", "b"], {"a": 1.0, "b": 2.0, "c": 1.0}
    gained, most = 1 + 2 / 2, 2 + 1 / np.log2(3) + 1 / 2
    assert ndcg(found, relevant) == pytest.approx(gained / most)
    assert recall(found, relevant, 10) == pytest.approx(2 / 3)
    assert recall(found, relevant, 2) == pytest.approx(1 / 3)
    assert reciprocal_rank(found, relevant) == 1
    assert reciprocal_rank(["x", "b"], relevant) == 0.5
    late = [*map(str, range(10)), "a"]
    assert reciprocal_rank(late, relevant) == ndcg(late, relevant) == recall([], relevant, 10) == 0


def test_interval_narrows_with_questions_and_is_the_same_every_time() -> None:
    values = np.array([0.0, 1.0] * 20)
    low, high = interval(values)
    assert (low, high) == interval(values)
    assert 0.3 < low < 0.5 < high < 0.7
    narrow = interval(np.tile(values, 10))
    assert low < narrow[0] < 0.5 < narrow[1] < high
    assert interval(np.ones(3)) == (1, 1)


def test_interval_of_many_questions_is_drawn_in_parts() -> None:
    values = np.random.default_rng(1).random(10_000)
    low, high = interval(values)
    error = values.std() / 100
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=error / 5)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=error / 5)
