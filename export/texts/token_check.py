"""Checks that the server's tokenizer, with its shortcut, gives the tokens of the library alone."""

from collections.abc import Sequence
from itertools import chain, product

from export.errors import UnsupportedModel
from server.inference.tokenizer import Tokenizer

# Texts that begin and end with what a tokenizer may join to the words beside it.
EDGES = (
    "what is it?",
    "it's",
    "'s",
    "3",
    " a ",
    "\n\n b \n",
    "\u4ec0\u4e48\uff1f",
    "\u0301",
    ":",
    "<",
)


def check_tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> None:
    """Compare tokens of these texts and of the tokenizer's added tokens; raises UnsupportedModel."""
    checked = [*texts, *chain.from_iterable(map(_around, tokenizer.added_tokens()))]
    expected = tokenizer.tokens(checked, "document")
    ids, offset = tokenizer.encode(checked).ids, tokenizer.rules.instruction_offset
    for text, marked, tokens in zip(checked, ids, expected, strict=True):
        found = marked % offset if offset else marked
        # A text that is cut keeps its special tokens, so only what comes before the last ones compares.
        cut = len(tokens) > tokenizer.rules.max_tokens
        cut |= len(text) > (tokenizer.rules.max_characters or len(text))
        whole = [token.id for token in tokens if token.id != tokenizer.rules.dropped_token]
        if found.tolist() != whole and not cut:
            raise _other_tokens(text, found.tolist(), whole)


def check_pair_tokens(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]) -> None:
    """Compare the tokens of these pairs, and of texts that may grow together with a prompt.

    Raises UnsupportedModel.
    """
    if tokenizer.rules.pair_prompt is not None:
        pairs = [*pairs, *product(EDGES, EDGES)]
    for pair, found in zip(pairs, tokenizer.encode_pairs(pairs).ids, strict=True):
        expected = tokenizer.pair_by_library(*pair)
        if found.tolist() != expected:
            raise _other_tokens(" / ".join(pair), found.tolist(), expected)


def _other_tokens(text: str, found: list[int], expected: list[int]) -> UnsupportedModel:
    return UnsupportedModel(
        "the tokens of {text} are {found}, and the tokenizers library gives {expected}: this "
        "is a fault of the exporter, please report it with the model's tokenizer.json",
        text=repr(text[:60]),
        found=str(found[:20]),
        expected=str(expected[:20]),
    )


def _around(token: str) -> tuple[str, ...]:
    """Return texts with an added token alone, beside words, and inside of one."""
    return token, f"a {token} b", f"a{token}b", f"中{token}文"
