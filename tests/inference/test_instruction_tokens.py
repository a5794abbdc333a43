"""Which tokens pooling leaves out of a text: those of its instruction, as sentence-transformers counts them."""

import numpy as np
import pytest
import tokenizers
from tokenizers import processors

from server.inference.manifest import TextRules
from server.inference.tokenizer import CHARACTERS_PER_TOKEN, Tokenizer
from server.types import Ids, InputType
from tests.support.toys import VOCABULARY, tokenizer

OFFSET, MAX_TOKENS = len(VOCABULARY), 16
QUERY = "Search: "


def reader(
    query: str = QUERY, built: tokenizers.Tokenizer | None = None, max_tokens: int = MAX_TOKENS
) -> Tokenizer:
    rules = TextRules(True, max_tokens, query, "", instruction_offset=OFFSET)
    return Tokenizer((built or tokenizer()).to_str(), rules)


def left_out(ids: Ids) -> int:
    """Return how many ids are marked, which must be the first."""
    flags = ids >= OFFSET
    assert np.array_equal(flags, np.arange(len(ids)) < flags.sum())
    return int(flags.sum())


def without_marks(special: bool = False) -> tokenizers.Tokenizer:
    """Return a tokenizer that puts nothing around a text; special: its colon is a special token."""
    built = tokenizer()
    built.post_processor = processors.TemplateProcessing(
        single="$A", pair="$A $B", special_tokens=[]
    )
    if special:
        built.add_special_tokens([":"])
    return built


def test_instruction_and_what_stands_before_it_are_marked() -> None:
    # [CLS] search : 墨 池 [SEP]
    found = reader().encode(["墨池", "a"], "query").ids
    assert [left_out(ids) for ids in found] == [3, 3]
    plain = reader().encode(["search: 墨池"], "none").ids[0]
    assert (found[0] % OFFSET).tolist() == plain.tolist()


@pytest.mark.parametrize("kind", ["document", "none"])
def test_text_without_an_instruction_has_no_marks(kind: InputType) -> None:
    assert [left_out(ids) for ids in reader().encode(["墨池", "search: x"], kind).ids] == [0, 0]


def test_special_token_at_the_end_of_an_instruction_is_not_counted() -> None:
    assert left_out(reader(built=without_marks()).encode(["墨"], "query").ids[0]) == 2
    special = reader(built=without_marks(special=True))
    assert left_out(special.encode(["墨"], "query").ids[0]) == 1


def test_instruction_of_white_space_leaves_out_what_stands_before_a_text() -> None:
    assert left_out(reader(" ").encode(["墨"], "query").ids[0]) == 1


@pytest.mark.parametrize(
    "text", ["墨" * 12, "墨" * 40, "墨池 " * CHARACTERS_PER_TOKEN * MAX_TOKENS]
)
def test_text_that_is_cut_keeps_its_marks(text: str) -> None:
    tokens = reader().encode([text], "query")
    assert left_out(tokens.ids[0]) == 3
    assert list(tokens.truncated) == ([] if len(text) == 12 else [0])


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        # Three of the sixteen tokens are special or the instruction's: one, two and no token are lost.
        ("墨" * 12, 3),
        ("墨" * 13, 2),
        ("墨" * 14, 0),
        ("墨" * 60, 0),
        ("墨池 " * CHARACTERS_PER_TOKEN * MAX_TOKENS, 0),
    ],
)
def test_text_that_keeps_its_end_has_marks_for_what_is_left_of_the_instruction(
    text: str, marks: int
) -> None:
    (ids,) = reader().encode([text], "query", "end").ids
    assert len(ids) == MAX_TOKENS and left_out(ids) == marks


def test_longer_instruction_than_a_text_may_be_leaves_the_last_token() -> None:
    (ids,) = reader("墨" * 40).encode(["池"], "query").ids
    assert left_out(ids) == len(ids) - 1 == MAX_TOKENS - 1


def test_listed_and_decoded_tokens_are_plain() -> None:
    words = reader()
    (tokens,) = words.tokens(["墨池"], "query")
    assert max(token.id for token in tokens) < OFFSET
    with pytest.raises(ValueError, match="no token id"):
        words.texts_of([[OFFSET]])
