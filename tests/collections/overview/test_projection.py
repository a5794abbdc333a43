"""The plane of a map, against numpy's own decomposition."""

import numpy as np
import pytest

from server.collections.overview.chunk_map import sampled
from server.collections.overview.projection import directions, plane_of


def vectors(number: int, dimension: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    scales = np.linspace(1, 0.05, dimension) ** 2
    return directions((random.standard_normal((number, dimension)) * scales).astype(np.float32))


def test_plane_is_the_one_of_most_variance() -> None:
    given = vectors(400, 48)
    plane = plane_of(given)
    _, lengths, axes = np.linalg.svd(given - given.mean(axis=0), full_matrices=False)
    shares = lengths**2 / (lengths**2).sum()
    assert plane.shares == pytest.approx(shares[:2], rel=1e-3)
    assert np.abs(plane.axes @ axes[:2].T) == pytest.approx(np.eye(2), abs=0.05)
    assert np.array_equal(plane_of(given).axes, plane.axes), "the same for the same vectors"


@pytest.mark.parametrize(("number", "dimension"), [(0, 8), (1, 8), (2, 8), (5, 1), (3, 2)])
def test_few_vectors_have_a_plane_too(number: int, dimension: int) -> None:
    given = vectors(number, dimension)
    plane = plane_of(given)
    assert np.isfinite(plane.places(given)).all() and plane.places(given).shape == (number, 2)
    assert 0 <= plane.shares[1] <= plane.shares[0] <= 1.0001


def test_equal_vectors_show_nothing() -> None:
    plane = plane_of(np.full((6, 4), 0.5, dtype=np.float32))
    assert plane.shares == (0.0, 0.0)


def test_axis_without_differences_is_left_out() -> None:
    plane = plane_of(vectors(2, 8))
    assert plane.shares[0] == pytest.approx(1.0) and plane.shares[1] == 0.0
    assert not plane.places(vectors(5, 8, seed=3))[:, 1].any()


def test_a_write_changes_the_sample_only_by_what_it_adds() -> None:
    labels = np.arange(10_000, dtype=np.int64)
    before = set(sampled(labels, 500).tolist())
    after = set(sampled(np.arange(10_100, dtype=np.int64), 500).tolist())
    assert len(before) == 500 and len(before & after) >= 480
    assert {label for label in after - before} <= set(range(10_000, 10_100))
    assert np.median(list(before)) == pytest.approx(5_000, abs=600)
