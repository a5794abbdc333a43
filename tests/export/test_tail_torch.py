"""Dense layers and normalisations behind the pooling, through sentence-transformers itself."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from export.checkpoint import read_checkpoint
from server.inference.comparison import row_cosines
from tests.export.test_tail import TAILS
from tests.support.decoder_toys import write_decoder
from tests.support.dense_layers import GELU, TANH, Dense, Step, write_steps
from tests.support.encoders import float_encoder, one_by_one, token_ids
from tests.support.relatives import write_relative
from tests.support.toys import toy_texts, write_json, write_toy_checkpoint

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

TEXTS = [*toy_texts(20, seed=4), "search searching " * 20, "墨" * 66, " \t池\n Ínk ＡＩ's ", ""]


@pytest.mark.parametrize("steps", TAILS.values(), ids=TAILS)
def test_tail_computes_what_torch_computes(steps: list[Step], tmp_path: Path) -> None:
    assert_same_vectors(write_steps(write_toy_checkpoint(tmp_path, pooling="mean"), steps))


@pytest.mark.parametrize("pooling", ["cls", "max"])
def test_other_poolings_have_the_same_tail(pooling: str, tmp_path: Path) -> None:
    folder = write_toy_checkpoint(tmp_path, pooling=pooling)
    assert_same_vectors(write_steps(folder, [Dense(48, GELU), "Dropout", "Normalize"]))


def test_other_families_have_the_same_tail(tmp_path: Path) -> None:
    decoder = write_decoder(tmp_path / "decoder", "qwen3")
    relative = write_relative(tmp_path / "relative", "distilbert", pooling="mean")
    for folder in (decoder, relative):
        width = load_file(folder / "model.safetensors")
        (columns,) = {
            array.shape[1] for name, array in width.items() if "embed" in name and array.ndim == 2
        }
        assert_same_vectors(write_steps(folder, [Dense(24, TANH), "Normalize"], width=columns))


def test_pickled_layer_gives_the_same_vectors(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    folder = write_steps(write_toy_checkpoint(tmp_path), [Dense(16, TANH), "Normalize"])
    stored = folder / "2_Dense" / "model.safetensors"
    tensors = {name: torch.from_numpy(array) for name, array in load_file(stored).items()}
    torch.save(tensors, stored.with_name("pytorch_model.bin"))
    stored.unlink()
    assert_same_vectors(folder, allow_pickle=True)


def test_layer_in_half_precision_gives_the_same_vectors(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    folder = write_steps(write_toy_checkpoint(tmp_path), [Dense(16, TANH), "Normalize"])
    stored = folder / "2_Dense" / "model.safetensors"
    tensors = {name: torch.from_numpy(each).bfloat16() for name, each in load_file(stored).items()}
    save_file(tensors, stored)
    assert_same_vectors(folder)


@pytest.mark.parametrize("similarity", [None, "cosine", "dot", "euclidean", "manhattan"])
def test_similarity_is_the_one_that_torch_reads(similarity: str | None, tmp_path: Path) -> None:
    folder = write_toy_checkpoint(tmp_path)
    write_json(folder / "config_sentence_transformers.json", {"similarity_fn_name": similarity})
    assert read_checkpoint(folder).settings.similarity == loaded(folder).similarity_fn_name


def loaded(folder: Path) -> Any:
    module = pytest.importorskip("sentence_transformers")
    return module.SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def assert_same_vectors(folder: Path, *, allow_pickle: bool = False) -> None:
    model = loaded(folder)
    expected = np.stack([model.encode(text, show_progress_bar=False) for text in TEXTS])
    checkpoint = read_checkpoint(folder, allow_pickle=allow_pickle)
    assert checkpoint.outline.dimension == model.get_sentence_embedding_dimension()
    found = one_by_one(float_encoder(checkpoint), token_ids(checkpoint, TEXTS))
    assert row_cosines(expected, found).min() > 0.99999
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs((expected - found) / lengths).max() < 1e-5
