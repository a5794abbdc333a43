"""Static embeddings through model2vec and sentence-transformers themselves: the same texts give the same vectors."""

from pathlib import Path

import numpy as np
import pytest

from export.checkpoint import read_checkpoint
from server.inference.comparison import row_cosines
from tests.export.test_static import OPTIONS, TEXTS, read_ids
from tests.support.encoders import float_encoder, one_by_one
from tests.support.static_toys import unigram, write_model2vec, write_static_embedding

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.mark.parametrize("name", OPTIONS)
def test_model2vec_folder_computes_what_model2vec_computes(name: str, tmp_path: Path) -> None:
    model2vec = pytest.importorskip("model2vec")
    folder = write_model2vec(tmp_path, **OPTIONS[name])
    expected = model2vec.StaticModel.from_pretrained(str(folder)).encode(TEXTS)
    checkpoint = read_checkpoint(folder)
    found = one_by_one(float_encoder(checkpoint), read_ids(checkpoint, TEXTS))
    assert row_cosines(expected.astype(np.float32), found).min() > 0.99999
    # Half precision is the library's own; here it is widened first.
    tolerance = 2e-3 if name == "float16" else 1e-5
    assert np.abs(expected - found).max() < tolerance * np.abs(expected).max()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pieces", ["wordpiece", "unigram"])
def test_static_embedding_computes_what_sentence_transformers_computes(
    pieces: str, normalize: bool, tmp_path: Path
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    own = unigram() if pieces == "unigram" else None
    folder = write_static_embedding(tmp_path, normalize=normalize, own=own)
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    expected = np.stack([model.encode(text, show_progress_bar=False) for text in TEXTS])
    checkpoint = read_checkpoint(folder)
    found = one_by_one(float_encoder(checkpoint), read_ids(checkpoint, TEXTS))
    assert np.abs(expected - found).max() < 1e-5
