"""Puts vectors on a plane: the two directions in which they differ most (PCA), by subspace iteration."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from server.types import Vectors

# Directions that are followed: two are wanted, the others make these two come out in a few rounds.
FOLLOWED, ROUNDS = 8, 12
LEAST_SHARE = 1e-6
SEED = 1


@dataclass(frozen=True, slots=True)
class Plane:
    """mean: float32 (D,). axes: float32 (2, D), rows of length 1.

    shares: of the vectors' variance along each axis, 0 to 1. The rest cannot be seen on the plane.
    """

    mean: Vectors
    axes: Vectors
    shares: tuple[float, float]

    def places(self, vectors: Vectors) -> Vectors:
        """Return where vectors of length 1 lie: float32 (B, 2)."""
        return np.asarray((vectors - self.mean) @ self.axes.T)


def directions(vectors: Vectors) -> Vectors:
    """Return the vectors with length 1, float32 (B, D); one of zeros stays one."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1), dtype=np.float32)


def plane_of(vectors: Vectors) -> Plane:
    """Return the plane of vectors of length 1; the same for the same vectors."""
    dimension = vectors.shape[1]
    mean = vectors.mean(axis=0) if len(vectors) else np.zeros(dimension, dtype=np.float32)
    centred = vectors - mean
    total = float((centred**2).sum())
    random = np.random.default_rng(SEED)
    basis = random.standard_normal((dimension, min(FOLLOWED, dimension))).astype(np.float32)
    for _ in range(ROUNDS):
        # The basis comes nearer to the directions of most variance with each round.
        basis, _ = np.linalg.qr(centred.T @ (centred @ basis))
    _, lengths, turned = np.linalg.svd(centred @ basis, full_matrices=False)
    shares = [float(square) / total for square in lengths[:2] ** 2] if total > 0 else []
    shares = [share for share in shares if share > LEAST_SHARE]
    # An axis along which nothing differs stays zeros: rounding alone would choose its direction.
    axes = np.zeros((2, dimension), dtype=np.float32)
    found = (basis @ turned.T[:, : len(shares)]).T
    axes[: len(shares)] = _towards_plus(found)
    first, second = [*shares, 0.0, 0.0][:2]
    return Plane(mean, axes, (first, second))


def _towards_plus(axes: Vectors) -> Vectors:
    """Return axes whose largest number is positive: an axis has no side of its own."""
    largest: npt.NDArray[np.float32] = np.take_along_axis(
        axes, np.abs(axes).argmax(axis=1, keepdims=True), axis=1
    )
    return np.asarray(axes * np.where(largest < 0, -1, 1), dtype=np.float32)
