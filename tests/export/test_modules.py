"""modules.json is read as sentence-transformers reads it, and what cannot be honoured is refused by name."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.checkpoint import read_checkpoint
from export.errors import CorruptFile, NoSuchModel, UnsupportedModel
from tests.support.checkpoints import change_json, refusal
from tests.support.toys import write_json, write_toy_checkpoint

TYPE = "sentence_transformers.models."
OF_TRANSFORMER = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "sentence_bert_config.json",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_toy_checkpoint(tmp_path / "toy")


def write(folder: Path, *modules: tuple[str, str], **more: Any) -> None:
    """Write modules.json with the class and the path of each module."""
    listed = [
        {
            "idx": place,
            "name": str(place),
            "path": path,
            "type": kind if "." in kind else TYPE + kind,
        }
        for place, (kind, path) in enumerate(modules)
    ]
    write_json(folder / "modules.json", [module | more for module in listed])


def move_transformer(folder: Path, name: str) -> None:
    """Move the network's files to a folder of their own, and name it."""
    (folder / name).mkdir(parents=True)
    for file in OF_TRANSFORMER:
        (folder / file).rename(folder / name / file)
    write(folder, ("Transformer", name), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))


@pytest.mark.parametrize("name", ["0_Transformer", "0_Transformer/", "a/b/0_T"])
def test_network_is_where_modules_say_even_beside_a_complete_one(
    folder: Path, tmp_path: Path, name: str
) -> None:
    expected = read_checkpoint(folder)
    move_transformer(folder, name)
    other = write_toy_checkpoint(tmp_path / "other", seed=1, max_tokens=48)
    for file in OF_TRANSFORMER:
        shutil.copy(other / file, folder / file)
    found = read_checkpoint(folder)
    word = "embeddings.word_embeddings.weight"
    assert np.array_equal(found.tensors[word], expected.tensors[word])
    assert (found.settings, found.shape) == (expected.settings, expected.shape)


def test_network_in_a_folder_that_is_missing_is_not_read_from_the_root(folder: Path) -> None:
    write(folder, ("Transformer", "0_Transformer"), ("Pooling", "1_Pooling"))
    refusal(folder, NoSuchModel, "0_Transformer/config.json does not exist")


@pytest.mark.parametrize("file", [*OF_TRANSFORMER, "1_Pooling/config.json", "modules.json"])
def test_every_file_that_is_read_is_in_the_identity(folder: Path, file: str) -> None:
    move_transformer(folder, "0_Transformer")
    before = read_checkpoint(folder).sha256
    path = folder / file if (folder / file).exists() else folder / "0_Transformer" / file
    if path.suffix == ".json":
        path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")
    else:
        write_toy_checkpoint(folder.parent / "b", seed=1)
        shutil.copy(folder.parent / "b" / "model.safetensors", path)
    assert read_checkpoint(folder).sha256 != before


def test_pooling_in_a_nested_folder_is_read_and_in_the_identity(folder: Path) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "1_Pooling").rename(folder / "a" / "b" / "1_Pooling")
    write(folder, ("Transformer", ""), ("Pooling", "a/b/1_Pooling"))
    first = read_checkpoint(folder)
    change_json(
        folder / "a" / "b" / "1_Pooling" / "config.json",
        pooling_mode_cls_token=False,
        pooling_mode_mean_tokens=True,
    )
    second = read_checkpoint(folder)
    assert (first.settings.pooling, second.settings.pooling) == ("cls", "mean")
    assert first.sha256 != second.sha256


