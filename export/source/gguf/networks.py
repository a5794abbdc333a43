"""The architectures of GGUF that are read: their settings as config.json, and the names of their tensors.

A GGUF file holds the numbers of the checkpoint that it was made from. llama.cpp permutes the rotary weights of
Llama and Mistral, so these are not read; those of Qwen3 and nomic-bert stay.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from export.errors import CorruptFile, UnsupportedModel
from export.source.gguf.header import Header
from export.source.gguf.tensors import Names
from export.source.json_file import is_number, shown

# No number of a network is near this.
MOST = 1e15
# Settings of an architecture that no vector depends on.
IGNORED = ("vocab_size", "classifier.output_labels")
# The poolings that are read, by their number: the flags by which sentence-transformers names them.
POOLINGS = {
    1: "pooling_mode_mean_tokens",
    2: "pooling_mode_cls_token",
    3: "pooling_mode_lasttoken",
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """How an architecture is read. causal: what its attention must be. config: makes config.json."""

    names: Names
    causal: bool
    config: Callable[["Numbers"], dict[str, Any]]


class Numbers:
    """The settings of a file's architecture. It remembers which of them have been read."""

    def __init__(self, header: Header, architecture: str) -> None:
        self._header = header
        self._architecture = architecture
        self._read = {f"{architecture}.{key}" for key in IGNORED}

    def get(self, key: str, default: Any = None) -> Any:
        key = f"{self._architecture}.{key}"
        self._read.add(key)
        return self._header.settings.get(key, default)

    def check_all_read(self) -> None:
        """Refuse a setting that nothing has read: it may change what the network computes.

        One that is 0 or false switches nothing on.
        """
        for key, value in self._header.settings.items():
            if key.startswith(f"{self._architecture}.") and key not in self._read and value:
                raise UnsupportedModel(
                    "GGUF: the setting {key} ({shown}) is not read, and vectors may depend on it; export the "
                    "model that the file was made from",
                    key=key[:80],
                    shown=shown(value),
                )

    def check_is(self, key: str, expected: float) -> None:
        """Refuse another value of a setting that may be left out."""
        found = self.number(key, expected)
        if found != expected:
            raise UnsupportedModel(
                "GGUF: {key} is {shown}, and only {expected} is read; export the model that the file was made "
                "from",
                key=f"{self._architecture}.{key}",
                shown=shown(found),
                expected=expected,
            )

    def number(self, key: str, default: float | None = None) -> Any:
        """Return a number; raises CorruptFile for anything else."""
        value = self.get(key, default)
        if not is_number(value) or not abs(value) < MOST:
            raise CorruptFile(
                "GGUF: {key} is {shown}, not a number",
                key=f"{self._architecture}.{key}",
                shown=shown(value),
            )
        return value

    def epsilon(self, key: str) -> float:
        """Return a small number; it is stored in float32, so that 1e-12 comes back with other digits."""
        return float(f"{self.number(key):.6g}")

    def rows(self, name: str) -> int:
        """Return the rows of a tensor, 0 where it is missing."""
        found = self._header.tensors.get(name)
        return found.shape[0] if found is not None and len(found.shape) == 2 else 0

    def check_positions(self, head: float) -> None:
        """Refuse rotary positions that are scaled, or are not of whole heads. head: numbers of a head."""
        self.check_is("rope.dimension_count", head)
        # Where the kind of scaling is left out, llama.cpp takes linear.
        scaling = self.get("rope.scaling.type", "linear")
        older = self.get("rope.scale_linear", 1.0)
        factor = self.get("rope.scaling.factor", older)
        if scaling != "none" and factor not in (0.0, 1.0):
            raise UnsupportedModel(
                "GGUF: rotary positions scaled by {kind} are not read; export the model that the file was "
                "made from",
                kind=str(scaling)[:40],
            )


def _bert(numbers: Numbers) -> dict[str, Any]:
    # Of XLM-R the rows before the first text's were taken off, so it is a BERT.
    rows = numbers.rows("position_embd.weight")
    return {
        "model_type": "bert",
        "hidden_size": numbers.number("embedding_length"),
        "num_hidden_layers": numbers.number("block_count"),
        "num_attention_heads": numbers.number("attention.head_count"),
        "intermediate_size": numbers.number("feed_forward_length"),
        "max_position_embeddings": rows,
        "type_vocab_size": numbers.rows("token_types.weight"),
        "layer_norm_eps": numbers.epsilon("attention.layer_norm_epsilon"),
        "hidden_act": "gelu",
    }


def _nomic(numbers: Numbers) -> dict[str, Any]:
    hidden, heads = numbers.number("embedding_length"), numbers.number("attention.head_count")
    numbers.check_positions(hidden / max(heads, 1))
    return {
        "model_type": "nomic_bert",
        "n_embd": hidden,
        "n_layer": numbers.number("block_count"),
        "n_head": heads,
        "n_inner": numbers.number("feed_forward_length"),
        "n_positions": numbers.number("context_length"),
        "type_vocab_size": numbers.rows("token_types.weight"),
        "layer_norm_epsilon": numbers.epsilon("attention.layer_norm_epsilon"),
        "activation_function": "swiglu",
        "rotary_emb_base": numbers.number("rope.freq_base", 10_000.0),
        "rotary_emb_fraction": 1.0,
        "qkv_proj_bias": False,
        "mlp_fc1_bias": False,
        "mlp_fc2_bias": False,
        "num_experts": numbers.get("expert_count") or None,
    }


