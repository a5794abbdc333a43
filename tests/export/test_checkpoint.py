"""Checkpoint folders that are read: network shape, weights in every form, and their identity."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from export.checkpoint import Checkpoint, read_checkpoint
from export.errors import (
    MissingPackage,
    NoSuchModel,
    ShapeMismatch,
)
from export.families.bert.shape import BertShape
from tests.support.checkpoints import WORDS, change_json, change_tensors, refusal, write_safetensors
from tests.support.toys import VOCABULARY, write_json, write_toy_checkpoint

ROOT = Path(__file__).parents[2]
QUERY = "encoder.layer.1.attention.self.query"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_toy_checkpoint(tmp_path / "toy")


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
