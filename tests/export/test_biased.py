"""MPNet and T5: the graphs against numpy, packed batches, tiles, int8, whole exports, refusals."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

from export import inspection
from export.checkpoint import Checkpoint, read_checkpoint
from export.errors import CorruptFile, ExportError, ShapeMismatch, UnsupportedModel
from export.families.batches import GROUPS
from export.pipeline import export
from export.quantisation import rowwise
from export.settings import Settings
from export.source.model import locate, read_model
from export.verification.verify import Thresholds
from server.inference.comparison import row_cosines
from server.inference.encoder import SessionEncoder
from server.inference.model import Model
from server.messages.terminal import Terminal
from server.types import Packing
from tests.support.biased_toys import PIECES, write_mpnet, write_t5
from tests.support.checkpoints import change_json, refusal
from tests.support.dense_layers import Dense, write_steps
from tests.support.encoders import (
    float_encoder,
    int8_encoder,
    one_by_one,
    random_ids,
    rowwise_encoder,
    token_ids,
)
from tests.support.reference_biased import ReferenceMPNet, ReferenceT5
from tests.support.toys import VOCABULARY, toy_texts, write_toy_texts

Reference = ReferenceMPNet | ReferenceT5
# float32 rounding, of a vector's length.
ROUNDING = 3e-6
LENGTHS = (1, 2, 128, 129, 256, 300)
PACKED = (128, 128, 90, 3, 1, 1, 2)


def mpnet(folder: Path, options: dict[str, Any] | None = None, **changes: Any) -> Checkpoint:
    return read_checkpoint(write_mpnet(folder, folder_options=options, **changes))


def t5(folder: Path, options: dict[str, Any] | None = None, **changes: Any) -> Checkpoint:
    return read_checkpoint(write_t5(folder, folder_options=options, **changes))


def assert_same_vectors(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs((found - expected) / lengths).max() < ROUNDING


def assert_equal_to_numpy(
    encoder: SessionEncoder, reference: Reference, lengths: Sequence[int], vocabulary: int
) -> None:
    """Compare texts of each length, two at a time, and some of several lengths together."""
    for n_tokens in lengths:
        texts = random_ids(2, n_tokens, 0, vocabulary)
        assert_same_vectors(encoder.encode(texts), reference.embed(np.stack(texts)))
    packed = [random_ids(1, n, seed, vocabulary)[0] for seed, n in enumerate(PACKED)]
    expected = np.concatenate([reference.embed(ids[None]) for ids in packed])
    assert_same_vectors(encoder.encode(packed), expected)


@pytest.mark.parametrize(
    ("options", "changes", "lengths"),
    [
        ({}, {"num_hidden_layers": 2}, (1, 128, 129, 300)),
        ({"pooling": "cls"}, {"num_hidden_layers": 2}, (2, 129)),
        (
            {"pooling": "max", "normalize": False, "max_tokens": 128},
            {"relative_attention_num_buckets": 6, "num_attention_heads": 1, "num_hidden_layers": 1},
            (9,),
        ),
    ],
    ids=str,
)
def test_mpnet_equals_the_numpy_reference(
    options: dict[str, Any], changes: dict[str, Any], lengths: tuple[int, ...], tmp_path: Path
) -> None:
    checkpoint = mpnet(tmp_path, options, **changes)
    assert checkpoint.family.name == "mpnet"
    encoder = float_encoder(checkpoint)
    assert encoder.packing == Packing(GROUPS, 128)
    reference = ReferenceMPNet(checkpoint.folder)
    assert_equal_to_numpy(encoder, reference, lengths, len(VOCABULARY))


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


def assert_int8_is_close(
    checkpoint: Checkpoint, encoder: SessionEncoder, differs: float = 1e-5
) -> None:
    """Compare with float32, and texts alone with texts together; differs: by how much these may."""
    texts = token_ids(checkpoint, [*toy_texts(20, seed=5), *toy_texts(1, longest=250)])
    exact, found = one_by_one(float_encoder(checkpoint), texts), one_by_one(encoder, texts)
    cosines = row_cosines(exact, found)
    # Random weights spread an error over all channels; trained ones lose less.
    assert cosines.mean() > 0.998
    assert cosines.min() > 0.99
    assert np.abs(exact - found).max() > 1e-6, "the int8 graph computes in float32"
    stream = np.concatenate(texts)
    for lengths in ([3, 3, 90, 2, 1], [150, 150, 150]):
        together = [stream[place : place + length] for place, length in enumerate(lengths)]
        apart = one_by_one(encoder, together)
        assert np.abs(encoder.encode(together) - apart).max() <= differs


# --- T5 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "changes", "lengths"),
    [
        ({}, {}, LENGTHS),
        ({}, {"feed_forward_proj": "gated-gelu"}, (9,)),
        ({}, {"feed_forward_proj": "gated-silu", "d_kv": 8, "num_heads": 3}, (130,)),
        (
            {"pooling": "max", "normalize": False, "max_tokens": 128},
            {"feed_forward_proj": "gelu", "relative_attention_max_distance": 40},
            (100,),
        ),
    ],
    ids=str,
)
def test_t5_equals_the_numpy_reference(
    options: dict[str, Any], changes: dict[str, Any], lengths: tuple[int, ...], tmp_path: Path
) -> None:
    checkpoint = t5(tmp_path, options, **changes)
    assert checkpoint.family.name == "t5"
    encoder = float_encoder(checkpoint)
    assert encoder.packing == Packing(GROUPS, 128)
    assert_equal_to_numpy(encoder, ReferenceT5(checkpoint.folder), lengths, len(PIECES))


@pytest.mark.parametrize("feed_forward", ["relu", "gated-gelu"])
def test_int8_vectors_of_a_t5_are_close_to_float32_and_independent_of_their_neighbours(
    feed_forward: str, tmp_path: Path
) -> None:
    checkpoint = t5(tmp_path, feed_forward_proj=feed_forward)
    assert_int8_is_close(checkpoint, rowwise_encoder(checkpoint), differs=1e-6)


def test_token_with_huge_activations_does_not_blur_the_others(tmp_path: Path) -> None:
    checkpoint = t5(tmp_path)
    words = np.array(checkpoint.tensors["shared.weight"])
    words[5, 3] = 3_000.0
    checkpoint = replace(checkpoint, tensors={**checkpoint.tensors, "shared.weight": words})
    texts = [np.concatenate([[5], ids]) for ids in token_ids(checkpoint, toy_texts(20, seed=5))]
    found = one_by_one(rowwise_encoder(checkpoint), texts)
    exact = one_by_one(float_encoder(checkpoint), texts)
    assert row_cosines(exact, found).min() > 0.99


def test_t5_is_exported_verified_and_served(tmp_path: Path) -> None:
    folder = write_t5(tmp_path / "t5", folder_options={"max_tokens": 40}, num_layers=1)
    settings = Settings(
        source=str(folder),
        calibration=write_toy_texts(tmp_path / "calibration.txt", 40),
        verify_texts=write_toy_texts(tmp_path / "verification.txt", 20, seed=1),
        thresholds=Thresholds(mean=0.99, minimum=0.9),
    )
    model = Model(export(settings))
    manifest = model.manifest
    assert (manifest.family, manifest.pooling, manifest.text.max_tokens) == ("t5", "mean", 40)
    assert manifest.quantization is not None
    assert manifest.quantization.recipe == rowwise.RECIPE
    ids = model.tokenizer.encode(["Search ink", "", "墨" * 400]).ids
    assert all(row[-1] == 1 for row in ids), "every text ends with </s>"
    assert list(map(len, ids)) == [9, 1, 40]
    reference = ReferenceT5(folder)
    expected = np.concatenate([reference.embed(row[None]) for row in ids]).astype(np.float32)
    found = model.embed(["Search ink", "", "墨" * 400])
    assert row_cosines(found, expected).min() > 0.995


@pytest.mark.parametrize(
    ("changes", "error", "parts"),
    [
        (
            {"feed_forward_proj": "gated-tanh"},
            UnsupportedModel,
            ["feed_forward_proj", "gated-tanh"],
        ),
        ({"feed_forward_proj": None}, UnsupportedModel, ["feed_forward_proj", "None"]),
        ({"dense_act_fn": "silu"}, UnsupportedModel, ["dense_act_fn 'silu'", "only 'relu'"]),
        ({"is_gated_act": True}, UnsupportedModel, ["is_gated_act"]),
        ({"hidden_size": 31}, CorruptFile, ["hidden_size 31", "d_model 32"]),
        ({"d_kv": 0}, CorruptFile, ["d_kv 0"]),
        ({"d_kv": 7}, ShapeMismatch, ["SelfAttention.q.weight", "(28, 32)"]),
        ({"num_layers": 2**40}, CorruptFile, ["num_layers"]),
        ({"relative_attention_max_distance": 8}, CorruptFile, ["32 buckets", "distance, 8"]),
        ({"layer_norm_epsilon": float("nan")}, CorruptFile, ["layer_norm_epsilon"]),
    ],
    ids=str,
)
def test_t5_that_the_graph_cannot_honour_is_refused_by_name(
    changes: dict[str, Any], error: type[ExportError], parts: list[str], tmp_path: Path
) -> None:
    folder = write_t5(tmp_path)
    change_json(folder / "config.json", **changes)
    refusal(folder, error, *parts)


def test_pooling_of_a_t5_is_the_mean_or_the_maximum(tmp_path: Path) -> None:
    folder = write_t5(tmp_path, folder_options={"pooling": "cls"})
    refusal(folder, UnsupportedModel, "pooling cls is not supported; one of mean, max")


def test_words_of_a_t5_may_have_the_encoders_name(tmp_path: Path) -> None:
    folder = write_t5(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.embed_tokens.weight"] = tensors.pop("shared.weight")
    save_file(tensors, folder / "model.safetensors")
    assert read_checkpoint(folder).tensors["shared.weight"].shape == (len(PIECES), 32)


def test_instructor_leaves_the_instruction_out_of_the_pooling_though_its_folder_does_not_say_so(
    tmp_path: Path,
) -> None:
    folder = write_t5(tmp_path / "model", folder_options={"max_tokens": 64}, num_layers=1)
    write_steps(folder, [Dense(24, bias=False), "Normalize"])
    settings = Settings(source=str(folder), precision="fp32")
    for name in ("", "hkunlp/instructor-base"):
        card = f"---\nbase_model: {name}\n---\n" if name else ""
        (folder / "README.md").write_text(card, encoding="utf-8")
        source = read_model(locate(settings), settings)
        rules = source.text_rules(settings)
        assert source.dimension == 24
        assert rules.instruction_offset == (len(PIECES) if name else 0)
        assert rules.query_instruction.startswith("Represent the question") == bool(name)
        terminal = Terminal("en", out := io.StringIO(), io.StringIO())
        inspection.run(terminal, [str(folder)])
        assert ("the pooling leaves out" in out.getvalue()) == bool(name)
    # What the folder says itself is what sentence-transformers does.
    change_json(folder / "1_Pooling" / "config.json", include_prompt=True)
    source = read_model(locate(settings), settings)
    assert source.text_rules(settings).instruction_offset == 0
    assert any("include_prompt: true" in note.english for note in source.notes)
    inspection.run(terminal, [str(folder)])
    assert "note: instructor is known for pooling that leaves" in out.getvalue()
