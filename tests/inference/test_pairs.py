"""Pairs of texts as the tokenizers library, and so transformers, puts them together and cuts them."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import tokenizers
from tokenizers import processors

from server.inference.manifest import TextRules
from server.inference.tokenization.pairs import Bare
from server.inference.tokenizer import CHARACTERS_PER_TOKEN, MOST_BEGINNINGS, Kept, Tokenizer
from tests.support.toys import VOCABULARY, tokenizer, toy_texts

OFFSET = len(VOCABULARY)


def two_marks_between() -> tokenizers.Tokenizer:
    """Return a tokenizer that puts pairs together as RoBERTa does, without types."""
    built = tokenizer()
    marks = [(mark, VOCABULARY.index(mark)) for mark in ("[CLS]", "[SEP]")]
    built.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] [SEP] $B [SEP]", special_tokens=marks
    )
    return built


def without_marks() -> tokenizers.Tokenizer:
    built = tokenizer()
    built.post_processor = processors.TemplateProcessing(
        single="$A", pair="$A $B", special_tokens=[]
    )
    return built


@pytest.mark.parametrize("keep", ["beginning", "end"])
@pytest.mark.parametrize("build", [tokenizer, two_marks_between, without_marks])
@pytest.mark.parametrize("max_tokens", [12, 13, 40])
def test_pairs_are_those_of_the_library(
    build: Callable[[], tokenizers.Tokenizer], max_tokens: int, keep: Kept
) -> None:
    built = build()
    library = tokenizers.Tokenizer.from_str(built.to_str())
    side = "right" if keep == "beginning" else "left"
    library.enable_truncation(max_tokens, strategy="longest_first", direction=side)
    texts = ["", " ", *toy_texts(60, longest=30)]
    choose = random.Random(max_tokens)
    pairs = [(choose.choice(texts), f" {choose.choice(texts)} ") for _ in range(150)]
    found = Tokenizer(built.to_str(), TextRules(False, max_tokens)).encode_pairs(pairs, keep)
    cut = []
    for index, (pair, ids) in enumerate(zip(pairs, found.ids, strict=True)):
        expected = library.encode(*pair)
        assert ids.dtype == np.int64 and ids.tolist() == expected.ids, pair
        cut += [index] if expected.overflowing else []
    assert found.truncated == cut and cut


def test_tokens_of_the_second_type_are_moved_by_the_offset() -> None:
    rules = TextRules(lower_case=True, max_tokens=64, second_text_offset=OFFSET)
    (ids,) = Tokenizer(tokenizer().to_str(), rules).encode_pairs([("墨池", "Search 笔")]).ids
    encoding = tokenizer().encode("墨池", "search 笔")
    assert (ids % OFFSET).tolist() == encoding.ids
    assert (ids // OFFSET).tolist() == encoding.type_ids == [0, 0, 0, 0, 1, 1, 1]
    # A text by itself has none.
    (alone,) = Tokenizer(tokenizer().to_str(), rules).encode(["Search 笔"]).ids
    assert alone.max() < OFFSET


@pytest.mark.parametrize("keep", ["beginning", "end"])
def test_a_very_long_text_keeps_what_the_whole_of_it_would(keep: Kept) -> None:
    rules = TextRules(lower_case=False, max_tokens=16)
    words = Tokenizer(tokenizer().to_str(), rules)
    body = "".join(random.Random(0).choices("墨池笔纸砚书画", k=50 * CHARACTERS_PER_TOKEN * 16))
    long = f"一二三 {body} 四五六"
    found = words.encode_pairs([("风", long), (long, "风"), (long, long)], keep)
    library = tokenizers.Tokenizer.from_str(tokenizer().to_str())
    bare = library.encode(long, add_special_tokens=False).ids
    wind = library.encode("风", add_special_tokens=False).ids

    def part(length: int) -> list[int]:
        return bare[:length] if keep == "beginning" else bare[-length:]

    assert found.ids[0].tolist()[1:-1] == [*wind, found.ids[0][-1], *part(12)]
    assert found.ids[1].tolist()[1:-1] == [*part(12), found.ids[0][-1], *wind]
    assert found.ids[2].tolist()[1:-1] == [*part(6), found.ids[0][-1], *part(7)]
    assert list(found.truncated) == [0, 1, 2]


@pytest.mark.parametrize("keep", ["beginning", "end"])
def test_an_endless_word_counts_as_cut_where_it_is_not_read_whole(keep: Kept) -> None:
    words = Tokenizer(tokenizer().to_str(), TextRules(lower_case=False, max_tokens=16))
    endless = "a" * (MOST_BEGINNINGS * CHARACTERS_PER_TOKEN * 16)
    long = f"墨{endless}笔"
    found = words.encode_pairs([(endless, "风"), (long, "风"), ("风", long)], keep)
    assert list(found.truncated) == list(words.encode([endless, long, long], keep=keep).truncated)
    assert list(found.truncated) == [1, 2]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_first_text_that_is_known_gives_the_same_pairs(size: int) -> None:
    words = Tokenizer(tokenizer().to_str(), TextRules(lower_case=False, max_tokens=12))
    texts = toy_texts(6, longest=30)
    pairs = [(first, second) for first in texts[:3] for second in [*texts, *texts[:1]]]
    known: dict[str, Bare] = {}
    for begin in range(0, len(pairs), size):
        part = pairs[begin : begin + size]
        found = words.encode_pairs(part, known=known)
        assert list(known) == [part[-1][0]]
        for ids, alone in zip(found.ids, words.encode_pairs(part).ids, strict=True):
            assert ids.tolist() == alone.tolist()


def test_half_of_a_surrogate_pair_is_refused_by_name() -> None:
    words = Tokenizer(tokenizer().to_str(), TextRules(lower_case=False, max_tokens=16))
    with pytest.raises(UnicodeEncodeError):
        words.encode_pairs([("墨", "\ud83d")])


def test_no_pairs_are_no_tokens() -> None:
    words = Tokenizer(tokenizer().to_str(), TextRules(lower_case=False, max_tokens=16))
    assert not words.encode_pairs([]).ids
