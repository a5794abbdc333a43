"""Decoders through sentence-transformers itself: the same texts give the same vectors, alone and together."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.checkpoint import read_checkpoint
from server.inference.comparison import row_cosines
from tests.support.decoder_toys import BOTH_WAYS, CONFIGS, use_llama_tokenizer, write_decoder
from tests.support.encoders import float_encoder, one_by_one, token_ids
from tests.support.toys import toy_texts

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

TEXTS = [*toy_texts(20, seed=4), "search searching " * 40, "墨" * 66, " \t池\n Ínk ＡＩ's ", ""]

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *((kind, {}) for kind in CONFIGS),
    ("qwen3", {"pooling": "mean", "attention_bias": True}),
    ("qwen3", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 2}),
    ("mistral", {"sliding_window": 7, "max_tokens": 50}),
    ("mistral", {"sliding_window": None, "head_dim": 32, "normalize": False}),
]


@pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=str)
def test_decoder_computes_what_transformers_computes(
    kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    assert_same_vectors(write_decoder(tmp_path, kind, **options))


@pytest.mark.parametrize(
    "config",
    [{}, {"add_eos_token": True}, {"add_bos_token": False, "add_eos_token": True}],
    ids=str,
)
def test_tokenizer_of_a_llama_puts_around_a_text_what_its_configuration_says(
    config: dict[str, Any], tmp_path: Path
) -> None:
    folder = write_decoder(tmp_path, "mistral")
    use_llama_tokenizer(folder, **config)
    assert_same_vectors(folder)


@pytest.mark.parametrize("kind", BOTH_WAYS)
def test_attention_in_both_directions_is_that_of_transformers_without_its_mask(
    kind: str, tmp_path: Path
) -> None:
    torch, transformers = map(pytest.importorskip, ("torch", "transformers"))
    folder = write_decoder(tmp_path, kind, pooling="mean", **BOTH_WAYS[kind])
    classes = {"mistral": transformers.MistralModel, "qwen2": transformers.Qwen2Model}
    model = classes[kind].from_pretrained(folder, attn_implementation="eager").eval()
    checkpoint = read_checkpoint(folder)
    ids = token_ids(checkpoint, TEXTS)
    expected = []
    for row in ids:
        nothing = torch.zeros((1, 1, len(row), len(row)))
        with torch.no_grad():
            found = model(torch.from_numpy(row)[None], attention_mask=nothing).last_hidden_state
        expected.append(torch.nn.functional.normalize(found.mean(1), dim=-1)[0].numpy())
    found = one_by_one(float_encoder(checkpoint), ids)
    assert np.abs(np.stack(expected) - found).max() < 1e-5
    assert row_cosines(np.stack(expected), found).min() > 0.99999


def assert_same_vectors(folder: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = sentence_transformers.SentenceTransformer(
        str(folder), device="cpu", local_files_only=True
    )
    expected = np.stack([model.encode(text, show_progress_bar=False) for text in TEXTS])
    checkpoint = read_checkpoint(folder)
    assert checkpoint.settings.max_tokens == model.max_seq_length
    ids, encoder = token_ids(checkpoint, TEXTS), float_encoder(checkpoint)
    assert all(
        np.array_equal(own, model.tokenize([text])["input_ids"][0])
        for own, text in zip(ids, TEXTS, strict=True)
    )
    found = one_by_one(encoder, ids)
    assert row_cosines(expected, found).min() > 0.99999
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs((expected - found) / lengths).max() < 1e-5
