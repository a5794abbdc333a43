"""Gated encoders that transformers has of its own, through sentence-transformers: the same vectors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.checkpoint import read_checkpoint
from server.inference.comparison import row_cosines
from tests.support.encoders import float_encoder, one_by_one, token_ids
from tests.support.gated_toys import WRITERS
from tests.support.toys import toy_texts

# ModernBERT's module of transformers compiles a method as it is imported, by a way that torch deprecates.
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

TEXTS = [*toy_texts(20, seed=4), "search " * 140, "墨" * 66, "池" * 5, ""]


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention_bias": True, "mlp_bias": True, "norm_bias": True},
        {"local_attention": 64, "num_hidden_layers": 7, "hidden_activation": "silu"},
        {"local_rope_theta": None, "hidden_size": 48, "num_attention_heads": 3},
    ],
    ids=str,
)
def test_modernbert_computes_what_transformers_computes(
    changes: dict[str, Any], pooling: str, tmp_path: Path
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    folder = WRITERS["modernbert"](
        tmp_path, folder_options={"pooling": pooling, "normalize": False}, **changes
    )
    model = sentence_transformers.SentenceTransformer(
        str(folder),
        device="cpu",
        local_files_only=True,
        model_kwargs={"attn_implementation": "sdpa"},
    )
    expected = np.stack([model.encode(text.lower(), show_progress_bar=False) for text in TEXTS])
    checkpoint = read_checkpoint(folder)
    found = one_by_one(float_encoder(checkpoint), token_ids(checkpoint, TEXTS))
    assert row_cosines(expected, found).min() > 0.99999
    assert np.abs(expected - found).max() < 1e-4