def _qwen3(numbers: Numbers) -> dict[str, Any]:
    head = numbers.number("attention.key_length")
    numbers.check_is("attention.value_length", head)
    numbers.check_positions(head)
    return {
        "model_type": "qwen3",
        "hidden_size": numbers.number("embedding_length"),
        "num_hidden_layers": numbers.number("block_count"),
        "num_attention_heads": numbers.number("attention.head_count"),
        "num_key_value_heads": numbers.number("attention.head_count_kv"),
        "head_dim": head,
        "intermediate_size": numbers.number("feed_forward_length"),
        "max_position_embeddings": numbers.number("context_length"),
        "rms_norm_eps": numbers.epsilon("attention.layer_norm_rms_epsilon"),
        "rope_theta": numbers.number("rope.freq_base", 10_000.0),
        "hidden_act": "silu",
    }


BERT_EMBEDDINGS = {
    "token_embd": "embeddings.word_embeddings",
    "position_embd": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "token_embd_norm": "embeddings.LayerNorm",
}
ARCHITECTURES: Mapping[str, Architecture] = {
    "bert": Architecture(
        Names(
            BERT_EMBEDDINGS,
            "encoder.layer",
            {
                "attn_q": "attention.self.query",
                "attn_k": "attention.self.key",
                "attn_v": "attention.self.value",
                "attn_output": "attention.output.dense",
                "attn_output_norm": "attention.output.LayerNorm",
                "ffn_up": "intermediate.dense",
                "ffn_down": "output.dense",
                "layer_output_norm": "output.LayerNorm",
            },
        ),
        causal=False,
        config=_bert,
    ),
    "nomic-bert": Architecture(
        Names(
            BERT_EMBEDDINGS | {"token_embd_norm": "emb_ln"},
            "encoder.layers",
            {
                "attn_qkv": "attn.Wqkv",
                "attn_output": "attn.out_proj",
                "attn_output_norm": "norm1",
                "ffn_up": "mlp.fc11",
                "ffn_gate": "mlp.fc12",
                "ffn_down": "mlp.fc2",
                "layer_output_norm": "norm2",
            },
        ),
        causal=False,
        config=_nomic,
    ),
    "qwen3": Architecture(
        Names(
            {"token_embd": "embed_tokens", "output_norm": "norm"},
            "layers",
            {
                "attn_norm": "input_layernorm",
                "ffn_norm": "post_attention_layernorm",
                **{f"attn_{part}": f"self_attn.{part}_proj" for part in "qkv"},
                "attn_output": "self_attn.o_proj",
                "attn_q_norm": "self_attn.q_norm",
                "attn_k_norm": "self_attn.k_norm",
                **{f"ffn_{part}": f"mlp.{part}_proj" for part in ("gate", "up", "down")},
            },
        ),
        causal=True,
        config=_qwen3,
    ),
}


def architecture_of(header: Header) -> tuple[str, Architecture]:
    """Return the architecture of a file; raises UnsupportedModel for one that is not read."""
    settings = header.settings
    kind, name = settings.get("general.type", "model"), str(settings.get("general.architecture"))
    if kind != "model":
        raise UnsupportedModel(
            "GGUF: the file is of the type {kind}, not a whole model; export the model that it was made from",
            kind=str(kind)[:40],
        )
    if settings.get("split.count", 0) not in (0, 1):
        raise UnsupportedModel(
            "GGUF: the file is one of {parts} parts; put them together with llama-gguf-split --merge, and "
            "export the result",
            parts=shown(settings["split.count"]),
        )
    if name not in ARCHITECTURES:
        raise UnsupportedModel(
            "GGUF: the architecture {shown} is not read, only {known}; export the model that the file was "
            "made from",
            shown=shown(name[:80]),
            known=tuple(ARCHITECTURES),
        )
    return name, ARCHITECTURES[name]


def check_causal(numbers: Numbers, name: str) -> None:
    """Refuse attention in another direction than that of the architecture."""
    expected = ARCHITECTURES[name].causal
    causal = numbers.get("attention.causal", expected)
    if causal is not expected:
        raise UnsupportedModel(
            "GGUF: attention.causal {shown} is not read for {name}; export the model that the file was made "
            "from",
            shown=shown(causal),
            name=name,
        )


def pooling_of(numbers: Numbers) -> dict[str, bool]:
    """Return the settings of the pooling as sentence-transformers writes them; raises UnsupportedModel."""
    stated = numbers.get("pooling_type")
    if not isinstance(stated, int) or isinstance(stated, bool) or stated not in POOLINGS:
        raise UnsupportedModel(
            "GGUF: pooling_type {shown} gives no vector for a text; 1 (mean), 2 (cls) and 3 (last token) are "
            "read: export the model that the file was made from",
            shown=shown(stated),
        )
    return {flag: number == stated for number, flag in POOLINGS.items()}