@pytest.mark.parametrize(
    "kinds",
    [
        [],
        ["Transformer"],
        ["Pooling"],
        ["Pooling", "Transformer"],
        ["Transformer", "Normalize", "Pooling"],
        ["Transformer", "Normalize"],
        ["Transformer", "Transformer", "Pooling"],
        ["Transformer", "Pooling", "Pooling"],
        ["Transformer", "Dense", "Pooling"],
        ["Transformer", "Dropout", "Pooling"],
        ["Transformer", "Pooling", "Dense", "Pooling"],
    ],
    ids="-".join,
)
def test_other_modules_or_another_order_are_refused(folder: Path, kinds: list[str]) -> None:
    paths = {"Transformer": ""}
    write(folder, *((kind, paths.get(kind, f"1_{kind}")) for kind in kinds))
    refusal(folder, UnsupportedModel, "lists the modules", ", ".join(kinds) or "none at all")


@pytest.mark.parametrize(
    "kind",
    ["custom_st.Transformer", "evil.sentence_transformers.models.Pooling", ".Transformer"]
    + ["sentence_transformers.Transformer.", "sentence_transformers.models.Pooling\n"],
)
def test_class_of_the_model_itself_is_refused(folder: Path, kind: str) -> None:
    write(folder, (kind, ""), ("Pooling", "1_Pooling"))
    refusal(folder, UnsupportedModel, "is no class of sentence_transformers")


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "../toy",
        "/etc",
        "a/../../b",
        "a\0b",
        "a\\b",
        ".hidden",
        "a//b",
        "./a",
        "onnx-int8",
        "onnx-fp32/a",
        "/",
        "a\n",
        "x" * 200,
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_path_that_is_no_plain_folder_is_refused(folder: Path, path: str, place: int) -> None:
    paths = ["", "1_Pooling"]
    paths[place] = path
    write(folder, ("Transformer", paths[0]), ("Pooling", paths[1]))
    refusal(folder, UnsupportedModel, "no plain folder name")


def test_folder_that_is_a_link_out_of_the_model_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "1_Pooling").rename(tmp_path / "elsewhere")
    (folder / "1_Pooling").symlink_to(tmp_path / "elsewhere")
    refusal(folder, UnsupportedModel, "'1_Pooling', a link that leaves the model's folder")


def test_transformer_and_pooling_need_folders_and_names_of_their_own(folder: Path) -> None:
    write(folder, ("Transformer", ""), ("Pooling", ""))
    refusal(folder, UnsupportedModel, "the same folder")
    write(folder, ("Transformer", ""), ("Pooling", "1_Pooling"), name="same")
    refusal(folder, UnsupportedModel, "under a name of its own")
    write(folder, *[("Pooling", "1_Pooling")] * 17)
    refusal(folder, UnsupportedModel, "lists 17 modules, at most 16")


@pytest.mark.parametrize("value", [None, 7, [], {"path": ""}])
def test_path_or_type_that_is_no_string_is_refused(folder: Path, value: Any) -> None:
    for key in ("path", "type"):
        write(folder, ("Transformer", ""), ("Pooling", "1_Pooling"), **{key: value})
        refusal(folder, CorruptFile, "modules.json cannot be read: it must be a list of objects")


def test_settings_under_the_name_of_another_network_are_read(folder: Path) -> None:
    bert, roberta = folder / "sentence_bert_config.json", folder / "sentence_roberta_config.json"
    write_json(roberta, {"max_seq_length": 33})
    assert read_checkpoint(folder).settings.max_tokens == 64
    bert.unlink()
    assert read_checkpoint(folder).settings.max_tokens == 33


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("sentence_bert_config.json", "do_lower_case"),
        ("1_Pooling/config.json", "pooling_mode_cls_token"),
        ("1_Pooling/config.json", "include_prompt"),
        ("tokenizer_config.json", "do_lower_case"),
        ("tokenizer_config.json", "strip_accents"),
    ],
)
@pytest.mark.parametrize("value", ["false", 0, []])
def test_switch_that_is_neither_true_nor_false_is_refused(
    folder: Path, file: str, key: str, value: Any
) -> None:
    change_json(folder / file, **{key: value})
    refusal(folder, CorruptFile, f"{key} is {value!r}, not true or false")
