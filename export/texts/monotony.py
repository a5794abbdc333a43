"""Texts of one token, or of a few again and again: where an int8 model strays first, and users go too.

A cell of a table holds one word, a scanned rule is 500 dashes, a form repeats a mark to its end. All
rows of such a text are alike, so the small errors of its activations do not cancel out.

Measured (bge-small-zh-v1.5, 2026-11-29; least cosine to float32), calibrated without such texts and with
them: 510 of one mark 0.919 and 0.992, one character 200 times 0.969 and 0.984, one word 250 times 0.970
and 0.990, 1,500 single tokens 0.975 and 0.983; 800 STS-B sentences 0.9977 and 0.9984.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np

from export.verification.verify import EVERY_LENGTH
from server.inference.tokenizer import Tokenizer

# Tokens alone, and tokens repeated, that calibration reads; verification reads as many others.
ALONE, REPEATED = 100, 80
# Of the repeated texts every fourth alternates two or three tokens.
FEW = (1, 1, 1, 2, 1, 1, 1, 3)
LENGTHS = (8, 20, 40, 120, 250, 510)
# The marks that lines and forms are drawn with are few among all tokens, so they are named.
CALIBRATED_MARKS, VERIFIED_MARKS = "。！-=*.~…", "，？_#!:，—"
MARK_LENGTHS = (10, 40, 510)
# A model of longer texts than EVERY_LENGTH takes long to verify. Of the texts above LONG it reads every second:
# they are an eighth of the texts and most of the tokens.
LONG, SPARING_STEP = 200, 2


@dataclass(frozen=True, slots=True)
class Monotony:
    """Monotonous texts for calibration, and others for verification."""

    calibration: list[str]
    verification: list[str]


def monotonous(tokenizer: Tokenizer) -> Monotony:
    """Make texts of the tokenizer's own vocabulary, the same ones each time."""
    needed = 2 * (ALONE + REPEATED)
    words = list(islice(_words(tokenizer), needed))
    longest = tokenizer.rules.max_tokens
    return Monotony(
        _sparing(_texts(words[0::2], CALIBRATED_MARKS, longest), tokenizer),
        _sparing(_texts(words[1::2], VERIFIED_MARKS, longest), tokenizer),
    )


def _sparing(texts: list[str], tokenizer: Tokenizer) -> list[str]:
    """Return the texts, and for a model of long texts fewer of those above LONG tokens."""
    if tokenizer.rules.max_tokens <= EVERY_LENGTH:
        return texts
    long = [text for text, count in zip(texts, tokenizer.count(texts), strict=True) if count > LONG]
    left_out = {text for place, text in enumerate(long) if place % SPARING_STEP}
    return [text for text in texts if text not in left_out]


def _words(tokenizer: Tokenizer) -> Iterator[str]:
    """Yield tokens that are words or characters by themselves, from all over the vocabulary."""
    for token in np.random.default_rng(0).permutation(tokenizer.vocabulary_size).tolist():
        text = tokenizer.decode([[token]])[0].strip()
        if text and tokenizer.count([text]) == [1]:
            yield text


def _texts(words: list[str], marks: str, max_tokens: int) -> list[str]:
    alone, rest = words[:ALONE], cycle(words)
    repeated = [
        _repeated(list(islice(rest, few)), min(length, max_tokens))
        for few, length in islice(zip(cycle(FEW), _mixed_lengths(), strict=False), REPEATED)
    ]
    drawn = [mark * min(length, max_tokens) for mark in marks for length in MARK_LENGTHS]
    return [*alone, *repeated, *drawn] if words else drawn


def _mixed_lengths() -> Iterator[int]:
    random = np.random.default_rng(1)
    while True:
        yield int(random.choice(LENGTHS))


def _repeated(words: list[str], n_words: int) -> str:
    between = " " if any(word.isascii() and word.isalnum() for word in words) else ""
    return between.join(islice(cycle(words), n_words))
