"""Tokenizers that would fail, hang or fill the memory at some text are refused when they are read."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export.checkpoint import read_checkpoint
from export.errors import CorruptFile, ShapeMismatch, UnsupportedModel
from server.inference.tokenization.tokenizer_bounds import PUBLISHED
from tests.support.checkpoints import refusal
from tests.support.toys import VOCABULARY, write_json, write_toy_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_toy_checkpoint(tmp_path / "toy")


def change(folder: Path, edit: Callable[[Any], object]) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    write_json(path, content)


def split(pattern: Any) -> dict[str, Any]:
    return {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}


def replace(pattern: Any, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def test_tokenizer_without_its_unknown_token_is_refused(folder: Path) -> None:
    def edit(content: Any) -> None:
        del content["model"]["vocab"]["[UNK]"]
        content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != "[UNK]"]

    change(folder, edit)
    refusal(folder, CorruptFile, "an unknown character", "[UNK]")


def test_special_token_beyond_the_word_table_is_refused(folder: Path) -> None:
    change(
        folder,
        lambda content: content["post_processor"]["special_tokens"]["[CLS]"].update(ids=[10**6]),
    )
    refusal(folder, ShapeMismatch, f"'[CLS]' the id 1000000, but vocab_size is {len(VOCABULARY)}")


@pytest.mark.parametrize("number", [62, 600])
def test_special_tokens_that_leave_no_room_are_refused(folder: Path, number: int) -> None:
    special = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}
    change(
        folder,
        lambda content: content["post_processor"].update(
            single=[special] * number + content["post_processor"]["single"]
        ),
    )
    refusal(folder, ShapeMismatch, f"{number + 2} special tokens", "64 tokens")


CATASTROPHIC = (
    "(a+)+b",
    "(a|a)*b",
    "(?:.*a){20}",
    "((x{9}){9}){9}",
    "a*a*a*a*b",
    r"(\w+\s?)*$",
    r"\s*\n",
    r"\s+$",
    "(?<=a+)b",
    r"(a)\1",
    "a{1000}",
    "[[:alpha:]]+",
    "x" * 2000,
)


@pytest.mark.parametrize("pattern", CATASTROPHIC)
@pytest.mark.parametrize("place", ["pre_tokenizer", "normalizer", "decoder", "nested", "list"])
def test_pattern_without_a_known_bound_is_refused_unread(
    folder: Path, pattern: str, place: str
) -> None:
    part: Any = split({"Regex": pattern})
    if place == "list":
        # The library reads a part of this form too.
        part, place = list(part.values()), "pre_tokenizer"
    if place in ("normalizer", "decoder"):
        part = replace({"Regex": pattern}, "")
    if place == "nested":
        part = {"type": "Sequence", "pretokenizers": [{"type": "BertPreTokenizer"}, part]}
    change(folder, lambda content: content.update({place.replace("nested", "pre_tokenizer"): part}))
    began = time.monotonic()
    refusal(folder, UnsupportedModel, "has the pattern", "no known bound")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "pattern",
    [
        *sorted(PUBLISHED),
        " {2,}",
        r"\s+",
        r"\p{Han}",
        r"[^\p{L}\d]+|\n",
        "a|b|cd?",
        r"^\.$",
    ],
)
def test_published_and_simple_patterns_are_read(folder: Path, pattern: str) -> None:
    change(
        folder,
        lambda content: content.update(
            pre_tokenizer=split({"Regex": pattern}), normalizer=replace({"Regex": pattern}, " ")
        ),
    )
    assert read_checkpoint(folder).settings.max_tokens == 64


def test_replacements_that_blow_a_text_up_are_refused(folder: Path) -> None:
    doubling = {"type": "Sequence", "normalizers": [replace({"String": "a"}, "aa")] * 40}
    change(folder, lambda content: content.update(normalizer=doubling))
    refusal(folder, UnsupportedModel, "1e+12 times longer, at most 64 times")
    change(folder, lambda content: content.update(normalizer=replace({"String": ""}, "a")))
    refusal(folder, UnsupportedModel, "empty pattern")


@pytest.mark.parametrize(
    "content",
    [
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////w=="}},
        {"model": None},
        {"model": []},
        {"added_tokens": {}},
        {"post_processor": {"type": "BertProcessing", "sep": [], "cls": []}},
        {"normalizer": replace({"Regex": 7}, "")},
    ],
    ids=str,
)
def test_description_of_odd_parts_is_refused(folder: Path, content: Any) -> None:
    change(folder, lambda whole: whole.update(content))
    with pytest.raises((CorruptFile, UnsupportedModel), match=r"tokenizer\.json") as caught:
        read_checkpoint(folder)
    assert any("\u4e00" <= letter <= "\u9fff" for letter in caught.value.chinese)
