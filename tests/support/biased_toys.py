"""Small seeded checkpoints of MPNet and T5, whose attention has a bias by distance, as the hub has them."""

from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from tests.support.checkpoints import change_json
from tests.support.gated_toys import Weights, write_folder
from tests.support.toys import CHARACTERS, DIGITS, LETTERS, PUNCTUATION, VOCABULARY, write_json

HIDDEN, HEADS, HEAD_WIDTH, WIDE, LAYERS, MAX_TOKENS = 32, 4, 6, 48, 2, 300


def write_mpnet(
    folder: Path, *, folder_options: dict[str, Any] | None = None, **changes: Any
) -> Path:
    """Write a random MPNet as all-mpnet-base-v2 is made; returns `folder`."""
    config: dict[str, Any] = {
        "architectures": ["MPNetModel"],
        "model_type": "mpnet",
        "vocab_size": len(VOCABULARY),
        "hidden_size": HIDDEN,
        "intermediate_size": WIDE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": MAX_TOKENS + 2,
        "pad_token_id": 1,
        "relative_attention_num_buckets": 32,
    } | changes
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    weights = Weights(8, hidden)
    weights.table("embeddings.word_embeddings", config["vocab_size"])
    weights.table("embeddings.position_embeddings", config["max_position_embeddings"], scale=0.3)
    weights.norm("embeddings.LayerNorm")
    for index in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{index}"
        for part in "qkvo":
            weights.linear(f"{name}.attention.attn.{part}", hidden, hidden, bias=True)
        weights.norm(f"{name}.attention.LayerNorm")
        weights.linear(f"{name}.intermediate.dense", wide, hidden, bias=True)
        weights.linear(f"{name}.output.dense", hidden, wide, bias=True)
        weights.norm(f"{name}.output.LayerNorm")
    buckets = config["relative_attention_num_buckets"]
    table = "encoder.relative_attention_bias.weight"
    weights.tensors[table] = random_biases(buckets, config["num_attention_heads"])
    return write_folder(folder, config, weights.tensors, **(folder_options or {}))


def write_t5(folder: Path, *, folder_options: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Write a random T5 as sentence-t5 is made, with a decoder's tensors beside it; returns `folder`."""
    config: dict[str, Any] = {
        "architectures": ["T5EncoderModel"],
        "model_type": "t5",
        "vocab_size": len(PIECES),
        "d_model": HIDDEN,
        "d_kv": HEAD_WIDTH,
        "d_ff": WIDE,
        "num_layers": LAYERS,
        "num_heads": HEADS,
        "feed_forward_proj": "relu",
        "layer_norm_epsilon": 1e-6,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "n_positions": 512,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "dropout_rate": 0.1,
    } | changes
    hidden, inner = config["d_model"], config["d_kv"] * config["num_heads"]
    weights = Weights(9, hidden)
    weights.table("shared", config["vocab_size"])
    for index in range(config["num_layers"]):
        name = f"encoder.block.{index}.layer"
        weights.norm(f"{name}.0.layer_norm", bias=False)
        # Scores have no scale: T5's queries are small instead.
        weights.linear(f"{name}.0.SelfAttention.q", inner, hidden, bias=False)
        weights.tensors[f"{name}.0.SelfAttention.q.weight"] *= np.float32(0.4)
        for part in "kv":
            weights.linear(f"{name}.0.SelfAttention.{part}", inner, hidden, bias=False)
        weights.linear(f"{name}.0.SelfAttention.o", hidden, inner, bias=False)
        weights.norm(f"{name}.1.layer_norm", bias=False)
        is_gated = config["feed_forward_proj"].startswith("gated-")
        for part in ("wi_0", "wi_1") if is_gated else ("wi",):
            weights.linear(f"{name}.1.DenseReluDense.{part}", config["d_ff"], hidden, bias=False)
        weights.linear(f"{name}.1.DenseReluDense.wo", hidden, config["d_ff"], bias=False)
    weights.norm("encoder.final_layer_norm", bias=False)
    table = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    buckets = config["relative_attention_num_buckets"]
    weights.tensors[table] = random_biases(buckets, config["num_heads"])
    weights.table("decoder.final_layer_norm", 1)
    write_folder(folder, config, weights.tensors, **(folder_options or {}))
    unigram_tokenizer().save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "T5Tokenizer",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "pad_token": "<pad>",
            "extra_ids": 0,
            "model_max_length": 512,
        },
    )
    change_json(folder / "sentence_bert_config.json", do_lower_case=False)
    return folder


def random_biases(buckets: int, heads: int) -> Any:
    return np.random.default_rng(10).standard_normal((buckets, heads)).astype(np.float32)


PIECES = [
    *(("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)),
    *((piece, -3.0) for piece in (*LETTERS, *LETTERS.upper(), *DIGITS, *PUNCTUATION, *CHARACTERS)),
    *((piece, -4.0) for piece in ("▁search", "▁ink", "ing", "server", "▁in")),
]


def unigram_tokenizer() -> Tokenizer:
    """Return sentencepiece's unigram as T5 has it, with </s> behind every text."""
    built = Tokenizer(models.Unigram(PIECES, unk_id=2))
    built.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace("  ", " "), normalizers.Strip()]
    )
    built.pre_tokenizer = pre_tokenizers.Metaspace()
    built.decoder = decoders.Metaspace()
    built.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    built.add_special_tokens(["<pad>", "</s>", "<unk>"])
    return built
