"""Decoders that embed: the graphs against numpy, packed batches, tiles, and refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import shape_inference

from export.checkpoint import Checkpoint, read_checkpoint
from export.errors import CorruptFile, ExportError, ShapeMismatch, UnsupportedModel
from export.families.batches import GROUPS
from export.families.decoder import attention
from export.families.decoder.shape import read_qwen3
from export.source.json_file import read_json
from tests.support.checkpoints import change_json, refusal
from tests.support.decoder_toys import CONFIGS, write_decoder
from tests.support.encoders import float_encoder, random_ids
from tests.support.reference_decoder import ReferenceDecoder
from tests.support.toys import write_toy_checkpoint

# float32 rounding, of a vector's length.
ROUNDING = 3e-6
LENGTHS = (1, 2, 3, 9, 17, 64, 300)

OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "mean": ("qwen3", {"pooling": "mean"}),
    "as is": ("qwen3", {"normalize": False}),
    "biases": ("qwen3", {"attention_bias": True}),
    "one head of keys": ("qwen3", {"num_key_value_heads": 1}),
    "names with a prefix": ("qwen3", {"prefix": "model."}),
    "windows in the last layers": (
        "qwen3",
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
    "a window": ("mistral", {"sliding_window": 7}),
    "no window": ("mistral", {"sliding_window": None, "head_dim": 32}),
    "shared keys": ("llama", {"num_key_value_heads": 2, "attention_bias": False}),
}


def toy(folder: Path, kind: str = "qwen3", **options: Any) -> Checkpoint:
    return read_checkpoint(write_decoder(folder / kind, kind, **options))


def assert_same_vectors(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs((found - expected) / lengths).max() < ROUNDING


def assert_equal_to_numpy(checkpoint: Checkpoint, lengths: tuple[int, ...]) -> None:
    reference, encoder = ReferenceDecoder(checkpoint.folder), float_encoder(checkpoint)
    for n_tokens in lengths:
        texts = random_ids(2, n_tokens)
        assert_same_vectors(encoder.encode(texts), reference.embed(np.stack(texts)))


@pytest.mark.parametrize("kind", CONFIGS)
def test_float_graph_equals_the_numpy_reference(kind: str, tmp_path: Path) -> None:
    checkpoint = toy(tmp_path, kind)
    assert checkpoint.family.name == kind
    assert_equal_to_numpy(checkpoint, LENGTHS)


@pytest.mark.parametrize(("kind", "options"), OPTIONS.values(), ids=OPTIONS.keys())
def test_float_graph_equals_the_numpy_reference_for_every_setting(
    kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    assert_equal_to_numpy(toy(tmp_path, kind, **options), (3, 9, 40))


@pytest.mark.parametrize("pooling", ["lasttoken", "mean"])
def test_texts_of_several_lengths_together_equal_the_reference(
    pooling: str, tmp_path: Path
) -> None:
    checkpoint = toy(tmp_path, pooling=pooling)
    encoder = float_encoder(checkpoint)
    assert encoder.packing.groups == GROUPS
    texts = [random_ids(1, length, seed)[0] for seed, length in enumerate([90, 90, 3, 1, 1, 1, 2])]
    reference = ReferenceDecoder(checkpoint.folder)
    expected = np.concatenate([reference.embed(ids[None]) for ids in texts])
    assert_same_vectors(encoder.encode(texts), expected)


@pytest.mark.parametrize("window", [None, 5, 20])
def test_long_texts_are_computed_in_tiles_and_equal_the_reference(
    window: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(attention, "TILE", 16)
    assert_equal_to_numpy(
        toy(tmp_path, "mistral", sliding_window=window), (15, 16, 17, 32, 50, 300)
    )


def test_graph_passes_the_checker_and_every_constant_is_read(tmp_path: Path) -> None:
    network = toy(tmp_path).network()
    model = network.whole(network.float_linears(), int8_embeddings=True)
    onnx.checker.check_model(model, full_check=True)
    shape_inference.infer_shapes(model, check_type=True, strict_mode=True)


@pytest.mark.parametrize(
    ("kind", "changes", "error", "part"),
    [
        ("qwen3", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, UnsupportedModel, "yarn"),
        ("llama", {"rope_scaling": {"type": "linear"}}, UnsupportedModel, "linear"),
        ("qwen3", {"rope_scaling": 3}, UnsupportedModel, "rope_type"),
        (
            "qwen3",
            {"rope_parameters": {"rope_type": "default", "rope_theta": 0}},
            CorruptFile,
            "theta",
        ),
        ("qwen3", {"hidden_act": "gelu"}, UnsupportedModel, "hidden_act"),
        ("qwen3", {"head_dim": 24}, UnsupportedModel, "heads of 24 channels"),
        ("qwen2", {"hidden_size": 70}, ShapeMismatch, "70 cannot be split into 4"),
        ("qwen3", {"num_key_value_heads": 3}, ShapeMismatch, "num_key_value_heads 3"),
        ("qwen3", {"num_hidden_layers": 2**40}, CorruptFile, "num_hidden_layers"),
        ("qwen3", {"layer_types": ["full_attention"]}, CorruptFile, "layer_types"),
        (
            "qwen3",
            {"layer_types": ["sliding_attention"] * 3},
            UnsupportedModel,
            "use_sliding_window",
        ),
        ("qwen3", {"layer_types": [{}] * 3}, CorruptFile, "layer_types"),
        ("mistral", {"sliding_window": 0}, CorruptFile, "sliding_window"),
        ("qwen3", {"rms_norm_eps": float("nan")}, CorruptFile, "rms_norm_eps"),
    ],
    ids=str,
)
def test_config_that_the_graph_cannot_honour_is_refused_by_name(
    kind: str, changes: dict[str, Any], error: type[ExportError], part: str, tmp_path: Path
) -> None:
    folder = write_decoder(tmp_path, kind)
    change_json(folder / "config.json", **changes)
    refusal(folder, error, part)


def test_theta_of_newer_files_is_read(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path)
    change_json(
        folder / "config.json",
        rope_theta=...,
        rope_scaling=...,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
        layer_types=["full_attention"] * 3,
    )
    assert read_qwen3(read_json(folder / "config.json")).theta == 5000.0


def test_pooling_of_the_last_token_is_for_decoders_alone(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "decoder")
    change_json(
        folder / "1_Pooling/config.json", pooling_mode_lasttoken=False, pooling_mode_cls_token=True
    )
    refusal(folder, UnsupportedModel, "pooling cls is not supported; one of lasttoken, mean")
    bert = write_toy_checkpoint(tmp_path / "bert")
    change_json(bert / "1_Pooling/config.json", pooling_mode="lasttoken")
    refusal(bert, UnsupportedModel, "pooling")
