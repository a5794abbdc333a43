"""Tokens put together of pieces equal those of the library, which reads the text as a whole."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from server.inference.manifest import TOKENIZER_FILE, TextRules
from server.inference.tokenization.fast_wordpiece import LONGEST_WORD, FastWordPiece
from server.inference.tokenizer import Kept, Tokenizer

TEXTS = Path(__file__).parents[1] / "data" / "mixed_texts.json"
Change = Callable[[dict[str, Any]], object]
# What falls between words and marks: accents apart, controls, other scripts, symbols, new punctuation.
ODD = "é\u0301ŉ\x00\x1c\x85\u200b\ufeff\u00ad〇①℃×≥ⅱ한ทй🙂𠀀豈\u2e5d·ª²_-'’“”…—［］\u037e\u3000\t\n"


@pytest.fixture(scope="module")
def description(shipped_artifact: Path) -> Any:
    return json.loads((shipped_artifact / TOKENIZER_FILE).read_text(encoding="utf-8"))


def library(description: Any) -> tokenizers.Tokenizer:
    read = tokenizers.Tokenizer.from_str(json.dumps(description))
    read.no_padding()
    read.no_truncation()
    return read


def both(description: Any) -> tuple[FastWordPiece, Callable[[str], list[int]]]:
    whole = library(description)

    def read(text: str) -> list[int]:
        return list(whole.encode(text, add_special_tokens=False).ids)

    pieces = FastWordPiece.of(description, read)
    assert pieces is not None
    return pieces, read


def changed(description: Any, *changes: Change) -> Any:
    copy = json.loads(json.dumps(description))
    for change in changes:
        change(copy)
    return copy


def lower(description: dict[str, Any]) -> None:
    """Make the tokenizer lower-case and strip accents, as English BERT models do."""
    description["normalizer"]["lowercase"] = True


def random_texts(description: Any, count: int) -> list[str]:
    chance = random.Random(0)
    vocabulary = [word.removeprefix("##") for word in description["model"]["vocab"]]
    kinds = [
        vocabulary,
        list(ODD),
        list("aB3xYz90"),
        list("，。！？《》“”—…()$+~"),
        [" ", "", "天"],
    ]
    return [
        "".join(chance.choice(chance.choice(kinds)) for _ in range(chance.randrange(1, 30)))
        for _ in range(count)
    ]


@pytest.mark.parametrize("changes", [[], [lower]], ids=["as shipped", "lower case"])
def test_known_pieces_have_the_tokens_of_the_whole_text(
    description: Any, changes: list[Change]
) -> None:
    pieces, read = both(changed(description, *changes))
    stored = json.loads(TEXTS.read_text(encoding="utf-8"))
    known = 0
    for text in [*stored, *random_texts(description, 5000)]:
        found = pieces.ids(text)
        assert found is None or found == read(text), repr(text)
        known += found is not None
    assert known > 1000


@settings(max_examples=2000, deadline=None)
@given(st.text(max_size=12))
def test_any_text_has_the_tokens_of_the_whole_text_or_none(
    shipped_pieces: tuple[FastWordPiece, Callable[[str], list[int]]], text: str
) -> None:
    pieces, read = shipped_pieces
    found = pieces.ids(text)
    assert found is None or found == read(text)


@pytest.fixture(scope="module")
def shipped_pieces(description: Any) -> tuple[FastWordPiece, Callable[[str], list[int]]]:
    return both(description)


@pytest.mark.parametrize(
    "text", ["一二[MASK]三", "a[SEP]b", "é", "\x00", "①", "a" * (LONGEST_WORD + 1), "a\u0301"]
)
def test_what_is_no_known_piece_is_left_to_the_library(
    shipped_pieces: tuple[FastWordPiece, Callable[[str], list[int]]], text: str
) -> None:
    assert shipped_pieces[0].ids(text) is None


def test_unknown_marks_are_unknown_words(
    shipped_pieces: tuple[FastWordPiece, Callable[[str], list[int]]],
) -> None:
    pieces, read = shipped_pieces
    assert pieces.ids("“天”") == read("“天”")
    assert pieces.ids("“") == [100]


def no_normalizer(description: dict[str, Any]) -> None:
    description["normalizer"] = None


def words_of_ideographs(description: dict[str, Any]) -> None:
    description["normalizer"]["handle_chinese_chars"] = False


def other_splitter(description: dict[str, Any]) -> None:
    description["pre_tokenizer"] = {"type": "Whitespace"}


def normalized_word(description: dict[str, Any]) -> None:
    """Add a token that the library finds in "sao paulo" too."""
    lower(description)
    token = {"content": "são paulo", "normalized": True}
    description["added_tokens"].append({**description["added_tokens"][0], **token})


def added_word(description: dict[str, Any]) -> None:
    description["added_tokens"].append({**description["added_tokens"][0], "content": "law 2024"})


def wrong_token(description: dict[str, Any]) -> None:
    """Change the table after the library's tokenizer was made, so that they differ."""
    vocabulary = description["model"]["vocab"]
    vocabulary["天"], vocabulary["地"] = vocabulary["地"], vocabulary["天"]


@pytest.mark.parametrize(
    "change",
    [
        no_normalizer,
        words_of_ideographs,
        other_splitter,
        added_word,
        normalized_word,
        wrong_token,
    ],
)
def test_tokenizer_that_is_not_made_of_pieces_is_not_taken_apart(
    description: Any, change: Change
) -> None:
    whole = library(description)
    read = lambda text: whole.encode(text, add_special_tokens=False).ids  # noqa: E731
    assert FastWordPiece.of(changed(description, change), read) is None


@pytest.mark.parametrize("keep", ["beginning", "end"])
@pytest.mark.parametrize("most", [3, 8, 512])
def test_tokenizer_cuts_pieces_as_the_library_cuts_texts(
    description: Any, keep: Kept, most: int
) -> None:
    rules = TextRules(lower_case=True, max_tokens=most, query_instruction="问：")
    with_pieces = Tokenizer(json.dumps(description), rules)
    without = Tokenizer(json.dumps(description), rules)
    without._fast = None
    texts = [*json.loads(TEXTS.read_text(encoding="utf-8")), "天", "", "第 12 条 " * 300]
    for kind in ("query", "document"):
        found, expected = (each.encode(texts, kind, keep) for each in (with_pieces, without))
        assert [row.tolist() for row in found.ids] == [row.tolist() for row in expected.ids]
        assert found.truncated == expected.truncated
