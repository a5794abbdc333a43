"""Token ids equal those that sentence-transformers fed to the model (stored with versions)."""

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from server.inference.manifest import TOKENIZER_FILE, TextRules, parse_manifest
from server.inference.model import Model
from server.inference.tokenizer import CHARACTERS_PER_TOKEN, Tokenizer
from tests.support.toys import CHARACTERS, tokenizer

DATA = Path(__file__).parents[1] / "data"
MAX_TOKENS = 16


def texts_and_ids() -> tuple[list[str], list[list[int]]]:
    texts = json.loads((DATA / "mixed_texts.json").read_text(encoding="utf-8"))
    with np.load(DATA / "bge_small_zh_reference.npz") as stored:
        rows = np.split(stored["ids"], stored["offsets"][1:-1])
    return texts, [row.tolist() for row in rows]


@pytest.fixture(scope="module")
def shipped(shipped_artifact: Path) -> Tokenizer:
    rules = parse_manifest(shipped_artifact / "manifest.json").text
    return Tokenizer((shipped_artifact / TOKENIZER_FILE).read_text(encoding="utf-8"), rules)


@pytest.fixture(scope="module")
def toy() -> Tokenizer:
    rules = TextRules(
        lower_case=True,
        max_tokens=MAX_TOKENS,
        query_instruction="问：",
        document_instruction="文：",
    )
    return Tokenizer(tokenizer().to_str(), rules)


@pytest.fixture(scope="module")
def plain() -> Tokenizer:
    """Without instructions."""
    return Tokenizer(tokenizer().to_str(), TextRules(lower_case=True, max_tokens=MAX_TOKENS))


def test_ids_are_those_of_sentence_transformers(shipped: Tokenizer) -> None:
    texts, expected = texts_and_ids()
    found = shipped.encode(texts)
    assert len(texts) == len(expected) == 200
    assert [row.tolist() for row in found.ids] == expected
    assert all(row.dtype == np.int64 for row in found.ids)


def test_ids_of_a_text_do_not_depend_on_its_neighbours(shipped: Tokenizer) -> None:
    texts, expected = texts_and_ids()
    for text, ids in zip(texts, expected, strict=True):
        assert shipped.encode([text]).ids[0].tolist() == ids


def test_truncation_is_reported_for_the_stored_texts_that_were_cut(shipped: Tokenizer) -> None:
    texts, expected = texts_and_ids()
    whole = tokenizers.Tokenizer.from_str(shipped._tokenizer.to_str())
    whole.no_truncation()
    longer = [
        index
        for index, text in enumerate(texts)
        if len(whole.encode(text.strip().lower()).ids) > 512
    ]
    assert shipped.encode(texts).truncated == longer
    assert longer and all(len(expected[index]) == 512 for index in longer)


@pytest.mark.parametrize("extra", [-1, 0, 1, 2, 100])
def test_truncated_only_when_something_was_cut(plain: Tokenizer, extra: int) -> None:
    fits = MAX_TOKENS - 2
    tokens = plain.encode(["墨", "池" * (fits + extra), "笔"])
    assert tokens.truncated == ([1] if extra > 0 else [])
    assert len(tokens.ids[1]) == min(MAX_TOKENS, MAX_TOKENS + extra)
    assert tokens.count == 3 + len(tokens.ids[1]) + 3


def test_end_of_text_is_what_gets_cut_and_the_special_tokens_stay(plain: Tokenizer) -> None:
    cut = plain.encode([CHARACTERS[:40]]).ids[0].tolist()
    kept = plain.encode([CHARACTERS[: MAX_TOKENS - 2]]).ids[0].tolist()
    assert cut == kept


def test_white_space_around_a_text_does_not_count(plain: Tokenizer) -> None:
    fits = "池" * (MAX_TOKENS - 2)
    expected = plain.encode([fits]).ids[0].tolist()
    for spaces in ("", " \n\t　\r", " " * 100_000):
        spaced = plain.encode([spaces + fits + spaces])
        assert spaced.ids[0].tolist() == expected
        assert spaced.truncated == []


def test_upper_case_is_lowered_where_the_model_says_so(plain: Tokenizer) -> None:
    assert plain.encode(["SEARCH"]).ids[0].tolist() == plain.encode(["search"]).ids[0].tolist()
    cased = Tokenizer(tokenizer().to_str(), TextRules(lower_case=False, max_tokens=MAX_TOKENS))
    assert cased.encode(["SEARCH"]).ids[0].tolist() != cased.encode(["search"]).ids[0].tolist()


def test_counts_are_of_what_is_read(plain: Tokenizer) -> None:
    """Chunks are as long as the model reads them: upper case is other tokens, special tokens are none."""
    texts = ["ABC", "墨池" * 100, "", " search "]
    lowered = [len(tokenizer().encode(text.lower(), add_special_tokens=False)) for text in texts]
    as_given = [len(tokenizer().encode(text, add_special_tokens=False)) for text in texts]
    assert plain.count(texts) == lowered != as_given
    cased = Tokenizer(tokenizer().to_str(), TextRules(lower_case=False, max_tokens=MAX_TOKENS))
    assert cased.count(texts) == as_given


