"""Which of the project's texts suit a model: those that its vocabulary can read.

An English model reads Chinese as a row of unknown tokens. Ranges calibrated on those suit nothing that is
ever asked of it, and agreement on them says nothing. So the tokens decide that mean no more than
"something stood here".
"""

import json
from collections.abc import Sequence
from itertools import pairwise

from export.texts.files import CHINESE, ENGLISH, MULTILINGUAL, TextSet, read_texts
from server.inference.tokenizer import Token, Tokenizer

# A text is unreadable past this share of its characters, and a set past this share of its texts. Measured,
# unreadable texts of the multilingual, Chinese and English sets: XLM-R's vocabulary 0.04, 0.08 and 0.02;
# bge-small-zh-v1.5's 0.47, 0.02 and 0.01; MiniLM's 0.34, 0.57 and 0.01.
MOST_BROKEN, MOST_UNREADABLE = 1 / 3, 1 / 5


def choose_texts(tokenizer: Tokenizer, tokenizer_json: str) -> TextSet:
    """Return the widest set of texts that the vocabulary can read; the English one if it reads none."""
    unknown = _unknown_id(tokenizer_json)
    for text_set in (MULTILINGUAL, CHINESE):
        texts = read_texts(text_set.verification, at_least=1)
        if unreadable_share(tokenizer, texts, unknown) <= MOST_UNREADABLE:
            return text_set
    return ENGLISH


def unreadable_share(tokenizer: Tokenizer, texts: Sequence[str], unknown: int | None) -> float:
    """Return the share of texts of which little is left in the tokens; unknown: the id of that token."""
    read = tokenizer.tokens(texts, "none", special=False)
    broken = [
        _broken_share(text, tokens, unknown) for text, tokens in zip(texts, read, strict=True)
    ]
    return sum(share > MOST_BROKEN for share in broken) / len(texts)


def _broken_share(text: str, tokens: Sequence[Token], unknown: int | None) -> float:
    """Return the share of characters whose tokens are unknown, a few bytes, or a letter of a word."""
    split = _split_characters(tokens)
    broken = total = 0
    for token in tokens:
        size = (token.stop or 0) - (token.start or 0)
        total += size
        if token.id == unknown or token.start in split or _is_lone_letter(token, text):
            broken += size
    return broken / max(total, 1)


def _split_characters(tokens: Sequence[Token]) -> set[int | None]:
    """Return the places of characters that took several tokens, a few bytes each."""
    return {
        before.start
        for before, after in pairwise(tokens)
        if before.start == after.start and after.start is not None
    }


def _is_lone_letter(token: Token, text: str) -> bool:
    """Return whether a token is one letter of a longer word, of a script that has an alphabet."""
    if token.start is None or token.stop != token.start + 1 or not _is_letter(text[token.start]):
        return False
    return sum(map(_is_letter, text[max(token.start - 1, 0) : token.stop + 1])) > 1


def _is_letter(character: str) -> bool:
    # Chinese and Japanese characters are words or syllables by themselves.
    return character.isalpha() and not "\u3040" <= character <= "\u9fff"


def _unknown_id(tokenizer_json: str) -> int | None:
    """Return the id that stands for everything a vocabulary lacks, if there is one."""
    model = json.loads(tokenizer_json)["model"]
    found = model.get("unk_id")
    if found is None and isinstance(vocabulary := model.get("vocab"), dict):
        found = vocabulary.get(model.get("unk_token"))
    return found if isinstance(found, int) else None
