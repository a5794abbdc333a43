"""Small seeded tables of static embeddings, as model2vec and sentence-transformers save them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from server.types import Vectors
from tests.support.toys import VOCABULARY, read_json, tokenizer, write_json, write_typed_modules

WIDTH, CLUSTERS = 24, 50


def unigram() -> Tokenizer:
    """Return a Unigram tokenizer that keeps the white space at a text's ends, as multilingual ones do."""
    pieces = [("<unk>", 0.0), ("▁", -3.0), *((each, -4.0) for each in VOCABULARY[5:])]
    built = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    built.pre_tokenizer = pre_tokenizers.Metaspace()
    return built


def write_model2vec(
    folder: Path,
    *,
    kind: Any = np.float32,
    shared: bool = False,
    own: Tokenizer | None = None,
    **config: Any,
) -> Path:
    """Write a folder of model2vec. shared: tokens share rows and have weights, as in quantised vocabularies."""
    generator = np.random.default_rng(3)
    own = own or tokenizer(lower_case=True)
    size = own.get_vocab_size()
    rows = CLUSTERS if shared else size
    table = generator.standard_normal((rows, WIDTH))
    tensors = {"embeddings": np.asarray(table * 30 if kind == np.int8 else table).astype(kind)}
    if shared:
        tensors["mapping"] = generator.integers(0, rows, size)
        tensors["weights"] = generator.uniform(0.2, 2, size)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    own.save(str(folder / "tokenizer.json"))
    described = {
        "model_type": "model2vec",
        "architectures": ["StaticModel"],
        "hidden_dim": WIDTH,
        "normalize": True,
        "apply_zipf": True,
        "embedding_dtype": np.dtype(kind).name,
        **({"vocabulary_quantization": rows} if shared else {}),
    }
    write_json(folder / "config.json", described | config)
    write_typed_modules(folder, {".": "models.StaticEmbedding"})
    return folder


def write_static_embedding(
    folder: Path,
    *,
    normalize: bool = False,
    own: Tokenizer | None = None,
    inner: str = "0_StaticEmbedding",
) -> Path:
    """Write a folder of sentence-transformers, whose table lies in a folder of its own or beside the modules."""
    place = folder / inner
    place.mkdir(parents=True, exist_ok=True)
    own = own or tokenizer(lower_case=True)
    table = np.random.default_rng(4).standard_normal((own.get_vocab_size(), WIDTH))
    save_file({"embedding.weight": table.astype(np.float32)}, place / "model.safetensors")
    own.save(str(place / "tokenizer.json"))
    types = {inner: "models.StaticEmbedding"}
    write_typed_modules(folder, types | ({"1_Normalize": "models.Normalize"} if normalize else {}))
    return folder


def expected_vectors(folder: Path, texts: Sequence[str]) -> Vectors:
    """Return what model2vec computes of its folder, written plainly: float32 (B, D), zeros for no known token."""
    tensors = load_file(folder / "model.safetensors")
    config = read_json(folder / "config.json")
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    length = config.get("max_length", 512)
    description = json.loads(own.to_str())["model"]
    unknown = description.get("unk_id")
    if description.get("unk_token"):
        unknown = own.token_to_id(description["unk_token"])
    most = length * int(np.median([len(token) for token in own.get_vocab()]))
    vectors = []
    for text in texts:
        ids = own.encode(text[:most], add_special_tokens=False).ids[:length]
        known = [token for token in ids if token != unknown]
        rows = tensors["embeddings"][tensors["mapping"][known] if "mapping" in tensors else known]
        rows = rows * tensors["weights"][known][:, None] if "weights" in tensors else rows
        mean = rows.astype(np.float64).mean(axis=0) if known else np.zeros(rows.shape[1])
        vectors.append(mean / (np.linalg.norm(mean) + 1e-32) if config["normalize"] else mean)
    return np.array(vectors, np.float32)
