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


def write_nomic(
    folder: Path, *, folder_options: dict[str, Any] | None = None, **changes: Any
) -> Path:
    """Write a nomic_bert as nomic-embed-text-v1.5 is made."""
    config: dict[str, Any] = {
        "architectures": ["NomicBertModel"],
        "model_type": "nomic_bert",
        "activation_function": "swiglu",
        "causal": False,
        "layer_norm_epsilon": 1e-12,
        "max_trained_positions": 2048,
        "mlp_fc1_bias": False,
        "mlp_fc2_bias": False,
        "n_embd": HIDDEN,
        "n_head": HEADS,
        "n_inner": WIDE,
        "n_layer": LAYERS,
        "n_positions": MAX_TOKENS,
        "parallel_block": False,
        "prenorm": False,
        "qkv_proj_bias": False,
        "rotary_emb_base": 1000,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "rotary_emb_scale_base": None,
        "rotary_scaling_factor": None,
        "type_vocab_size": 2,
        "use_rms_norm": False,
        "vocab_size": len(VOCABULARY) + 3,
    } | changes
    hidden, wide, bias = config["n_embd"], config["n_inner"], config["qkv_proj_bias"]
    weights = Weights(1, hidden)
    weights.table("embeddings.word_embeddings", config["vocab_size"])
    weights.table("embeddings.token_type_embeddings", config["type_vocab_size"], scale=0.3)
    weights.norm("emb_ln")
    for index in range(config["n_layer"]):
        name = f"encoder.layers.{index}"
        weights.linear(f"{name}.attn.Wqkv", 3 * hidden, hidden, bias=bias)
        weights.linear(f"{name}.attn.out_proj", hidden, hidden, bias=bias)
        for part in ("fc11", "fc12"):
            weights.linear(f"{name}.mlp.{part}", wide, hidden, bias=config["mlp_fc1_bias"])
        weights.linear(f"{name}.mlp.fc2", hidden, wide, bias=config["mlp_fc2_bias"])
        weights.norm(f"{name}.norm1")
        weights.norm(f"{name}.norm2")
    return write_folder(folder, config, weights.tensors, **(folder_options or {}))


def write_gte(
    folder: Path, *, folder_options: dict[str, Any] | None = None, **changes: Any
) -> Path:
    """Write a model "new" as gte-base-en-v1.5 is made, with the prefix of its names."""
    config: dict[str, Any] = {
        "architectures": ["NewModel"],
        "model_type": "new",
        "hidden_act": "gelu",
        "hidden_size": HIDDEN,
        "intermediate_size": WIDE,
        "layer_norm_eps": 1e-12,
        "layer_norm_type": "layer_norm",
        "logn_attention_clip1": False,
        "logn_attention_scale": False,
        "max_position_embeddings": MAX_TOKENS,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "pack_qkv": True,
        "position_embedding_type": "rope",
        "rope_scaling": {"factor": 2.0, "type": "ntk"},
        "rope_theta": 500000,
        "type_vocab_size": 0,
        "vocab_size": len(VOCABULARY),
    } | changes
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    weights = Weights(2, hidden)
    weights.table("new.embeddings.word_embeddings", config["vocab_size"])
    if config["type_vocab_size"]:
        weights.table("new.embeddings.token_type_embeddings", config["type_vocab_size"], scale=0.3)
    weights.norm("new.embeddings.LayerNorm")
    for index in range(config["num_hidden_layers"]):
        name = f"new.encoder.layer.{index}"
        if config["pack_qkv"]:
            weights.linear(f"{name}.attention.qkv_proj", 3 * hidden, hidden, bias=True)
        else:
            for part in "qkv":
                weights.linear(f"{name}.attention.{part}_proj", hidden, hidden, bias=True)
        weights.linear(f"{name}.attention.o_proj", hidden, hidden, bias=True)
        weights.linear(f"{name}.mlp.up_gate_proj", 2 * wide, hidden, bias=False)
        weights.linear(f"{name}.mlp.down_proj", hidden, wide, bias=True)
        weights.norm(f"{name}.attn_ln")
        weights.norm(f"{name}.mlp_ln")
    return write_folder(folder, config, weights.tensors, **(folder_options or {}))


def write_jina(
    folder: Path,
    *,
    folder_options: dict[str, Any] | None = None,
    normed: bool = False,
    **changes: Any,
) -> Path:
    """Write a jina-embeddings-v2; normed: as the bilingual ones are, with norms of queries and keys."""
    code = "jinaai/jina-bert-v2-qk-post-norm" if normed else "jinaai/jina-bert-implementation"
    config: dict[str, Any] = {
        "_name_or_path": code,
        "architectures": ["JinaBertForMaskedLM"],
        "auto_map": {"AutoModel": f"{code}--modeling_bert.JinaBertModel"},
        "model_type": "bert",
        "position_embedding_type": "alibi",
        "feed_forward_type": "geglu",
        "hidden_act": "gelu",
        "hidden_size": HIDDEN,
        "intermediate_size": WIDE,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": MAX_TOKENS,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "type_vocab_size": 2,
        "vocab_size": len(VOCABULARY),
    } | changes
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    weights = Weights(3, hidden)
    weights.table("embeddings.word_embeddings", config["vocab_size"])
    weights.table("embeddings.token_type_embeddings", config["type_vocab_size"], scale=0.3)
    weights.norm("embeddings.LayerNorm")
    between, down = ("up_gated_layer", "down_layer") if normed else ("gated_layers", "wo")
    norms = ["attention.output.LayerNorm", "mlp.layernorm"]
    if normed:
        norms = ["attention.output.LayerNorm", "layer_norm_1", "layer_norm_2"]
        norms += ["attention.self.layer_norm_q", "attention.self.layer_norm_k"]
    for index in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{index}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            weights.linear(f"{name}.attention.{part}", hidden, hidden, bias=True)
        weights.linear(f"{name}.mlp.{between}", 2 * wide, hidden, bias=False)
        weights.linear(f"{name}.mlp.{down}", hidden, wide, bias=True)
        for norm in norms:
            weights.norm(f"{name}.{norm}")
    return write_folder(folder, config, weights.tensors, **(folder_options or {}))


def write_normed_jina(folder: Path, **options: Any) -> Path:
    return write_jina(folder, normed=True, **options)


WRITERS: dict[str, Callable[..., Path]] = {
    "modernbert": write_modernbert,
    "nomic_bert": write_nomic,
    "gte": write_gte,
    "jina_bert": write_jina,
    "jina_bert, normed": write_normed_jina,
}
