"""Toy networks as encoders: what `export` writes for a checkpoint, opened as the server opens it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.checkpoint import Checkpoint, read_checkpoint
from export.onnx_file import serialize
from export.quantisation import rowwise
from export.quantisation.quantise import quantize
from server.inference.encoder import SessionEncoder
from server.inference.manifest import TextRules
from server.inference.tokenizer import Tokenizer
from server.types import Ids, Packing, VectorEncoder, Vectors
from tests.support.toys import VOCABULARY, toy_texts, write_toy_checkpoint

# Networks that differ in everything the graph depends on.
SHAPES: dict[str, dict[str, Any]] = {
    "one layer": {"layers": 1},
    "three layers": {"layers": 3},
    "three heads, 24 wide": {"hidden": 24, "heads": 3},
    "heads of 5, 40 wide": {"hidden": 40, "heads": 8, "intermediate": 72},
    "15 wide, 50 between": {"hidden": 15, "heads": 3, "intermediate": 50},
    "one head": {"heads": 1},
    "heads of 1, all odd": {"hidden": 7, "heads": 7, "intermediate": 13},
    "300 between": {"intermediate": 300},
    "tanh gelu": {"activation": "gelu_new"},
    "fast gelu": {"activation": "gelu_fast"},
    "relu": {"activation": "relu"},
    "mean": {"pooling": "mean"},
    "max": {"pooling": "max"},
    "cls, as is": {"normalize": False},
    "mean, as is": {"pooling": "mean", "normalize": False},
    "max, as is": {"pooling": "max", "normalize": False},
    "one token type": {"token_types": 1},
    "large epsilon": {"layer_norm_epsilon": 1e-3},
    "more positions than tokens": {"positions": 80, "max_tokens": 37},
}


def toy_network(folder: Path, **options: Any) -> Checkpoint:
    """Write a toy checkpoint and return it as read."""
    return read_checkpoint(write_toy_checkpoint(folder / "network", **options))


def float_encoder(checkpoint: Checkpoint) -> SessionEncoder:
    linears = checkpoint.network().float_linears()
    model = checkpoint.network().whole(linears, int8_embeddings=False)
    return SessionEncoder(serialize(model).model, checkpoint.network().packing(linears))


def int8_encoder(checkpoint: Checkpoint, weight_bits: int = 8) -> SessionEncoder:
    calibration = token_ids(checkpoint, toy_texts(50))
    quantized = quantize(checkpoint.network(), calibration, weight_bits=weight_bits, threads=1)
    model = checkpoint.network().whole(quantized.linears, int8_embeddings=True)
    return SessionEncoder(serialize(model).model, checkpoint.network().packing(quantized.linears))


def rowwise_encoder(checkpoint: Checkpoint, weight_bits: int = 8) -> SessionEncoder:
    """Return the int8 form of a network whose activations are quantised by row as they run."""
    network, ids = checkpoint.network(), token_ids(checkpoint, toy_texts(50))
    linears = rowwise.quantize(network, ids, weight_bits=weight_bits, threads=1)
    model = network.whole(linears, int8_embeddings=True)
    return SessionEncoder(serialize(model).model, network.packing(linears))


def token_ids(checkpoint: Checkpoint, texts: Sequence[str]) -> list[Ids]:
    settings = checkpoint.settings
    rules = TextRules(lower_case=settings.lower_case, max_tokens=settings.max_tokens)
    return list(Tokenizer(checkpoint.tokenizer_json, rules).encode(texts).ids)


def random_ids(
    n_texts: int, n_tokens: int, seed: int = 0, vocabulary: int = len(VOCABULARY)
) -> list[Ids]:
    """Return texts of random tokens, int64 (n_tokens,) each."""
    generator = np.random.default_rng([seed, n_texts, n_tokens])
    return list(generator.integers(0, vocabulary, (n_texts, n_tokens), dtype=np.int64))


def batches(packing: Packing, sorted_ids: Sequence[Ids]) -> Iterator[slice]:
    """Yield slices of the texts, sorted by length: each as many as can be computed together."""
    begin = 0
    while begin < len(sorted_ids):
        end = begin + 1
        lengths = {len(sorted_ids[begin])}
        while end < len(sorted_ids) and packing.allows(lengths | {len(sorted_ids[end])}):
            lengths.add(len(sorted_ids[end]))
            end += 1
        yield slice(begin, end)
        begin = end


def one_by_one(encoder: VectorEncoder, texts: Sequence[Ids]) -> Vectors:
    return np.concatenate([encoder.encode([ids]) for ids in texts])
