"""Settings beside a stored tokenizer with which transformers reads texts in another way."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from export.checkpoint import read_checkpoint
from export.errors import CorruptFile, UnsupportedModel
from tests.support.checkpoints import change_json, refusal
from tests.support.cross_encoders import write_cross_encoder
from tests.support.gated_toys import write_modernbert, write_nomic
from tests.support.relatives import write_relative
from tests.support.toys import VOCABULARY, write_json, write_toy_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_toy_checkpoint(tmp_path / "toy")


def tokens(folder: Path, text: str) -> list[str]:
    tokenizer = Tokenizer.from_str(read_checkpoint(folder).tokenizer_json)
    return list(tokenizer.encode(text, add_special_tokens=False).tokens)


@pytest.mark.parametrize(
    ("settings", "model", "expected"),
    [
        ({"tokenizer_class": "ElectraTokenizer", "do_lower_case": True}, {}, "ink"),
        ({"tokenizer_class": "MPNetTokenizerFast", "do_lower_case": True}, {}, "ink"),
        (
            {"tokenizer_class": ..., "do_lower_case": True},
            {"tokenizer_class": "XLMRobertaTokenizer"},
            "[UNK]",
        ),
        ({"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True}, {}, "[UNK]"),
        ({"tokenizer_class": ..., "do_lower_case": True}, {}, "ink"),
    ],
    ids=str,
)
def test_class_decides_about_the_normaliser(
    settings: dict[str, Any], model: dict[str, Any], expected: str, folder: Path
) -> None:
    change_json(folder / "tokenizer_config.json", **settings)
    change_json(folder / "config.json", **model)
    assert tokens(folder, "INK") == [expected]


def test_type_of_the_model_decides_where_no_class_is_named(tmp_path: Path) -> None:
    folder = write_modernbert(tmp_path)
    (folder / "tokenizer_config.json").unlink()
    assert tokens(folder, "INK") == ["[UNK]"]


@pytest.mark.parametrize(
    "settings",
    [
        {"additional_special_tokens": ["ink"]},
        {"extra_special_tokens": {"mine": "ink"}},
        {"mask_token": {"content": "ink", "lstrip": False}},
    ],
    ids=str,
)
@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
def test_word_that_settings_make_special_is_never_split(
    file: str, settings: dict[str, Any], folder: Path
) -> None:
    write_json(folder / file, {"do_lower_case": False, **settings})
    assert "ink" in tokens(folder, "xinkx")


def test_flags_of_added_tokens_are_those_of_the_settings(folder: Path) -> None:
    mask = {"content": "[MASK]", "normalized": False, "special": True, "single_word": True}
    change_json(folder / "tokenizer_config.json", added_tokens_decoder={"4": mask})
    assert "[MASK]" not in tokens(folder, "x[MASK]x")


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"split_special_tokens": True}, ["split_special_tokens"]),
        ({"auto_map": {"AutoTokenizer": ["mine.Mine", None]}}, ["mine.Mine", "never run"]),
        ({"tokenizer_class": "GPTNeoXTokenizerFast"}, ["GPTNeoX", "special tokens"]),
        ({"tokenizer_class": "MBartTokenizer"}, ["MBart", "special tokens"]),
        ({"tokenizer_class": "CodeLlamaTokenizer", "add_eos_token": True}, ["[CLS]"]),
    ],
    ids=str,
)
def test_settings_that_cannot_be_followed_are_refused(
    settings: dict[str, Any], parts: list[str], folder: Path
) -> None:
    if "[CLS]" in parts:
        settings, parts = {"bos_token": "[SEP]", "eos_token": "[SEP]", **settings}, ["CodeLlama"]
    change_json(folder / "tokenizer_config.json", **settings)
    refusal(folder, UnsupportedModel, "tokenizer_config.json", *parts)


def test_class_with_the_special_tokens_of_the_file_is_read(folder: Path) -> None:
    named = {"bos_token": "[CLS]", "eos_token": "[SEP]", "add_eos_token": True}
    change_json(folder / "tokenizer_config.json", tokenizer_class="CodeLlamaTokenizerFast", **named)
    read_checkpoint(folder)


def test_token_in_added_tokens_file_alone_is_refused(folder: Path) -> None:
    write_json(folder / "added_tokens.json", {"ink": VOCABULARY.index("ink")})
    refusal(folder, UnsupportedModel, "'ink'")


def test_vocabulary_alone_with_other_special_tokens_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    change_json(folder / "tokenizer_config.json", cls_token="[MASK]")
    refusal(folder, UnsupportedModel, "cls_token", "[MASK]")


@pytest.mark.parametrize("name", ["DistilBertTokenizer", "RobertaTokenizerFast", "BertTokenizer"])
def test_class_decides_whether_a_scorer_gets_types(name: str, tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path / "toy")
    change_json(folder / "tokenizer_config.json", tokenizer_class=name, model_input_names=...)
    scoring = read_checkpoint(folder).scoring
    assert scoring is not None
    assert bool(scoring.second_text_offset) == (name == "BertTokenizer")


def test_scorer_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path / "toy")
    change_json(
        folder / "config.json", auto_map={"AutoModelForSequenceClassification": "mine.Mine"}
    )
    refusal(folder, UnsupportedModel, "mine.Mine", "never run")


@pytest.mark.parametrize("alias", ["num_attention_heads", "num_hidden_layers", "hidden_size"])
def test_number_with_two_names_and_values_is_refused(alias: str, tmp_path: Path) -> None:
    write_relative(tmp_path / "distilbert", "distilbert")
    write_nomic(tmp_path / "nomic")
    for folder in (tmp_path / "distilbert", tmp_path / "nomic"):
        change_json(folder / "config.json", **{alias: 1})
        refusal(folder, CorruptFile, alias, "two names")


@pytest.mark.parametrize(
    "key", ["qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias", "rotary_emb_fraction"]
)
def test_nomic_without_a_key_whose_default_differs_is_refused(key: str, tmp_path: Path) -> None:
    change_json(write_nomic(tmp_path) / "config.json", **{key: ...})
    refusal(tmp_path, CorruptFile, "lacks", key)


def test_scaled_rotary_positions_of_modernbert_are_refused(tmp_path: Path) -> None:
    scaling = {"rope_type": "linear", "factor": 4.0}
    change_json(write_modernbert(tmp_path) / "config.json", rope_scaling=scaling)
    refusal(tmp_path, UnsupportedModel, "rope_scaling")


def test_special_token_that_is_no_text_is_not_looked_for(folder: Path) -> None:
    (folder / "special_tokens_map.json").write_text('{"mask_token": "\\ud800"}', encoding="utf-8")
    read_checkpoint(folder)
