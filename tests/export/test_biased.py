"""MPNet and T5: the graphs against numpy, packed batches, tiles, int8, whole exports, refusals."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from export.checkpoint import Checkpoint, read_checkpoint
from export.errors import CorruptFile
from export.families.batches import GROUPS
from server.inference.comparison import row_cosines
from server.inference.encoder import SessionEncoder
from server.types import Ids, Packing
from tests.support.biased_toys import PIECES, write_mpnet, write_t5
from tests.support.checkpoints import change_json, refusal
from tests.support.encoders import (
    float_encoder,
    int8_encoder,
    one_by_one,
    random_ids,
    rowwise_encoder,
    token_ids,
)
from tests.support.reference_biased import ReferenceMPNet, ReferenceT5
from tests.support.toys import toy_texts

# float32 rounding, of a vector's length.
ROUNDING = 3e-6
LENGTHS = (1, 2, 9, 127, 128, 129, 257, 300)


def mpnet(folder: Path, options: dict[str, Any] | None = None, **changes: Any) -> Checkpoint:
    return read_checkpoint(write_mpnet(folder, folder_options=options, **changes))


def t5(folder: Path, options: dict[str, Any] | None = None, **changes: Any) -> Checkpoint:
    return read_checkpoint(write_t5(folder, folder_options=options, **changes))


def assert_same_vectors(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs((found - expected) / lengths).max() < ROUNDING


def test_mpnet_equals_the_numpy_reference_at_every_kind_of_length(tmp_path: Path) -> None:
    checkpoint = mpnet(tmp_path)
    assert checkpoint.family.name == "mpnet"
    reference, encoder = ReferenceMPNet(checkpoint.folder), float_encoder(checkpoint)
    assert encoder.packing == Packing(GROUPS, 128)
    for n_tokens in LENGTHS:
        texts = random_ids(2, n_tokens)
        assert_same_vectors(encoder.encode(texts), reference.embed(np.stack(texts)))


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({"pooling": "cls"}, {}),
        ({"pooling": "max", "normalize": False}, {"relative_attention_num_buckets": 6}),
        ({"max_tokens": 100}, {"num_attention_heads": 1}),
    ],
    ids=str,
)
def test_mpnet_equals_the_numpy_reference_for_every_setting(
    options: dict[str, Any], changes: dict[str, Any], tmp_path: Path
) -> None:
    checkpoint = mpnet(tmp_path, options, **changes)
    reference, encoder = ReferenceMPNet(checkpoint.folder), float_encoder(checkpoint)
    for n_tokens in (3, 100):
        texts = random_ids(2, n_tokens)
        assert_same_vectors(encoder.encode(texts), reference.embed(np.stack(texts)))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_texts_of_several_lengths_together_equal_the_reference(
    pooling: str, tmp_path: Path
) -> None:
    checkpoint = mpnet(tmp_path, {"pooling": pooling})
    lengths = [128, 128, 90, 3, 1, 1, 2]
    texts = [random_ids(1, length, seed)[0] for seed, length in enumerate(lengths)]
    reference = ReferenceMPNet(checkpoint.folder)
    expected = np.concatenate([reference.embed(ids[None]) for ids in texts])
    assert_same_vectors(float_encoder(checkpoint).encode(texts), expected)


@pytest.mark.parametrize("buckets", [3, 512, 10**6])
def test_buckets_that_no_distance_can_fill_are_refused(buckets: int, tmp_path: Path) -> None:
    folder = write_mpnet(tmp_path)
    change_json(folder / "config.json", relative_attention_num_buckets=buckets)
    refusal(folder, CorruptFile, "relative_attention_num_buckets", str(buckets))


def test_int8_vectors_of_an_mpnet_are_close_to_float32_and_independent_of_their_neighbours(
    tmp_path: Path,
) -> None:
    checkpoint = mpnet(tmp_path)
    assert_int8_is_close(checkpoint, int8_encoder(checkpoint))


def assert_int8_is_close(checkpoint: Checkpoint, encoder: SessionEncoder) -> None:
    texts = token_ids(checkpoint, [*toy_texts(40, seed=5), *toy_texts(2, longest=250)])
    exact, found = one_by_one(float_encoder(checkpoint), texts), one_by_one(encoder, texts)
    cosines = row_cosines(exact, found)
    # Random weights spread an error over all channels; trained ones lose less.
    assert cosines.mean() > 0.998
    assert cosines.min() > 0.99
    assert np.abs(exact - found).max() > 1e-6, "the int8 graph computes in float32"
    stream = np.concatenate(texts)
    for lengths in ([3, 3, 90, 2, 1], [150, 150, 150]):
        together = [stream[place : place + length] for place, length in enumerate(lengths)]
        assert np.abs(encoder.encode(together) - one_by_one(encoder, together)).max() < 1e-5


# --- T5 -------------------------------------------------------------------------------------------


def pieces(n_texts: int, n_tokens: int, seed: int = 0) -> list[Ids]:
    return random_ids(n_texts, n_tokens, seed, len(PIECES))


def test_t5_equals_the_numpy_reference_at_every_kind_of_length(tmp_path: Path) -> None:
    checkpoint = t5(tmp_path)
    assert checkpoint.family.name == "t5"
    reference, encoder = ReferenceT5(checkpoint.folder), float_encoder(checkpoint)
    assert encoder.packing == Packing(GROUPS, 128)
    for n_tokens in LENGTHS:
        texts = pieces(2, n_tokens)
        assert_same_vectors(encoder.encode(texts), reference.embed(np.stack(texts)))


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({}, {"feed_forward_proj": "gated-gelu"}),
        ({}, {"feed_forward_proj": "gated-silu", "d_kv": 8, "num_heads": 3}),
        (
            {"pooling": "max", "normalize": False},
            {"feed_forward_proj": "gelu", "relative_attention_max_distance": 40},
        ),
    ],
    ids=str,
)
def test_t5_equals_the_numpy_reference_for_every_setting(
    options: dict[str, Any], changes: dict[str, Any], tmp_path: Path
) -> None:
    checkpoint = t5(tmp_path, options, **changes)
    reference, encoder = ReferenceT5(checkpoint.folder), float_encoder(checkpoint)
    for n_tokens in (3, 100):
        texts = pieces(2, n_tokens)
        assert_same_vectors(encoder.encode(texts), reference.embed(np.stack(texts)))


def test_t5_texts_of_several_lengths_together_equal_the_reference(tmp_path: Path) -> None:
    checkpoint = t5(tmp_path)
    lengths = [128, 128, 90, 3, 1, 1, 2]
    texts = [pieces(1, length, seed)[0] for seed, length in enumerate(lengths)]
    reference = ReferenceT5(checkpoint.folder)
    expected = np.concatenate([reference.embed(ids[None]) for ids in texts])
    assert_same_vectors(float_encoder(checkpoint).encode(texts), expected)


@pytest.mark.parametrize("feed_forward", ["relu", "gated-gelu"])
def test_int8_vectors_of_a_t5_are_close_to_float32_and_independent_of_their_neighbours(
    feed_forward: str, tmp_path: Path
) -> None:
    checkpoint = t5(tmp_path, feed_forward_proj=feed_forward)
    assert_int8_is_close(checkpoint, rowwise_encoder(checkpoint))


def test_token_with_huge_activations_does_not_blur_the_others(tmp_path: Path) -> None:
    checkpoint = t5(tmp_path)
    words = np.array(checkpoint.tensors["shared.weight"])
    words[5, 3] = 3_000.0
    checkpoint = replace(checkpoint, tensors={**checkpoint.tensors, "shared.weight": words})
    texts = [np.concatenate([[5], ids]) for ids in token_ids(checkpoint, toy_texts(20, seed=5))]
    found = one_by_one(rowwise_encoder(checkpoint), texts)
    exact = one_by_one(float_encoder(checkpoint), texts)
    assert row_cosines(exact, found).min() > 0.99
