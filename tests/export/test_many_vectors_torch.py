"""Sparse weights and token vectors beside transformers and the SparseEncoder of sentence-transformers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from server.inference.model import Model
from tests.support.encoders import batches
from tests.support.many_vectors import MASKED, SPECIAL, export_toy, write_toy_m3, write_toy_splade
from tests.support.relatives import PADDING_SECOND
from tests.support.toys import toy_texts, write_toy_checkpoint

pytestmark = pytest.mark.torch

TEXTS = [*toy_texts(30, seed=9), " 墨 池 ", "池" * 90]


def in_batches(model: Model) -> list[Any]:
    """Return the results of TEXTS, computed in batches."""
    ids = model.tokenizer.encode(TEXTS).ids
    order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
    arranged = [ids[place] for place in order]
    found: list[Any] = []
    for batch in batches(model.encoder.packing, arranged):
        found.extend(model.encoder.encode(arranged[batch]))
    return [
        result for _, result in sorted(zip(order, found, strict=True), key=lambda pair: pair[0])
    ]


@pytest.mark.parametrize("kind", MASKED)
@pytest.mark.parametrize("pooling", ["max", "sum"])
def test_splade_gives_the_weights_of_the_library(kind: str, pooling: str, tmp_path: Path) -> None:
    from sentence_transformers import SparseEncoder

    folder = write_toy_splade(tmp_path / "splade", kind, pooling=pooling)
    model = export_toy(folder)
    library = SparseEncoder(str(folder), device="cpu")
    expected = library.encode(TEXTS, convert_to_sparse_tensor=False).numpy()
    assert model.manifest.dimension == expected.shape[1]
    for (ids, weights), row in zip(in_batches(model), expected, strict=True):
        found = np.zeros_like(row)
        found[ids] = weights
        assert np.abs(found - row).max() <= 1e-4


def test_token_vectors_are_those_of_the_library(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = write_toy_checkpoint(tmp_path / "toy", layers=3, hidden=64)
    found = in_batches(export_toy(folder, "token_vectors"))
    library = SentenceTransformer(str(folder), device="cpu")
    for text, vectors in zip(TEXTS, found, strict=True):
        (expected,) = library.encode([text], output_value="token_embeddings")
        expected = np.asarray(expected)
        assert vectors.shape == expected.shape
        norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1)
        assert ((vectors * expected).sum(axis=1) / norms).min() >= 0.99999


def test_heads_of_bge_m3_give_what_flag_embedding_computes(tmp_path: Path) -> None:
    """Its steps are written out here; the library is not needed for them."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = write_toy_m3(tmp_path / "toy-m3")
    heads = {}
    for name in ("sparse_linear", "colbert_linear"):
        path = folder / f"{name}.safetensors"
        stored = {key: torch.from_numpy(value) for key, value in load_file(path).items()}
        heads[name] = torch.nn.Linear(stored["weight"].shape[1], stored["weight"].shape[0])
        heads[name].load_state_dict(stored)
        torch.save(heads[name].state_dict(), path.with_suffix(".pt"))
        path.unlink()
    sparse = in_batches(export_toy(folder, "sparse", allow_pickle=True))
    colbert = in_batches(export_toy(folder, "token_vectors", allow_pickle=True))
    network = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    unused = {PADDING_SECOND.index(token) for token in SPECIAL.values()}
    # The toy's texts are lower-cased by sentence-transformers' module, not by the tokenizer.
    texts = [text.strip().lower() for text in TEXTS]
    for text, (ids, weights), vectors in zip(texts, sparse, colbert, strict=True):
        tokens = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
        with torch.no_grad():
            states = network(**tokens).last_hidden_state
            token_weights = torch.relu(heads["sparse_linear"](states))[0, :, 0].tolist()
            expected = torch.nn.functional.normalize(heads["colbert_linear"](states[:, 1:]), dim=-1)
        lexical: dict[int, float] = {}
        for token, weight in zip(tokens["input_ids"][0].tolist(), token_weights, strict=True):
            if token not in unused and weight > lexical.get(token, 0):
                lexical[token] = weight
        assert dict(zip(ids.tolist(), weights, strict=True)) == pytest.approx(lexical, abs=1e-4)
        cosines = (vectors * expected[0].numpy()).sum(axis=1)
        assert cosines.min() >= 0.99999
