"""Decoders that embed: the graphs against numpy, packed batches, tiles, and refusals."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import shape_inference
from tokenizers import Tokenizer

from export.checkpoint import Checkpoint, read_checkpoint
from export.errors import CorruptFile, ExportError, ShapeMismatch, UnsupportedModel
from export.families.batches import GROUPS
from export.families.decoder import attention
from export.families.decoder.shape import read_qwen3
from export.pipeline import export
from export.quantisation import rowwise
from export.settings import Settings
from export.source.json_file import read_json
from export.verification.verify import Thresholds
from server.inference.comparison import row_cosines
from server.inference.manifest import read_manifest
from server.inference.model import Model
from tests.support.checkpoints import change_json, refusal
from tests.support.decoder_toys import (
    BOTH_WAYS,
    CONFIGS,
    END,
    INSTRUCTION,
    MERGES,
    use_llama_tokenizer,
    use_own_tokenizer,
    write_decoder,
)
from tests.support.encoders import float_encoder, one_by_one, random_ids, rowwise_encoder, token_ids
from tests.support.reference_decoder import ReferenceDecoder
from tests.support.toys import toy_texts, write_toy_checkpoint, write_toy_texts

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


@pytest.mark.parametrize("kind", BOTH_WAYS)
def test_known_code_that_attends_in_both_directions_is_written(kind: str, tmp_path: Path) -> None:
    # A window of tokens before is that of the network that transformers has.
    window = {"sliding_window": 4} if kind == "mistral" else {}
    checkpoint = toy(tmp_path, kind, pooling="mean", **BOTH_WAYS[kind], **window)
    assert_equal_to_numpy(checkpoint, (1, 2, 9, 64, 300))
    texts = [random_ids(1, length, seed)[0] for seed, length in enumerate([90, 90, 3, 1, 1, 2])]
    encoder, reference = float_encoder(checkpoint), ReferenceDecoder(checkpoint.folder)
    expected = np.concatenate([reference.embed(ids[None]) for ids in texts])
    assert_same_vectors(encoder.encode(texts), expected)
    in_int8 = rowwise_encoder(checkpoint)
    assert row_cosines(expected.astype(np.float32), in_int8.encode(texts)).min() > 0.99


@pytest.mark.parametrize(
    ("kind", "changes", "part"),
    [
        ("qwen2", {"auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"}}, "auto_map"),
        ("qwen2", {"auto_map": {"AutoModel": "other.Qwen2Model"}, "is_causal": False}, "auto_map"),
        ("llama", {"auto_map": {"AutoModel": "modeling_gritlm7b.MistralModel"}}, "auto_map"),
        ("mistral", {**BOTH_WAYS["mistral"], "is_causal": True}, "auto_map"),
        ("qwen3", {"is_causal": False}, "is_causal: false"),
        ("qwen2", {**BOTH_WAYS["qwen2"], "use_sliding_window": True}, "use_sliding_window"),
    ],
    ids=str,
)
def test_other_attention_in_both_directions_is_refused(
    kind: str, changes: dict[str, Any], part: str, tmp_path: Path
) -> None:
    refusal(write_decoder(tmp_path, kind, **changes), UnsupportedModel, part)


def test_known_code_of_a_tokenizer_puts_the_end_behind_a_text(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path, "qwen2", **BOTH_WAYS["qwen2"])
    use_own_tokenizer(folder)
    tokenizer = Tokenizer.from_str(read_checkpoint(folder).tokenizer_json)
    assert tokenizer.encode("a").tokens == ["a", END]
    for changed in ({"add_eos_token": False}, {"add_bos_token": True}):
        use_own_tokenizer(folder, **changed)
        refusal(folder, UnsupportedModel, "auto_map", "never run")


def test_graph_passes_the_checker_and_every_constant_is_read(tmp_path: Path) -> None:
    network = toy(tmp_path).network()
    model = network.whole(network.float_linears(), int8_embeddings=True)
    onnx.checker.check_model(model, full_check=True)
    shape_inference.infer_shapes(model, check_type=True, strict_mode=True)


@pytest.mark.parametrize(("kind", "weight_bits"), [*((kind, 8) for kind in CONFIGS), ("qwen3", 7)])
def test_int8_vectors_are_close_to_float32_and_the_same_beside_any_neighbours(
    kind: str, weight_bits: int, tmp_path: Path
) -> None:
    checkpoint = toy(tmp_path, kind)
    texts = token_ids(checkpoint, [*toy_texts(40, seed=5), *toy_texts(2, longest=250)])
    encoder = rowwise_encoder(checkpoint, weight_bits)
    exact, found = one_by_one(float_encoder(checkpoint), texts), one_by_one(encoder, texts)
    cosines = row_cosines(exact, found)
    assert cosines.mean() > (0.999 if weight_bits == 8 else 0.998)
    assert cosines.min() > 0.99
    assert np.abs(exact - found).max() > 1e-6, "the int8 graph computes in float32"
    stream = np.concatenate(texts)
    alone = [stream[index : index + length] for index, length in enumerate([3, 3, 90, 2, 1])]
    assert np.array_equal(encoder.encode(alone), one_by_one(encoder, alone))
    long = [stream[index : index + 150] for index in range(3)]
    assert np.array_equal(encoder.encode(long), one_by_one(encoder, long))


def test_token_with_huge_activations_does_not_blur_the_others(tmp_path: Path) -> None:
    """Decoders have such tokens; one scale for all rows would leave nothing of the rest."""
    checkpoint = toy(tmp_path, pooling="mean")
    words = np.array(checkpoint.tensors["embed_tokens.weight"])
    words[0, 3] = 3_000.0
    tensors = {**checkpoint.tensors, "embed_tokens.weight": words}
    checkpoint = replace(checkpoint, tensors=tensors)
    texts = [np.concatenate([[0], ids]) for ids in token_ids(checkpoint, toy_texts(20, seed=5))]
    found = one_by_one(rowwise_encoder(checkpoint), texts)
    exact = one_by_one(float_encoder(checkpoint), texts)
    assert row_cosines(exact, found).min() > 0.99


def test_channels_that_stand_out_are_evened_out_at_no_cost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checkpoint = toy(tmp_path)
    tensors = dict(checkpoint.tensors)
    for name in [name for name in tensors if name.endswith("layernorm.weight")]:
        tensors[name] = np.where(np.arange(len(tensors[name])) < 2, 40, 1) * tensors[name]
        tensors[name] = tensors[name].astype(np.float32)
    checkpoint = replace(checkpoint, tensors=tensors)
    texts = token_ids(checkpoint, toy_texts(20, seed=5))
    exact = one_by_one(float_encoder(checkpoint), texts)
    even = rowwise_encoder(checkpoint)
    monkeypatch.setattr(rowwise, "ALPHAS", ())
    plain = rowwise_encoder(checkpoint)
    lost, kept = (1 - row_cosines(exact, one_by_one(each, texts)).mean() for each in (plain, even))
    assert kept < lost / 3


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


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_decoder_is_exported_verified_and_served(precision: Any, tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "qwen3", max_tokens=64)
    settings = Settings(
        source=str(folder),
        precision=precision,
        calibration=write_toy_texts(tmp_path / "calibration.txt", 40),
        verify_texts=write_toy_texts(tmp_path / "verification.txt", 20, seed=1),
        thresholds=Thresholds(mean=0.99, minimum=0.9),
    )
    artifact = export(settings)
    manifest = read_manifest(artifact)
    assert (manifest.family, manifest.pooling) == ("qwen3", "lasttoken")
    assert manifest.text.query_instruction == INSTRUCTION
    if precision == "int8":
        assert manifest.quantization is not None
        assert manifest.quantization.recipe == rowwise.RECIPE
    model = Model(artifact)
    texts = toy_texts(10, seed=9)
    ids = model.tokenizer.encode(texts).ids
    assert all(row[-1] == 256 + len(MERGES) for row in ids), "every text ends with the end token"
    reference = ReferenceDecoder(folder)
    expected = np.concatenate([reference.embed(row[None]) for row in ids]).astype(np.float32)
    assert row_cosines(model.embed(texts), expected).min() > (
        0.999999 if precision == "fp32" else 0.995
    )
    queries = model.tokenizer.encode(["search"], "query").ids
    whole = model.tokenizer.encode([f"{INSTRUCTION}search"], "none").ids
    assert np.array_equal(queries[0], whole[0])


@pytest.mark.parametrize(
    ("config", "before", "after"),
    [
        ({}, ["<s>"], []),
        ({"add_eos_token": True, "bos_token": {"content": "<s>"}}, ["<s>"], ["</s>"]),
        ({"add_bos_token": False, "add_eos_token": True}, [], ["</s>"]),
        ({"add_bos_token": None}, [], []),
    ],
    ids=str,
)
def test_configuration_of_a_llama_says_what_stands_around_a_text(
    config: dict[str, Any], before: list[str], after: list[str], tmp_path: Path
) -> None:
    folder = write_decoder(tmp_path, "mistral")
    use_llama_tokenizer(folder, **config)
    tokenizer = Tokenizer.from_str(read_checkpoint(folder).tokenizer_json)
    assert tokenizer.encode("a").tokens == [*before, "a", *after]
    assert tokenizer.encode("a", "b").tokens == [*before, "a", *after, *before, "b", *after]


def test_token_around_a_text_that_the_tokenizer_lacks_is_named(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path, "mistral")
    use_llama_tokenizer(folder, add_eos_token=True, eos_token="<end>")
    refusal(folder, UnsupportedModel, "<end>", "tokenizer_config.json")
