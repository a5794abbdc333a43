"""Small seeded checkpoints of encoders with gated feed-forward layers, as the hub has them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.support.toys import (
    NORMALIZE,
    POOLING,
    POOLING_FLAGS,
    TRANSFORMER,
    VOCABULARY,
    Array,
    tokenizer,
    write_json,
    write_modules,
)

HIDDEN, HEADS, WIDE, LAYERS, MAX_TOKENS = 32, 4, 48, 4, 300


class Weights:
    """Random tensors under names, which keep the outputs of linear layers at unit variance."""

    def __init__(self, seed: int, hidden: int) -> None:
        self.tensors: dict[str, Array] = {}
        self._generator = np.random.default_rng(seed)
        self._hidden = hidden

    def _normal(self, *shape: int, scale: float) -> Array:
        return (self._generator.standard_normal(shape) * scale).astype(np.float32)

    def table(self, name: str, rows: int, scale: float = 1.0) -> None:
        self.tensors[f"{name}.weight"] = self._normal(rows, self._hidden, scale=scale)

    def linear(self, name: str, outputs: int, inputs: int, *, bias: bool) -> None:
        self.tensors[f"{name}.weight"] = self._normal(outputs, inputs, scale=inputs**-0.5)
        if bias:
            self.tensors[f"{name}.bias"] = self._normal(outputs, scale=0.2)

    def norm(self, name: str, *, bias: bool = True) -> None:
        self.tensors[f"{name}.weight"] = 1 + self._normal(self._hidden, scale=0.2)
        if bias:
            self.tensors[f"{name}.bias"] = self._normal(self._hidden, scale=0.1)


def write_folder(
    folder: Path,
    config: dict[str, Any],
    tensors: dict[str, Array],
    *,
    pooling: str = "mean",
    normalize: bool = True,
    max_tokens: int = MAX_TOKENS,
) -> Path:
    """Write a checkpoint as sentence-transformers saves one; returns `folder`."""
    write_json(folder / "config.json", config)
    save_file(tensors, folder / "model.safetensors")
    tokenizer().save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": "[PAD]",
            "model_input_names": ["input_ids", "attention_mask"],
        },
    )
    write_json(
        folder / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": True}
    )
    write_modules(folder, [TRANSFORMER, POOLING, *([NORMALIZE] if normalize else [])])
    flags = {flag: mode == pooling for mode, flag in POOLING_FLAGS.items()}
    width = {"word_embedding_dimension": len(tensors[next(iter(tensors))][0])}
    write_json(folder / "1_Pooling" / "config.json", width | flags)
    return folder


def write_modernbert(
    folder: Path, *, folder_options: dict[str, Any] | None = None, **changes: Any
) -> Path:
    """Write a ModernBERT whose local layers see 4 tokens to each side."""
    config: dict[str, Any] = {
        "architectures": ["ModernBertModel"],
        "model_type": "modernbert",
        "vocab_size": len(VOCABULARY),
        "hidden_size": HIDDEN,
        "intermediate_size": WIDE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "hidden_activation": "gelu",
        "max_position_embeddings": MAX_TOKENS,
        "norm_eps": 1e-5,
        "norm_bias": False,
        "attention_bias": False,
        "mlp_bias": False,
        "global_attn_every_n_layers": 3,
        "local_attention": 8,
        "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
        "pad_token_id": 0,
    } | changes
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    bias, norm_bias = config["attention_bias"], config["norm_bias"]
    weights = Weights(0, hidden)
    weights.table("embeddings.tok_embeddings", config["vocab_size"])
    weights.norm("embeddings.norm", bias=norm_bias)
    for index in range(config["num_hidden_layers"]):
        name = f"layers.{index}"
        if index:
            weights.norm(f"{name}.attn_norm", bias=norm_bias)
        weights.linear(f"{name}.attn.Wqkv", 3 * hidden, hidden, bias=bias)
        weights.linear(f"{name}.attn.Wo", hidden, hidden, bias=bias)
        weights.norm(f"{name}.mlp_norm", bias=norm_bias)
        weights.linear(f"{name}.mlp.Wi", 2 * wide, hidden, bias=config["mlp_bias"])
        weights.linear(f"{name}.mlp.Wo", hidden, wide, bias=config["mlp_bias"])
    weights.norm("final_norm", bias=norm_bias)
    return write_folder(folder, config, weights.tensors, **(folder_options or {}))


WRITERS: dict[str, Callable[..., Path]] = {"modernbert": write_modernbert}
