"""Checkpoint folders that are refused, with the file or tensor at fault."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from export.checkpoint import read_checkpoint
from export.errors import (
    CorruptFile,
    NoSuchModel,
    ShapeMismatch,
    UnsupportedModel,
)
from tests.support.checkpoints import (
    SETTINGS,
    WORDS,
    change_json,
    change_tensors,
    refusal,
    write_safetensors,
)
from tests.support.toys import VOCABULARY, write_json, write_toy_checkpoint

QUERY = "encoder.layer.1.attention.self.query"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_toy_checkpoint(tmp_path / "toy")


def test_missing_folder_is_named(tmp_path: Path) -> None:
    refusal(tmp_path / "none", NoSuchModel, str(tmp_path / "none"))


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json"]
)
def test_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    refusal(folder, NoSuchModel, name)


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "sentence_bert_config.json",
        "tokenizer_config.json",
        "1_Pooling/config.json",
        "config_sentence_transformers.json",
    ],
)
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not valid JSON"),
        (b'{"a": 1', "not valid JSON"),
        (b'{"a": "\xff"}', "not valid JSON"),
        (b"[1]", "must hold a JSON object"),
        (b"null", "must hold a JSON object"),
    ],
)
def test_bad_json_is_named(name: str, content: bytes, reason: str, folder: Path) -> None:
    (folder / name).write_bytes(content)
    refusal(folder, CorruptFile, str(folder / name), reason)


def test_folder_where_a_file_should_be_is_named(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    refusal(folder, CorruptFile, "config.json cannot be read: Is a directory")


@pytest.mark.parametrize("kept", [0, 7, 100, 0.5, 0.999])
def test_truncated_weights_are_refused(kept: float, folder: Path) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content) if kept < 1 else kept)])
    refusal(folder, CorruptFile, "model.safetensors cannot be read as safetensors")


def test_element_type_that_numpy_lacks_is_refused(folder: Path) -> None:
    write_safetensors(folder / "model.safetensors", {WORDS: ("F8_E4M3", (2,), b"\0\1")})
    refusal(folder, CorruptFile, "model.safetensors cannot be read")


@pytest.mark.parametrize(
    "name",
    [
        WORDS,
        "embeddings.token_type_embeddings.weight",
        "embeddings.LayerNorm.bias",
        f"{QUERY}.weight",
        f"{QUERY}.bias",
        "encoder.layer.0.output.LayerNorm.weight",
    ],
)
def test_missing_tensor_is_named_with_its_shape(name: str, folder: Path) -> None:
    shape = load_file(folder / "model.safetensors")[name].shape
    change_tensors(folder, lambda tensors: tensors.pop(name))
    refusal(folder, ShapeMismatch, f"tensor {name} is missing", str(shape))


def test_tensor_of_another_shape_is_named_with_both_shapes(folder: Path) -> None:
    change_tensors(
        folder, lambda tensors: tensors.update({WORDS: np.zeros((9, 32), dtype=np.float32)})
    )
    refusal(folder, ShapeMismatch, WORDS, "(9, 32)", f"({len(VOCABULARY)}, 32)")


def test_more_layers_than_the_weights_have_are_refused(folder: Path) -> None:
    change_json(folder / "config.json", num_hidden_layers=3)
    refusal(folder, ShapeMismatch, "encoder.layer.2.", "is missing")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_tensor_with_nan_or_infinity_is_named(value: float, folder: Path) -> None:
    def spoil(tensors: dict[str, Any]) -> None:
        tensors[f"{QUERY}.weight"][3, 4] = value

    change_tensors(folder, spoil)
    refusal(folder, CorruptFile, f"tensor {QUERY}.weight holds NaN or infinity")


@pytest.mark.parametrize("model_type", ["electra", "deberta-v2"])
def test_other_architecture_is_sent_to_optimum(model_type: str, folder: Path) -> None:
    change_json(folder / "config.json", model_type=model_type)
    error = refusal(folder, UnsupportedModel, f'"{model_type}"', "--via optimum")
    assert "--via optimum" in error.chinese


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("position_embedding_type", "relative_key"),
        ("position_embedding_type", "relative_key_query"),
        ("hidden_act", "quick_gelu"),
        ("hidden_act", ["gelu"]),
        ("is_decoder", True),
    ],
)
def test_network_that_is_not_written_is_refused_by_its_setting(
    key: str, value: Any, folder: Path
) -> None:
    change_json(folder / "config.json", **{key: value})
    refusal(folder, UnsupportedModel, key, "--via optimum")


@pytest.mark.parametrize(
    "key",
    [
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
    ],
)
def test_setting_that_is_missing_is_named(key: str, folder: Path) -> None:
    change_json(folder / "config.json", **{key: ...})
    refusal(folder, CorruptFile, f"config.json lacks {key}")


@pytest.mark.parametrize("value", [None, "wide", [32], {}])
def test_setting_that_is_no_number_is_refused(value: Any, folder: Path) -> None:
    change_json(folder / "config.json", hidden_size=value)
    refusal(folder, CorruptFile, "config.json", "number")


@pytest.mark.parametrize(
    "values",
    [
        {"num_attention_heads": 5},
        {"num_attention_heads": 64},
        {"hidden_size": 33},
    ],
)
def test_numbers_that_make_no_network_are_refused(values: dict[str, int], folder: Path) -> None:
    change_json(folder / "config.json", **values)
    refusal(folder, ShapeMismatch, "cannot be split", *map(str, values.values()))


SIZES = [
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
]


@pytest.mark.parametrize("key", SIZES)
@pytest.mark.parametrize("value", [0, -32, 10**9, 10**400])
def test_size_that_no_network_has_is_refused_with_the_limits(
    key: str, value: int, folder: Path
) -> None:
    change_json(folder / "config.json", **{key: value})
    refusal(folder, CorruptFile, f"config.json: {key} ", "is outside 1 to ")


@pytest.mark.parametrize("key", SIZES)
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 32.5, "32", True, [[32]]])
def test_size_that_is_no_whole_number_is_refused(key: str, value: Any, folder: Path) -> None:
    change_json(folder / "config.json", **{key: value})
    refusal(folder, CorruptFile, f"config.json: {key} is {value!r}, not a whole number")


def test_whole_number_may_be_written_with_a_point(folder: Path) -> None:
    change_json(folder / "config.json", hidden_size=32.0)
    change_json(folder / "tokenizer_config.json", model_max_length=1e30)
    change_json(folder / "sentence_bert_config.json", max_seq_length=None)
    checkpoint = read_checkpoint(folder)
    assert (checkpoint.network().dimension, checkpoint.settings.max_tokens) == (32, 64)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1e-12, 1, 1.5, None, "1e-12", True])
def test_layer_norm_epsilon_that_is_none_is_refused(value: Any, folder: Path) -> None:
    change_json(folder / "config.json", layer_norm_eps=value)
    refusal(folder, CorruptFile, f"config.json: layer_norm_eps is {value!r}, not a number from 0")


@pytest.mark.parametrize("name", SETTINGS)
def test_json_that_nests_too_deeply_is_named(name: str, folder: Path) -> None:
    (folder / name).write_text('{"a": ' + "[" * 100_000, encoding="utf-8")
    refusal(folder, CorruptFile, str(folder / name))


@pytest.mark.parametrize("value", ["q: ", ["q: "], 7, {"query": 7}, {"query": None}, {"query": {}}])
def test_prompts_that_are_no_object_of_strings_are_refused(value: Any, folder: Path) -> None:
    write_json(folder / "config_sentence_transformers.json", {"prompts": value})
    refusal(folder, CorruptFile, "config_sentence_transformers.json: prompts is ", "of strings")


@pytest.mark.parametrize("value", [7, ["query"], {}, True])
def test_default_prompt_name_that_is_no_string_is_refused(value: Any, folder: Path) -> None:
    path = folder / "config_sentence_transformers.json"
    write_json(path, {"prompts": {"query": "q: "}, "default_prompt_name": value})
    refusal(folder, CorruptFile, f"{path}: default_prompt_name is {value!r}, not a string")


def test_half_of_a_surrogate_pair_in_a_prompt_is_refused(folder: Path) -> None:
    path = folder / "config_sentence_transformers.json"
    path.write_text(r'{"prompts": {"query": "q\ud83d: "}}', encoding="utf-8")
    error = refusal(folder, CorruptFile, f"{path}: prompt 'query'", "surrogate")
    error.english.encode()
    path.write_text(r'{"prompts": {"query": "q\ud83d\ude00: "}}', encoding="utf-8")
    assert read_checkpoint(folder).settings.prompts == {"query": "q\U0001f600: "}


@pytest.mark.parametrize("value", ["a.safetensors", ["a.safetensors"], None, {WORDS: 7}, {"a": []}])
def test_index_of_shards_that_is_no_object_of_strings_is_refused(value: Any, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    write_json(folder / "model.safetensors.index.json", {"weight_map": value})
    refusal(folder, CorruptFile, "model.safetensors.index.json: weight_map is ", "of strings")


@pytest.mark.parametrize("name", ["/etc/passwd", "../model.safetensors", "a/../../b"])
def test_shard_outside_the_folder_is_refused(name: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    write_json(folder / "model.safetensors.index.json", {"weight_map": {WORDS: name}})
    refusal(folder, CorruptFile, name, "outside the folder")


def test_tokenizer_without_a_vocabulary_is_refused(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content |= {"added_tokens": [], "post_processor": None}
    content["model"]["vocab"] = {}
    write_json(path, content)
    refusal(folder, CorruptFile, "no vocabulary")


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int64])
def test_numbers_of_a_quantised_model_are_refused(kind: Any, folder: Path) -> None:
    def quantise(tensors: dict[str, Any]) -> None:
        tensors[f"{QUERY}.weight"] = np.rint(tensors[f"{QUERY}.weight"] * 100).astype(kind)

    change_tensors(folder, quantise)
    name = np.dtype(kind).name
    refusal(folder, UnsupportedModel, f"tensor {QUERY}.weight holds numbers of the type {name}")


def test_weights_that_transformers_would_change_are_refused(folder: Path) -> None:
    change_json(folder / "config.json", quantization_config={"load_in_8bit": True})
    refusal(folder, UnsupportedModel, "quantization_config")
    change_json(folder / "config.json", quantization_config=...)
    write_json(folder / "adapter_config.json", {"base_model_name_or_path": "someone/else"})
    refusal(folder, UnsupportedModel, "adapter beside those of a model (adapter_config.json)")


def test_tensor_under_two_names_must_be_the_same(folder: Path) -> None:
    change_tensors(folder, lambda t: t.update({f"bert.{WORDS}": t[WORDS]}))
    read_checkpoint(folder)
    change_tensors(folder, lambda t: t.update({f"bert.{WORDS}": t[WORDS] + 1}))
    refusal(folder, CorruptFile, f"the tensor {WORDS} a second time")


@pytest.mark.parametrize("key", ["config_args", "model_args", "tokenizer_args"])
def test_settings_that_are_handed_on_to_transformers_are_refused(key: str, folder: Path) -> None:
    change_json(folder / "sentence_bert_config.json", **{key: {}})
    read_checkpoint(folder)
    change_json(folder / "sentence_bert_config.json", **{key: {"hidden_act": "relu"}})
    refusal(folder, UnsupportedModel, f"sentence_bert_config.json: {key} changes how")
