"""The numbers of published models, as their config.json states them; extend PUBLISHED for another one.

The keys are those that `export.families` reads. Random weights of these shapes cost what the real ones do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from export.known.recognition import LAYERS

Config = Mapping[str, Any]
SCORE = "score"
# Small enough for torch in little memory, large enough for the tokenizer's characters.
SMALL_LAYERS, SMALL_VOCABULARY, SMALL_TOKENS = 2, 24_000, 512


@dataclass(frozen=True, slots=True)
class Published:
    """A published model without its weights.

    pooling: "cls", "mean" or "lasttoken"; SCORE for a model that scores pairs. max_tokens: of the longest text.
    prefix: of its tensors' names in files. in_transformers: whether transformers reads it without code of its own.
    """

    name: str
    config: Config
    pooling: str
    max_tokens: int
    prefix: str = ""
    in_transformers: bool = True

    @property
    def vocabulary(self) -> int:
        return int(self.config["vocab_size"])

    def smaller(self) -> "Published":
        """Return the same widths with few layers and words, for a comparison with torch."""
        layers = next(key for key in LAYERS if key in self.config)
        changed = {layers: SMALL_LAYERS, "vocab_size": min(self.vocabulary, SMALL_VOCABULARY)}
        shorter = min(self.max_tokens, SMALL_TOKENS)
        return replace(self, config={**self.config, **changed}, max_tokens=shorter)


def _bert(vocabulary: int, layers: int, hidden: int, heads: int, **other: Any) -> Config:
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
        "hidden_act": "gelu",
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 1,
        **other,
    }


def _xlm_roberta(layers: int, hidden: int, heads: int, positions: int, **other: Any) -> Config:
    """Return the config of an XLM-R; positions: of the longest text."""
    names = {"architectures": ["XLMRobertaModel"], "model_type": "xlm-roberta"}
    sizes = {"max_position_embeddings": positions + 2, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    return _bert(250_002, layers, hidden, heads, **{**names, **sizes, **other})


def _gte(vocabulary: int, theta: float, factor: float, token_types: int) -> Config:
    """Return the config of gte-v1.5, whose code transformers does not have."""
    return _bert(
        *(vocabulary, 12, 768, 12),
        architectures=["NewModel"],
        model_type="new",
        max_position_embeddings=8192,
        type_vocab_size=token_types,
        position_embedding_type="rope",
        layer_norm_type="layer_norm",
        rope_theta=theta,
        rope_scaling={"type": "ntk", "factor": factor},
        pack_qkv=True,
    )


# A head with one label.
ONE_LABEL = {
    "architectures": ["XLMRobertaForSequenceClassification"],
    "id2label": {"0": "LABEL_0"},
    "label2id": {"LABEL_0": 0},
}
DISTILBERT = {
    "architectures": ["DistilBertModel"],
    "model_type": "distilbert",
    "vocab_size": 30_522,
    "dim": 768,
    "n_layers": 6,
    "n_heads": 12,
    "hidden_dim": 3072,
    "activation": "gelu",
    "max_position_embeddings": 512,
    "pad_token_id": 1,
}
MODERNBERT = {
    "architectures": ["ModernBertModel"],
    "model_type": "modernbert",
    "vocab_size": 50_368,
    "hidden_size": 768,
    "intermediate_size": 1152,
    "num_hidden_layers": 22,
    "num_attention_heads": 12,
    "hidden_activation": "gelu",
    "max_position_embeddings": 8192,
    "norm_eps": 1e-5,
    "norm_bias": False,
    "attention_bias": False,
    "mlp_bias": False,
    "global_attn_every_n_layers": 3,
    "local_attention": 128,
    "global_rope_theta": 160_000.0,
    "local_rope_theta": 10_000.0,
    "pad_token_id": 1,
    "cls_token_id": 0,
    "sep_token_id": 2,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
NOMIC = {
    "architectures": ["NomicBertModel"],
    "model_type": "nomic_bert",
    "vocab_size": 30_528,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": 3072,
    "n_positions": 8192,
    "type_vocab_size": 2,
    "activation_function": "swiglu",
    "layer_norm_epsilon": 1e-12,
    "qkv_proj_bias": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_base": 1000,
}
JINA = _bert(
    *(61_056, 12, 768, 12),
    position_embedding_type="alibi",
    feed_forward_type="geglu",
    max_position_embeddings=8192,
    # Its code has norms of queries and keys; it is named here and never run.
    _name_or_path="jinaai/jina-bert-v2-qk-post-norm",
)
QWEN3 = {
    "architectures": ["Qwen3Model"],
    "model_type": "qwen3",
    "vocab_size": 151_669,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000,
    "max_position_embeddings": 32_768,
    "attention_bias": False,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
}
MPNET = {
    "architectures": ["MPNetModel"],
    "model_type": "mpnet",
    "vocab_size": 30_527,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 514,
    "relative_attention_num_buckets": 32,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
}
# The encoder of sentence-t5-base and gtr-t5-base, whose Dense layer behind the pooling costs nothing.
T5 = {
    "architectures": ["T5EncoderModel"],
    "model_type": "t5",
    "vocab_size": 32_128,
    "d_model": 768,
    "d_kv": 64,
    "d_ff": 3072,
    "num_layers": 12,
    "num_heads": 12,
    "relative_attention_num_buckets": 32,
    "feed_forward_proj": "relu",
    "layer_norm_epsilon": 1e-6,
    "pad_token_id": 1,
    "eos_token_id": 2,
}
ERNIE = _bert(
    *(40_000, 12, 768, 12),
    architectures=["ErnieModel"],
    model_type="ernie",
    max_position_embeddings=2048,
    type_vocab_size=4,
    task_type_vocab_size=3,
    use_task_id=True,
)

PUBLISHED = (
    Published("all-MiniLM-L6-v2", _bert(30_522, 6, 384, 12), "mean", 256),
    Published("bge-small-zh-v1.5", _bert(21_128, 4, 512, 8), "cls", 512),
    Published("bge-base-zh-v1.5", _bert(21_128, 12, 768, 12), "cls", 512),
    Published("bge-large-zh-v1.5", _bert(21_128, 24, 1024, 16), "cls", 512),
    Published("multilingual-e5-small", _bert(250_037, 12, 384, 12), "mean", 512),
    Published("bge-m3", _xlm_roberta(24, 1024, 16, 8192), "cls", 8192),
    Published("distilbert-base", DISTILBERT, "mean", 512),
    Published("all-mpnet-base-v2", MPNET, "mean", 384),
    Published("t5-base", T5, "mean", 512),
    Published("ernie-3.0-base-zh", ERNIE, "cls", 2048),
    Published("gte-modernbert-base", MODERNBERT, "cls", 8192),
    Published("nomic-embed-text-v1.5", NOMIC, "mean", 8192, in_transformers=False),
    Published("gte-base-en-v1.5", _gte(30_528, 5e5, 2.0, 0), "cls", 8192, in_transformers=False),
    Published(
        "gte-multilingual-base", _gte(250_048, 2e4, 8.0, 1), "cls", 8192, in_transformers=False
    ),
    Published("jina-embeddings-v2-base-zh", JINA, "mean", 8192, in_transformers=False),
    Published("Qwen3-Embedding-0.6B", QWEN3, "lasttoken", 32_768),
    Published(
        "bge-reranker-base", _xlm_roberta(12, 768, 12, 512, **ONE_LABEL), SCORE, 512, "roberta."
    ),
    Published(
        "bge-reranker-v2-m3", _xlm_roberta(24, 1024, 16, 8192, **ONE_LABEL), SCORE, 8192, "roberta."
    ),
)
BY_NAME = {each.name: each for each in PUBLISHED}
