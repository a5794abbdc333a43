"""Settings read from the sentence-transformers files: pooling, length limit, lower-casing, prompts."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from export.checkpoint import read_checkpoint
from export.errors import (
    CorruptFile,
    NoSuchModel,
    ShapeMismatch,
    UnsupportedModel,
)
from tests.support.checkpoints import change_json, refusal
from tests.support.toys import write_json, write_modules, write_toy_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_toy_checkpoint(tmp_path / "toy")


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


@pytest.mark.parametrize(("mode", "kept"), [("mean", False), ("max", False), ("cls", True)])
def test_pooling_without_the_prompt_is_read_where_it_matters(
    mode: str, kept: bool, folder: Path
) -> None:
    settings = {"pooling_mode": mode, "include_prompt": False}
    write_json(folder / "1_Pooling" / "config.json", settings)
    found = read_checkpoint(folder).settings
    assert found.include_prompt == kept
    assert found.instruction_offset(100) == (0 if kept else 100)


def test_missing_pooling_settings_are_named(folder: Path) -> None:
    shutil.rmtree(folder / "1_Pooling")
    refusal(folder, NoSuchModel, "1_Pooling/config.json does not exist")


def test_folder_without_modules_is_mean_pooled_and_nothing_more(folder: Path) -> None:
    change_json(folder / "sentence_bert_config.json", max_seq_length=9)
    (folder / "modules.json").unlink()
    settings = read_checkpoint(folder).settings
    assert (settings.pooling, settings.normalize) == ("mean", False)
    assert (settings.lower_case, settings.max_tokens) == (False, 64)


@pytest.mark.parametrize("name", ["LayerNorm", "WordWeights", "CNN"])
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
