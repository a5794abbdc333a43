"""RoBERTa, XLM-R, ERNIE, DistilBERT and MPNet give the vectors of a BERT with the same weights."""

from pathlib import Path

import numpy as np
import pytest

from export.checkpoint import read_checkpoint
from export.errors import ShapeMismatch
from tests.support.checkpoints import change_json, refusal
from tests.support.encoders import float_encoder, int8_encoder, one_by_one, token_ids
from tests.support.relatives import RELATIVES, VOCABULARIES, write_relative
from tests.support.toys import VOCABULARY, toy_texts, write_toy_checkpoint

TEXTS = [*toy_texts(12, seed=5), "墨" * 100]


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("name", RELATIVES)
def test_relative_gives_the_vectors_of_the_bert_it_was_made_from(
    name: str, pooling: str, tmp_path: Path
) -> None:
    vocabulary = VOCABULARIES.get(name, VOCABULARY)
    bert = read_checkpoint(
        write_toy_checkpoint(tmp_path / "bert", pooling=pooling, vocabulary=vocabulary)
    )
    relative = read_checkpoint(write_relative(tmp_path / "relative", name, pooling=pooling))
    assert relative.family.name == name.partition(",")[0].removeprefix("xlm-")
    assert relative.settings.max_tokens == bert.settings.max_tokens == 64
    ids = token_ids(bert, TEXTS)
    assert all(map(np.array_equal, ids, token_ids(relative, TEXTS)))
    expected, encoder = one_by_one(float_encoder(bert), ids), float_encoder(relative)
    assert np.abs(one_by_one(encoder, ids) - expected).max() < 2e-6
    # Packed batches count positions from each text's own beginning.
    assert np.abs(encoder.encode(ids[:4]) - expected[:4]).max() < 2e-6
    cosines = (one_by_one(int8_encoder(relative), ids) * expected).sum(axis=1)
    assert cosines.min() > 0.99


def test_positions_that_the_padding_takes_up_are_named(tmp_path: Path) -> None:
    folder = write_relative(tmp_path, "xlm-roberta")
    change_json(folder / "config.json", pad_token_id=65)
    refusal(folder, ShapeMismatch, "max_position_embeddings 66", "pad_token_id 65")
