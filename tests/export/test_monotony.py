"""Texts of one token or few: made of the model's own vocabulary, apart for calibration and verification."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export import pipeline
from export.errors import DisagreesWithCheckpoint, UnsupportedModel
from export.pipeline import export
from export.source.folder import ModelFolder
from export.source.modules import Modules
from export.source.tokenizer_file import read_tokenizer
from export.texts.monotony import ALONE, LONG, MARK_LENGTHS, REPEATED, VERIFIED_MARKS, monotonous
from export.texts.token_check import check_tokens
from server.inference.encoder import SessionEncoder
from server.inference.manifest import TextRules
from server.inference.tokenization.fast_wordpiece import FastWordPiece
from server.inference.tokenizer import Tokenizer
from server.types import Ids, Packing, Vectors
from tests.support.exports import toy_settings


@pytest.fixture(scope="module")
def tokenizer(shipped_checkpoint: Path) -> Tokenizer:
    return Tokenizer(
        read_tokenizer(ModelFolder(shipped_checkpoint), Modules()),
        TextRules(lower_case=True, max_tokens=512),
    )


def test_verification_reads_other_tokens_than_calibration(tokenizer: Tokenizer) -> None:
    found = monotonous(tokenizer)
    drawn = len(VERIFIED_MARKS) * len(MARK_LENGTHS)
    assert len(found.verification) == ALONE + REPEATED + drawn
    assert not set(found.calibration) & set(found.verification)
    alone = found.verification[:ALONE]
    assert tokenizer.count(alone) == [1] * ALONE
    # Chinese characters and words of letters, not one kind.
    assert 10 < sum(text.isascii() for text in alone) < 90


def test_texts_are_the_same_each_time_and_no_longer_than_the_model_reads(
    tokenizer: Tokenizer,
) -> None:
    assert monotonous(tokenizer) == monotonous(tokenizer)
    counts = tokenizer.count(monotonous(tokenizer).verification[ALONE:])
    assert max(counts) >= 500
    assert len({count for count in counts if count > 4}) >= 5


def test_model_of_long_texts_reads_half_of_the_long_ones(shipped_checkpoint: Path) -> None:
    stored = read_tokenizer(ModelFolder(shipped_checkpoint), Modules())
    usual, sparing = (
        Tokenizer(stored, TextRules(lower_case=True, max_tokens=longest)) for longest in (512, 513)
    )
    every, some = monotonous(usual).verification, monotonous(sparing).verification
    assert set(some) < set(every)
    long = [text for text, count in zip(every, usual.count(every), strict=True) if count > LONG]
    assert len(every) - len(some) == len(long) // 2 > 10
    assert set(every) - set(some) <= set(long)


def test_tiny_vocabulary_is_enough(toy_checkpoint: Path) -> None:
    rules = TextRules(lower_case=True, max_tokens=64)
    found = monotonous(Tokenizer(read_tokenizer(ModelFolder(toy_checkpoint), Modules()), rules))
    assert found.calibration
    assert found.verification


@dataclass
class Straying:
    """An encoder whose vectors are wrong where one token is all that a text has."""

    encoder: SessionEncoder

    @property
    def packing(self) -> Packing:
        return self.encoder.packing

    def encode(self, texts: Sequence[Ids]) -> Vectors:
        vectors = self.encoder.encode(texts)
        for row, ids in enumerate(texts):
            if len(ids) > 8 and len(set(ids[1:-1].tolist())) == 1:
                vectors[row] = np.roll(vectors[row], 1)
        return vectors


def test_int8_that_strays_on_repeated_tokens_is_refused_and_the_texts_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    encoder = pipeline._encoder

    def second_strays(*given: Any) -> object:
        made.append(encoder(*given))
        return Straying(made[-1]) if len(made) == 2 else made[-1]  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "_encoder", second_strays)
    settings = toy_settings(tmp_path)
    with pytest.raises(DisagreesWithCheckpoint, match="人人人人人"):
        export(settings)
    assert not (Path(settings.source) / "onnx-int8").exists()


def test_shortcut_that_misses_an_added_token_is_found(
    shipped_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_tokens(_tokenizer(shipped_checkpoint), ["人工智能"])
    monkeypatch.setattr(FastWordPiece, "ids", lambda self, text: [5] * len(text))
    with pytest.raises(UnsupportedModel, match="人工智能"):
        check_tokens(_tokenizer(shipped_checkpoint), ["人工智能"])


def _tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer(
        read_tokenizer(ModelFolder(folder), Modules()), TextRules(lower_case=True, max_tokens=512)
    )
