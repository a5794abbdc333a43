"""Vectors as float16 with one power of two each."""

import numpy as np
import pytest

from server.store.vector_blob import blob_bytes, from_float32, packed, rounded, unpacked
from server.types import unit


@pytest.mark.parametrize("scale", [1e-38, 1e-9, 1.0, 3.7, 1e9, 1e38])
def test_every_number_is_right_to_a_part_of_the_largest(scale: float) -> None:
    vectors = np.random.default_rng(0).uniform(-1, 1, (50, 64)).astype(np.float32) * np.float32(
        scale
    )
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    wrong = np.abs(rounded(vectors).astype(np.float64) - vectors)
    # What is far smaller than the largest keeps its own 11 bits, down to 2 ** -14 of it.
    assert (wrong <= np.maximum(np.abs(vectors) / 2048, largest.astype(np.float64) / 2**24)).all()


def test_a_cosine_hardly_moves() -> None:
    vectors = unit(np.random.default_rng(1).standard_normal((200, 512)).astype(np.float32))
    before, after = vectors[:100] @ vectors[100:].T, unit(rounded(vectors))[:100] @ vectors[100:].T
    assert np.abs(before - after).max() < 5e-5


def test_zeros_huge_numbers_and_the_least_come_back() -> None:
    largest, least = np.float32(3e38), np.finfo(np.float32).smallest_subnormal
    vectors = np.array([[0, -0.0], [largest, -largest], [least, 0], [1, 2**-10]], dtype=np.float32)
    found = rounded(vectors)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, vectors, rtol=2**-11)
    assert np.array_equal(rounded(found), found), "what was rounded stays as it is"


def test_a_blob_has_two_bytes_a_number_and_two_more() -> None:
    (blob,) = packed(np.ones((1, 512), dtype=np.float32))
    assert len(blob) == blob_bytes(512) == 1026
    assert from_float32(np.ones(512, dtype="<f4").tobytes()) == blob
    assert packed(np.empty((0, 8), dtype=np.float32)) == []
    assert unpacked([], 8).shape == (0, 8)


def test_a_damaged_blob_is_no_vector_that_looks_right() -> None:
    with pytest.raises(ValueError, match="reshape"):
        unpacked([b"too short"], 8)
    beyond = np.int16(30_000).tobytes() + np.ones(2, dtype=np.float16).tobytes()
    assert not np.isfinite(unpacked([beyond], 2)).any()
