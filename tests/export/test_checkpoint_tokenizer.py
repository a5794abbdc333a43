"""The tokenizer of a checkpoint folder, as transformers would build it for the same folder."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, normalizers

from export.checkpoint import read_checkpoint
from export.errors import CorruptFile, NoSuchModel, ShapeMismatch, UnsupportedModel
from export.source.folder import ModelFolder
from export.source.modules import Modules
from export.source.tokenizer_file import read_tokenizer
from server.inference.manifest import TextRules
from server.inference.tokenizer import Tokenizer as ServerTokenizer
from tests.support.checkpoints import refusal
from tests.support.toys import VOCABULARY, tokenizer, write_json, write_toy_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_toy_checkpoint(tmp_path / "toy")


def tokens(folder: Path, text: str) -> list[str]:
    return list(
        Tokenizer.from_str(read_tokenizer(ModelFolder(folder), Modules())).encode(text).tokens
    )


def configure(folder: Path, **values: Any) -> None:
    write_json(folder / "tokenizer_config.json", values)


def test_tokenizer_file_is_used_as_it_is(folder: Path) -> None:
    assert tokens(folder, "墨池 ink") == ["[CLS]", "墨", "池", "ink", "[SEP]"]
    assert tokens(folder, "Ink") == ["[CLS]", "[UNK]", "[SEP]"]


@pytest.mark.parametrize(
    ("stored", "config", "expected"),
    [
        (False, {"do_lower_case": True}, "ink"),
        (True, {"do_lower_case": False}, "[UNK]"),
        (False, {"do_lower_case": False}, "[UNK]"),
        # transformers' own default wins over the file where the configuration says nothing.
        (False, {}, "ink"),
        (False, {"tokenizer_class": "BertTokenizerFast"}, "ink"),
        # Classes that know nothing of lower case leave the file alone.
        (False, {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True}, "[UNK]"),
        (True, {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False}, "ink"),
    ],
)
def test_tokenizer_configuration_overrides_the_lower_casing_of_the_file(
    stored: bool, config: dict[str, Any], expected: str, folder: Path
) -> None:
    tokenizer(lower_case=stored).save(str(folder / "tokenizer.json"))
    configure(folder, **config)
    assert tokens(folder, "INK") == ["[CLS]", expected, "[SEP]"]


def test_tokenizer_configuration_overrides_accents_and_chinese_characters(folder: Path) -> None:
    stored = tokenizer()
    stored.normalizer = normalizers.BertNormalizer(
        lowercase=False, strip_accents=False, handle_chinese_chars=False
    )
    stored.save(str(folder / "tokenizer.json"))
    configure(folder, do_lower_case=False, strip_accents=True)
    assert tokens(folder, "ínk墨池") == ["[CLS]", "ink", "墨", "池", "[SEP]"]
    configure(folder, do_lower_case=False, tokenize_chinese_chars=False)
    assert tokens(folder, "ínk墨池") == ["[CLS]", "[UNK]", "[SEP]"]


def test_other_normalisers_are_left_alone(folder: Path) -> None:
    stored = tokenizer()
    stored.normalizer = normalizers.NFKC()
    stored.save(str(folder / "tokenizer.json"))
    configure(folder, do_lower_case=True)
    assert tokens(folder, "INK") == ["[CLS]", "[UNK]", "[SEP]"]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, ["[CLS]", "墨", "池", "ink", "##ed", "[SEP]"]),
        ({"do_lower_case": True}, ["[CLS]", "墨", "池", "ink", "##ed", "[SEP]"]),
        ({"do_lower_case": False}, ["[CLS]", "墨", "池", "[UNK]", "[SEP]"]),
        ({"do_lower_case": True, "tokenize_chinese_chars": False}, ["[CLS]", "[UNK]", "[SEP]"]),
        ({"tokenizer_class": "BertTokenizer"}, ["[CLS]", "墨", "池", "ink", "##ed", "[SEP]"]),
    ],
)
def test_vocabulary_alone_is_enough(
    config: dict[str, Any], expected: list[str], folder: Path
) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    configure(folder, **config)
    assert tokens(folder, "墨池INKed") == expected


def test_vocabulary_gives_the_ids_of_the_tokenizer_file(folder: Path) -> None:
    text = "墨池 ink well, 第一次 search x1 GPU"
    with_file = Tokenizer.from_str(read_tokenizer(ModelFolder(folder), Modules())).encode(text).ids
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    assert (
        Tokenizer.from_str(read_tokenizer(ModelFolder(folder), Modules())).encode(text).ids
        == with_file
    )


def test_truncation_and_padding_of_the_file_are_ignored(folder: Path) -> None:
    plain = read_tokenizer(ModelFolder(folder), Modules())
    stored = tokenizer()
    stored.enable_truncation(5)
    stored.enable_padding(length=20)
    stored.save(str(folder / "tokenizer.json"))
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert content["truncation"] and content["padding"]
    assert read_tokenizer(ModelFolder(folder), Modules()) == plain
    rules = TextRules(lower_case=True, max_tokens=12)
    (ids,) = (
        ServerTokenizer(read_tokenizer(ModelFolder(folder), Modules()), rules)
        .encode(["墨" * 30])
        .ids
    )
    assert len(ids) == 12
    (ids,) = (
        ServerTokenizer(read_tokenizer(ModelFolder(folder), Modules()), rules).encode(["墨"]).ids
    )
    assert len(ids) == 3


def test_folder_without_tokenizer_or_vocabulary_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(NoSuchModel, match=r"neither tokenizer\.json nor vocab\.txt"):
        read_tokenizer(ModelFolder(folder), Modules())


@pytest.mark.parametrize("content", ["", "{", "{}", '{"version": "9.0"}'])
def test_damaged_tokenizer_file_is_named(content: str, folder: Path) -> None:
    (folder / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(CorruptFile, match=r"tokenizer\.json is not a tokenizer"):
        read_tokenizer(ModelFolder(folder), Modules())


@pytest.mark.parametrize(
    "content", [b"", b"a\nb\n", "\n".join(VOCABULARY).encode("gb18030")], ids=["0", "1", "2"]
)
def test_vocabulary_without_special_tokens_or_in_another_encoding_is_named(
    content: bytes, folder: Path
) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_bytes(content)
    with pytest.raises(CorruptFile, match=r"vocab\.txt is not a vocabulary"):
        read_tokenizer(ModelFolder(folder), Modules())


@pytest.mark.parametrize("name", ["BertJapaneseTokenizer", "RoFormerTokenizer"])
def test_vocabulary_of_another_kind_of_tokenizer_is_refused(name: str, folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    configure(folder, tokenizer_class=name)
    with pytest.raises(UnsupportedModel, match=name):
        read_tokenizer(ModelFolder(folder), Modules())


def test_tokenizer_with_more_tokens_than_the_word_table_is_refused(folder: Path) -> None:
    tokenizer([*VOCABULARY, "extra"]).save(str(folder / "tokenizer.json"))
    size = len(VOCABULARY)
    with pytest.raises(ShapeMismatch, match=f"'extra' the id {size}, but vocab_size is {size}"):
        read_checkpoint(folder)


def test_word_table_may_have_rows_to_spare(tmp_path: Path) -> None:
    folder = write_toy_checkpoint(tmp_path, vocabulary=[*VOCABULARY, "spare"])
    tokenizer().save(str(folder / "tokenizer.json"))
    assert read_checkpoint(folder).shape.vocabulary == len(VOCABULARY) + 1


@pytest.mark.parametrize("place", ["tokenizer_config.json", "tokenizer.json"])
def test_tokenizer_that_keeps_the_end_of_a_text_is_refused(place: str, folder: Path) -> None:
    if place == "tokenizer.json":
        cutting = tokenizer()
        cutting.enable_truncation(16, direction="left")
        cutting.save(str(folder / place))
    else:
        configure(folder, truncation_side="left")
    refusal(folder, UnsupportedModel, "cuts long texts at the left (truncation_side)")
    # transformers' own setting wins over the file.
    configure(folder, truncation_side="right")
    read_checkpoint(folder)


def test_tokens_that_transformers_would_add_are_refused(folder: Path) -> None:
    def added(content: str) -> dict[str, Any]:
        return {"5": {"content": content, "special": True, "normalized": False}}

    configure(folder, added_tokens_decoder=added("[CLS]"))
    read_checkpoint(folder)
    configure(folder, added_tokens_decoder=added("墨池"))
    refusal(folder, UnsupportedModel, "adds the token '墨池'")


def test_tokens_of_another_type_than_the_first_are_refused(folder: Path) -> None:
    path = folder / "tokenizer.json"
    description = json.loads(path.read_text(encoding="utf-8"))
    description["post_processor"]["single"][1]["Sequence"]["type_id"] = 1
    write_json(path, description)
    refusal(folder, UnsupportedModel, "another type than 0")
