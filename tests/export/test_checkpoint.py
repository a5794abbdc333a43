"""Checkpoint folders that are read, and those that are refused with the file or tensor at fault."""

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from export.checkpoint import Checkpoint, read_checkpoint
from export.errors import (
    CorruptFile,
    ExportError,
    MissingPackage,
    NoSuchModel,
    ShapeMismatch,
    UnsupportedModel,
)
from export.families.bert.shape import BertShape
from tests.support.toys import VOCABULARY, write_json, write_modules, write_toy_checkpoint

ROOT = Path(__file__).parents[2]
WORDS = "embeddings.word_embeddings.weight"
QUERY = "encoder.layer.1.attention.self.query"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_toy_checkpoint(tmp_path / "toy")


def change_json(path: Path, **values: Any) -> None:
    """Set keys of a JSON file; the value `...` removes a key."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content |= values
    write_json(path, {key: value for key, value in content.items() if value is not ...})


def change_tensors(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def refusal(folder: Path, kind: type[ExportError], *parts: str) -> ExportError:
    """Expect an error of exactly this kind, with these parts, in both languages; returns it."""
    with pytest.raises(ExportError) as caught:
        read_checkpoint(folder)
    error = caught.value
    assert type(error) is kind, error.english
    for part in parts:
        assert part in error.english
    assert any("\u4e00" <= character <= "\u9fff" for character in error.chinese)
    assert not error.english.endswith(".") and not error.chinese.endswith("。")
    return error


# --- what is read ---------------------------------------------------------------------------------


def test_toy_checkpoint_is_read_as_written(folder: Path) -> None:
    checkpoint = read_checkpoint(folder)
    shape, settings = checkpoint.shape, checkpoint.settings
    assert isinstance(shape, BertShape)
    assert (shape.layers, shape.hidden, shape.heads, shape.intermediate) == (2, 32, 4, 64)
    assert (shape.vocabulary, shape.positions, shape.token_types) == (len(VOCABULARY), 64, 2)
    assert (shape.activation, shape.layer_norm_epsilon) == ("gelu", 1e-12)
    assert (settings.pooling, settings.normalize, settings.lower_case) == ("cls", True, True)
    assert (settings.max_tokens, settings.prompts, settings.default_prompt) == (64, {}, None)
    stored = load_file(folder / "model.safetensors")
    assert checkpoint.tensors.keys() == stored.keys()
    assert all(np.array_equal(checkpoint.tensors[name], stored[name]) for name in stored)


def same_tensors(found: Checkpoint, expected: Checkpoint) -> bool:
    return found.tensors.keys() == expected.tensors.keys() and all(
        np.array_equal(found.tensors[name], expected.tensors[name]) for name in expected.tensors
    )


def test_sharded_weights_are_read_as_one(folder: Path) -> None:
    whole = read_checkpoint(folder)
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, members in shards.items():
        save_file({name: tensors[name] for name in members}, folder / file)
    weight_map = {name: file for file, members in shards.items() for name in members}
    write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})
    (folder / "model.safetensors").unlink()
    sharded = read_checkpoint(folder)
    assert same_tensors(sharded, whole)
    assert sharded.sha256 != whole.sha256
    (folder / "b.safetensors").write_bytes((folder / "a.safetensors").read_bytes())
    refusal(folder, ShapeMismatch, "is missing")


def test_missing_shard_is_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    write_json(index, {"weight_map": {WORDS: "gone.safetensors"}})
    refusal(folder, NoSuchModel, "model.safetensors.index.json", "gone.safetensors")
    write_json(index, {"weight_map": {}})
    refusal(folder, NoSuchModel, "none at all")


def test_bert_prefix_and_the_old_names_of_layer_norm_are_understood(folder: Path) -> None:
    modern = read_checkpoint(folder)

    def rename(tensors: dict[str, Any]) -> None:
        for name in list(tensors):
            old = name.replace("LayerNorm.weight", "LayerNorm.gamma")
            old = old.replace("LayerNorm.bias", "LayerNorm.beta")
            tensors[f"bert.{old}"] = tensors.pop(name)

    change_tensors(folder, rename)
    assert "bert.embeddings.LayerNorm.gamma" in load_file(folder / "model.safetensors")
    assert same_tensors(read_checkpoint(folder), modern)


def test_tensors_that_the_graph_does_not_need_may_be_anything(folder: Path) -> None:
    def add(tensors: dict[str, Any]) -> None:
        tensors["embeddings.position_ids"] = np.arange(64)
        tensors["pooler.dense.weight"] = np.full((32, 32), np.nan, dtype=np.float32)
        tensors["cls.predictions.bias"] = np.zeros(3, dtype=np.float32)

    change_tensors(folder, add)
    assert len(read_checkpoint(folder).network().layers) == 2


def write_safetensors(path: Path, tensors: dict[str, tuple[str, Any, bytes]]) -> None:
    """Write the format by hand: name -> (element type, shape, bytes)."""
    header, content = {}, b""
    for name, (element, shape, raw) in tensors.items():
        span = [len(content), len(content) + len(raw)]
        header[name] = {"dtype": element, "shape": list(shape), "data_offsets": span}
        content += raw
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + content)


def test_half_precision_is_widened_exactly(folder: Path) -> None:
    def halve(tensors: dict[str, Any]) -> None:
        for name in tensors:
            tensors[name] = tensors[name].astype(np.float16)

    change_tensors(folder, halve)
    halves = load_file(folder / "model.safetensors")
    checkpoint = read_checkpoint(folder)
    for name, array in checkpoint.tensors.items():
        assert array.dtype == np.float32
        assert np.array_equal(array, halves[name].astype(np.float32))


def test_bfloat16_is_widened_exactly(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    # A bfloat16 is the upper half of a float32.
    upper = {name: array.view(np.uint32) >> 16 for name, array in tensors.items()}
    write_safetensors(
        folder / "model.safetensors",
        {name: ("BF16", a.shape, a.astype("<u2").tobytes()) for name, a in upper.items()},
    )
    checkpoint = read_checkpoint(folder)
    for name, array in checkpoint.tensors.items():
        assert array.dtype == np.float32
        assert np.array_equal(array.view(np.uint32), upper[name] << 16)


def test_bfloat16_is_read_where_onnx_is_not_imported(folder: Path) -> None:
    write_safetensors(folder / "model.safetensors", {WORDS: ("BF16", (2, 1), b"\x80\x3f\0\0")})
    program = (
        "import sys; from pathlib import Path; from export.source.tensors import read_tensors\n"
        "((_, words),) = read_tensors([Path(sys.argv[1])], str).items()\n"
        "assert words.tolist() == [[1.0], [0.0]]\n"
        "assert 'onnx' not in sys.modules\n"
    )
    command = [sys.executable, "-c", program, str(folder / "model.safetensors")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_pickled_weights_are_not_read_unasked(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02")
    error = refusal(folder, NoSuchModel, "only pytorch_model.bin", "--allow-pickle")
    assert "--allow-pickle" in error.chinese


def test_pickled_weights_need_torch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPackage, match="needs torch: install the export-any extra"):
        read_checkpoint(folder, allow_pickle=True)


def test_safetensors_win_over_pickled_weights(folder: Path) -> None:
    expected = read_checkpoint(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02")
    found = read_checkpoint(folder, allow_pickle=True)
    assert same_tensors(found, expected)
    assert found.sha256 == expected.sha256


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gelu", "gelu"),
        ("gelu_python", "gelu"),
        ("gelu_new", "gelu_tanh"),
        ("gelu_pytorch_tanh", "gelu_tanh"),
        ("relu", "relu"),
        (..., "gelu"),
    ],
)
def test_activation_is_understood(name: Any, expected: str, folder: Path) -> None:
    change_json(folder / "config.json", hidden_act=name)
    shape = read_checkpoint(folder).shape
    assert isinstance(shape, BertShape)
    assert shape.activation == expected


# --- the sentence-transformers files --------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False}, "max"),
        ({"word_embedding_dimension": 32}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": "max", "include_prompt": True}, "max"),
    ],
)
def test_pooling_is_what_sentence_transformers_would_do(
    config: dict[str, Any], expected: str, folder: Path
) -> None:
    write_json(folder / "1_Pooling" / "config.json", config)
    assert read_checkpoint(folder).settings.pooling == expected


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "cls + mean"),
        ({"pooling_mode_cls_token": True}, "cls + mean"),
        ({"pooling_mode_mean_tokens": False}, "none"),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, "lasttoken"),
        ({"pooling_mode": "weightedmean"}, "weightedmean"),
    ],
)
def test_pooling_that_is_not_written_is_refused_by_name(
    config: dict[str, Any], named: str, folder: Path
) -> None:
    write_json(folder / "1_Pooling" / "config.json", config)
    refusal(folder, UnsupportedModel, f"pooling {named} is not supported", "cls, mean, max")


def test_pooling_without_the_prompt_is_refused(folder: Path) -> None:
    change_json(folder / "1_Pooling" / "config.json", include_prompt=False)
    refusal(folder, UnsupportedModel, "include_prompt: false")


def test_missing_pooling_settings_are_named(folder: Path) -> None:
    shutil.rmtree(folder / "1_Pooling")
    refusal(folder, NoSuchModel, "1_Pooling/config.json does not exist")


def test_folder_without_modules_is_mean_pooled_and_nothing_more(folder: Path) -> None:
    change_json(folder / "sentence_bert_config.json", max_seq_length=9)
    (folder / "modules.json").unlink()
    settings = read_checkpoint(folder).settings
    assert (settings.pooling, settings.normalize) == ("mean", False)
    assert (settings.lower_case, settings.max_tokens) == (False, 64)


@pytest.mark.parametrize("name", ["Dense", "LayerNorm", "WordWeights", "CNN"])
def test_module_that_changes_the_vector_is_refused_by_name(name: str, folder: Path) -> None:
    write_modules(folder, ["Transformer", "Pooling", name])
    refusal(folder, UnsupportedModel, "modules.json", f'"{name}"', "Dense")


@pytest.mark.parametrize("content", ["[", "{}}", '{"a": 1}', '[{"type": "x"}]', "[1]", "7"])
def test_modules_that_cannot_be_understood_are_refused(content: str, folder: Path) -> None:
    (folder / "modules.json").write_text(content, encoding="utf-8")
    refusal(folder, CorruptFile, "modules.json cannot be read")


def test_length_limit_comes_from_the_sentence_settings_then_from_the_tokenizer(
    folder: Path,
) -> None:
    sentence, tokenizer = folder / "sentence_bert_config.json", folder / "tokenizer_config.json"
    change_json(sentence, max_seq_length=50)
    change_json(tokenizer, model_max_length=40)
    assert read_checkpoint(folder).settings.max_tokens == 50
    change_json(sentence, max_seq_length=None)
    assert read_checkpoint(folder).settings.max_tokens == 40
    # transformers writes this number where none was set.
    change_json(tokenizer, model_max_length=1000000000000000019884624838656)
    assert read_checkpoint(folder).settings.max_tokens == 64
    change_json(tokenizer, model_max_length=None)
    assert read_checkpoint(folder).settings.max_tokens == 64
    sentence.unlink()
    tokenizer.unlink()
    settings = read_checkpoint(folder).settings
    assert (settings.max_tokens, settings.lower_case) == (64, False)


@pytest.mark.parametrize("limit", [65, 512, 2, 0, -1])
def test_length_limit_that_the_positions_do_not_allow_is_refused(limit: int, folder: Path) -> None:
    change_json(folder / "sentence_bert_config.json", max_seq_length=limit)
    refusal(folder, ShapeMismatch, f"max_seq_length {limit} is outside 3 to 64")


def test_length_limit_that_is_no_number_is_refused(folder: Path) -> None:
    change_json(folder / "sentence_bert_config.json", max_seq_length="long")
    refusal(folder, CorruptFile, "max_seq_length is 'long'")


def test_prompts_are_read(tmp_path: Path) -> None:
    folder = write_toy_checkpoint(tmp_path, prompts={"query": "q: "}, default_prompt="query")
    settings = read_checkpoint(folder).settings
    assert (settings.prompts, settings.default_prompt) == ({"query": "q: "}, "query")
    write_json(folder / "config_sentence_transformers.json", {"__version__": {}})
    assert read_checkpoint(folder).settings.prompts == {}


# --- what is refused ------------------------------------------------------------------------------


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


@pytest.mark.parametrize("model_type", ["xlm-roberta", "mpnet", "nomic_bert", None])
def test_other_architecture_is_sent_to_optimum(model_type: str | None, folder: Path) -> None:
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


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer_config.json",
        "1_Pooling/config.json",
        "config_sentence_transformers.json",
    ],
)
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


# --- identity -------------------------------------------------------------------------------------


def test_identity_is_that_of_the_files_not_of_the_place(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    assert read_checkpoint(tmp_path / "copy").sha256 == read_checkpoint(folder).sha256


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "1_Pooling/config.json",
    ],
)
def test_identity_changes_with_every_file_that_matters(name: str, folder: Path) -> None:
    before = read_checkpoint(folder).sha256
    path = folder / name
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert read_checkpoint(folder).sha256 != before


def test_identity_changes_with_the_weights_and_with_new_files(folder: Path) -> None:
    identities = {read_checkpoint(folder).sha256}
    write_json(folder / "config_sentence_transformers.json", {})
    identities.add(read_checkpoint(folder).sha256)
    change_tensors(folder, lambda tensors: tensors[WORDS].__imul__(2))
    identities.add(read_checkpoint(folder).sha256)
    assert len(identities) == 3


def test_identity_changes_with_the_name_of_a_file(folder: Path) -> None:
    (folder / "a.json").write_text("{}")
    before = read_checkpoint(folder).sha256
    (folder / "a.json").rename(folder / "b.json")
    assert read_checkpoint(folder).sha256 != before


def test_identity_does_not_change_with_an_artifact_inside(folder: Path) -> None:
    before = read_checkpoint(folder).sha256
    for name in ("manifest.json", "tokenizer.json", "model.onnx"):
        (folder / "onnx-int8").mkdir(exist_ok=True)
        (folder / "onnx-int8" / name).write_text("{}")
    assert read_checkpoint(folder).sha256 == before