def test_each_kind_of_text_gets_its_instruction(toy: Tokenizer, plain: Tokenizer) -> None:
    for kind, instruction in (("query", "问："), ("document", "文：")):
        found = toy.encode(["墨池"], kind)  # type: ignore[arg-type]
        assert found.ids[0].tolist() == plain.encode([instruction + "墨池"]).ids[0].tolist()


def test_instruction_counts_towards_the_maximum(toy: Tokenizer) -> None:
    fits = "池" * (MAX_TOKENS - 2 - len("问："))
    assert toy.encode([fits], "query").truncated == []
    assert toy.encode([fits + "池"], "query").truncated == [0]


def test_tokenizer_with_padding_and_truncation_of_its_own_is_overruled(plain: Tokenizer) -> None:
    stored = tokenizer()
    stored.enable_padding(length=128)
    stored.enable_truncation(3)
    overruled = Tokenizer(stored.to_str(), plain.rules)
    texts = ["墨", "池" * 10]
    assert [row.tolist() for row in overruled.encode(texts).ids] == [
        row.tolist() for row in plain.encode(texts).ids
    ]


def test_no_texts_give_no_ids(plain: Tokenizer) -> None:
    tokens = plain.encode([])
    assert (list(tokens.ids), list(tokens.truncated), tokens.count) == ([], [], 0)


@pytest.mark.parametrize(
    "text", ["\ud800", "墨\udfff池", "a" * 300 + "\ud83d", "\udc80" + "墨" * 999]
)
def test_half_a_character_is_an_encoding_error(plain: Tokenizer, text: str) -> None:
    with pytest.raises(UnicodeEncodeError):
        plain.encode(["墨", text])


PIECES = st.sampled_from(
    ["墨", "池", "search", "s", "-", " ", "　", "\n", "é", "가", "１", "##", "[SEP]"]
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(PIECES, st.integers(1, 60)), min_size=1, max_size=40),
    st.integers(1, 30),
)
def test_long_text_has_the_ids_of_a_text_read_whole(
    runs: list[tuple[str, int]], times: int
) -> None:
    text = "".join(piece * count for piece, count in runs) * times
    rules = TextRules(lower_case=True, max_tokens=128)
    found = Tokenizer(tokenizer().to_str(), rules).encode([text])
    whole = tokenizer()
    whole.enable_truncation(rules.max_tokens)
    expected = whole.encode(text.strip().lower())
    assert found.ids[0].tolist() == expected.ids
    assert bool(found.truncated) == bool(expected.overflowing)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(PIECES, st.integers(1, 60)), min_size=1, max_size=40),
    st.integers(1, 30),
)
def test_end_of_a_long_text_has_the_ids_of_a_text_read_whole(
    runs: list[tuple[str, int]], times: int
) -> None:
    text = "".join(piece * count for piece, count in runs) * times
    rules = TextRules(lower_case=True, max_tokens=128)
    found = Tokenizer(tokenizer().to_str(), rules).encode([text], keep="end")
    whole = tokenizer()
    whole.enable_truncation(rules.max_tokens, direction="left")
    expected = whole.encode(text.strip().lower())
    assert found.ids[0].tolist() == expected.ids
    assert bool(found.truncated) == bool(expected.overflowing)


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("墨池aİI 　\n😀é가-##")))
def test_tokens_stand_where_they_are_read(text: str) -> None:
    rules = TextRules(lower_case=True, max_tokens=128)
    read = Tokenizer(tokenizer().to_str(), rules)
    (tokens,) = read.tokens([text], "document")
    assert [token.id for token in tokens] == read.encode([text]).ids[0].tolist()
    assert read.length(text, "document") == len(tokens)
    for token in tokens:
        if token.start is not None:
            assert token.text == text[token.start : token.stop] != ""
    (inner,) = read.tokens([text], "document", special=False)
    assert inner == tokens[1:-1]


def test_special_tokens_are_left_out_of_a_text_unless_they_are_asked_for(plain: Tokenizer) -> None:
    ids = plain.encode(["abc 墨"]).ids
    assert plain.decode([each.tolist() for each in ids]) == ["abc 墨"]
    assert plain.decode([ids[0].tolist()], skip_special=False) == ["[CLS] abc 墨 [SEP]"]


def test_ids_beyond_the_vocabulary_have_no_text(plain: Tokenizer) -> None:
    size = tokenizer().get_vocab_size()
    assert plain.decode([[size - 1]]) != [""]
    for wrong in (size, -1, 2**70):
        with pytest.raises(ValueError, match=f"{wrong} is no token id.* {size}"):
            plain.decode([[0], [1, wrong]])


def test_pieces_above_reach_the_length_from_which_only_a_beginning_is_read() -> None:
    assert 128 * CHARACTERS_PER_TOKEN < 40 * 60 * 30


def test_model_reads_texts_by_the_rules_of_its_manifest(toy_model: Model) -> None:
    assert toy_model.tokenizer.rules == toy_model.manifest.text
