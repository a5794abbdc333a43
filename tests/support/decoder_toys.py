"""Small seeded checkpoints of decoders that embed, as the hub has them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from tests.support.gated_toys import Weights
from tests.support.toys import NORMALIZE, POOLING, TRANSFORMER, write_json, write_modules

END = "<|endoftext|>"
# Of Qwen 2 and 3.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MERGES = [
    ("s", "e"),
    ("a", "r"),
    ("se", "ar"),
    ("c", "h"),
    ("sear", "ch"),
    ("Ġ", "sear"),
    ("i", "n"),
]
HIDDEN, HEADS, KV_HEADS, HEAD_WIDTH, WIDE, LAYERS, MAX_TOKENS = 32, 4, 2, 16, 48, 3, 300
VOCABULARY_SIZE = 512
INSTRUCTION = "Instruct: Find\nQuery:"
FLAGS = {"lasttoken": "pooling_mode_lasttoken", "mean": "pooling_mode_mean_tokens"}

# Decoders whose own code attends in both directions, and what their config.json says of it.
BOTH_WAYS: dict[str, dict[str, Any]] = {
    "mistral": {"auto_map": {"AutoModel": "modeling_gritlm7b.MistralModel"}},
    "qwen2": {"auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"}, "is_causal": False},
}
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen3": {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "head_dim": HEAD_WIDTH,
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": LAYERS,
        "rope_theta": 1_000_000,
        "rope_scaling": None,
    },
    "qwen2": {"architectures": ["Qwen2Model"], "hidden_size": HEADS * HEAD_WIDTH},
    "mistral": {
        "architectures": ["MistralModel"],
        "hidden_size": HEADS * HEAD_WIDTH,
        "sliding_window": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
    },
    "llama": {
        "architectures": ["LlamaModel"],
        "hidden_size": HEADS * HEAD_WIDTH,
        "num_key_value_heads": HEADS,
        "attention_bias": True,
        "mlp_bias": True,
    },
}


def write_decoder(
    folder: Path,
    kind: str = "qwen3",
    *,
    pooling: str = "lasttoken",
    normalize: bool = True,
    prompts: Mapping[str, str] | None = None,
    max_tokens: int = MAX_TOKENS,
    prefix: str = "",
    **changes: Any,
) -> Path:
    """Write a random one; prefix: of the tensors' names. Returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "model_type": kind,
        "vocab_size": VOCABULARY_SIZE,
        "hidden_size": HIDDEN,
        "intermediate_size": WIDE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "hidden_act": "silu",
        "max_position_embeddings": MAX_TOKENS,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        **CONFIGS[kind],
        **changes,
    }
    write_json(folder / "config.json", config)
    tensors = {f"{prefix}{name}": tensor for name, tensor in _tensors(config).items()}
    save_file(tensors, folder / "model.safetensors")
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "pad_token": END,
            "eos_token": END,
            "model_max_length": 131_072,
        },
    )
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_tokens})
    write_modules(folder, [TRANSFORMER, POOLING, *([NORMALIZE] if normalize else [])])
    flags = {flag: mode == pooling for mode, flag in FLAGS.items()}
    width = {"word_embedding_dimension": config["hidden_size"], "include_prompt": True}
    write_json(folder / "1_Pooling" / "config.json", width | flags)
    given = {"query": INSTRUCTION, "document": ""} if prompts is None else prompts
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": dict(given), "default_prompt_name": None},
    )
    return folder


def use_own_tokenizer(folder: Path, **config: Any) -> None:
    """Give a toy the tokenizer of gte-Qwen2, whose tokenizer.json puts nothing around a text."""
    built = byte_tokenizer()
    built.post_processor = processors.ByteLevel(trim_offsets=False)
    built.save(str(folder / "tokenizer.json"))
    code = ["tokenization_qwen.Qwen2Tokenizer", "tokenization_qwen.Qwen2TokenizerFast"]
    named = {"tokenizer_class": "Qwen2Tokenizer", "pad_token": END, "eos_token": END}
    ends = {"add_eos_token": True, "auto_map": {"AutoTokenizer": code}}
    write_json(folder / "tokenizer_config.json", named | ends | config)


def use_llama_tokenizer(folder: Path, **config: Any) -> None:
    """Give a toy the tokens of a Mistral, and a tokenizer.json that puts nothing around a text."""
    built = byte_tokenizer()
    built.add_special_tokens(["<s>", "</s>"])
    built.post_processor = processors.ByteLevel(trim_offsets=False)
    built.save(str(folder / "tokenizer.json"))
    named = {"tokenizer_class": "LlamaTokenizer", "pad_token": "</s>", "legacy": True}
    write_json(folder / "tokenizer_config.json", named | config)


def _tensors(config: dict[str, Any]) -> dict[str, Any]:
    kind, hidden, wide = (config[key] for key in ("model_type", "hidden_size", "intermediate_size"))
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    width = config.get("head_dim") or hidden // heads
    bias = kind == "qwen2" or bool(config.get("attention_bias"))
    output_bias, mlp_bias = bias and kind != "qwen2", bool(config.get("mlp_bias"))
    weights, narrow = Weights(5, hidden), Weights(6, width)
    weights.table("embed_tokens", config["vocab_size"])
    for index in range(config["num_hidden_layers"]):
        name = f"layers.{index}"
        for part, outputs in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            weights.linear(f"{name}.self_attn.{part}_proj", outputs * width, hidden, bias=bias)
        weights.linear(f"{name}.self_attn.o_proj", hidden, heads * width, bias=output_bias)
        for part in ("gate", "up"):
            weights.linear(f"{name}.mlp.{part}_proj", wide, hidden, bias=mlp_bias)
        weights.linear(f"{name}.mlp.down_proj", hidden, wide, bias=mlp_bias)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights.norm(f"{name}.{norm}", bias=False)
        if kind == "qwen3":
            for norm in ("q_norm", "k_norm"):
                narrow.norm(f"{name}.self_attn.{norm}", bias=False)
    weights.norm("norm", bias=False)
    return weights.tensors | narrow.tensors


def byte_tokenizer() -> Tokenizer:
    """Return a byte-level BPE with few merges that puts END behind every text, as Qwen3-Embedding's does."""
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    for first, second in MERGES:
        vocabulary[first + second] = len(vocabulary)
    built = byte_level(models.BPE(vocabulary, MERGES))
    built.add_special_tokens([END])
    template = processors.TemplateProcessing(
        single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, len(vocabulary))]
    )
    built.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return built


def byte_level(model: models.BPE) -> Tokenizer:
    """Return a byte-level BPE that normalises and splits texts as Qwen's does."""
    built = Tokenizer(model)
    built.normalizer = normalizers.NFC()
    built.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    built.decoder = decoders.ByteLevel()
    return built
