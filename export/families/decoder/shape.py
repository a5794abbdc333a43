"""Reads the config.json of a decoder, and says which tensors its weights must have.

Qwen3, Qwen2, Mistral and Llama are one network: RMS norms, rotary positions, queries that share keys and
values, and a gated feed-forward layer. They differ in biases, in norms of queries and keys, and in windows.
"""

from dataclasses import dataclass

from export.errors import ShapeMismatch, UnsupportedModel
from export.families.config import (
    LOCAL,
    check_heads,
    epsilon,
    layer_kinds,
    n_layers,
    require,
    theta,
)
from export.families.decoder.head import AnswerRows, ScoreRow
from export.kinds.own_code import attends_both_ways
from export.source.json_file import Json, boolean, size

# ONNX Runtime's attention takes heads of so many channels, and of multiples of it.
HEAD_STEP = 16
WORDS, FINAL_NORM = "embed_tokens.weight", "norm.weight"


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """The numbers of config.json that the graph depends on.

    kv_heads: of keys and values; each serves heads / kv_heads of the queries. windows: for each layer how
    many tokens a token attends to, itself included; None for all before it. query_bias, output_bias: of the
    linear layers around attention. head_norms: queries and keys have a norm of their own. head: what makes
    a score of the last token's row; None for a network that gives vectors.
    both_ways: a token attends to those after it too; there are no windows then.
    """

    vocabulary: int
    hidden: int
    heads: int
    kv_heads: int
    head_width: int
    intermediate: int
    positions: int
    theta: float
    epsilon: float
    windows: tuple[int | None, ...]
    query_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    head_norms: bool = False
    head: ScoreRow | AnswerRows | None = None
    both_ways: bool = False

    @property
    def layers(self) -> int:
        return len(self.windows)

    @property
    def query_width(self) -> int:
        return self.heads * self.head_width

    @property
    def key_width(self) -> int:
        return self.kv_heads * self.head_width

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return name -> shape of every tensor that the graph needs."""
        hidden, wide, narrow = self.hidden, self.intermediate, self.key_width
        shapes: dict[str, tuple[int, ...]] = {
            WORDS: (self.vocabulary, hidden),
            FINAL_NORM: (hidden,),
        }
        if self.head is not None:
            shapes |= self.head.tensors(self.vocabulary, hidden)
        for index in range(self.layers):
            name = f"layers.{index}"
            linears = (
                ("self_attn.q_proj", self.query_width, hidden, self.query_bias),
                ("self_attn.k_proj", narrow, hidden, self.query_bias),
                ("self_attn.v_proj", narrow, hidden, self.query_bias),
                ("self_attn.o_proj", hidden, self.query_width, self.output_bias),
                ("mlp.gate_proj", wide, hidden, self.mlp_bias),
                ("mlp.up_proj", wide, hidden, self.mlp_bias),
                ("mlp.down_proj", hidden, wide, self.mlp_bias),
            )
            for part, outputs, inputs, bias in linears:
                shapes[f"{name}.{part}.weight"] = (outputs, inputs)
                if bias:
                    shapes[f"{name}.{part}.bias"] = (outputs,)
            for norm in ("input_layernorm", "post_attention_layernorm"):
                shapes[f"{name}.{norm}.weight"] = (hidden,)
            if self.head_norms:
                for norm in ("q_norm", "k_norm"):
                    shapes[f"{name}.self_attn.{norm}.weight"] = (self.head_width,)
        return shapes


def tensor_name(stored: str) -> str:
    """Return a tensor's name without the prefix of a model that writes text."""
    return stored.removeprefix("model.")


def read_qwen3(config: Json) -> DecoderShape:
    """Return the network's numbers; raises an ExportError for what the graph cannot honour."""
    bias = boolean("config.json", config, "attention_bias", default=False)
    width = size(config, "head_dim", 128)
    return _shape(
        config,
        width,
        _qwen_windows(config),
        query_bias=bias,
        output_bias=bias,
        head_norms=True,
    )


def read_qwen2(config: Json) -> DecoderShape:
    """Return the numbers of a Qwen2, whose queries, keys and values always have a bias."""
    return _shape(config, _head_width(config), _qwen_windows(config), query_bias=True)


def read_mistral(config: Json) -> DecoderShape:
    """Return the numbers of a Mistral, all of whose layers may have a window."""
    window = None
    # A key that is missing has the default of transformers; null means no window.
    if config.get("sliding_window", 4096) is not None:
        window = size(config, "sliding_window", 4096)
    return _shape(config, _head_width(config), (window,) * n_layers(config))


def read_llama(config: Json) -> DecoderShape:
    """Return the numbers of a Llama."""
    bias = boolean("config.json", config, "attention_bias", default=False)
    return _shape(
        config,
        _head_width(config),
        (None,) * n_layers(config),
        query_bias=bias,
        output_bias=bias,
        mlp_bias=boolean("config.json", config, "mlp_bias", default=False),
    )


def _shape(
    config: Json,
    head_width: int,
    windows: tuple[int | None, ...],
    *,
    query_bias: bool = False,
    output_bias: bool = False,
    mlp_bias: bool = False,
    head_norms: bool = False,
) -> DecoderShape:
    require({"hidden_act": "silu", **config}, hidden_act="silu")
    both_ways = _both_ways(config)
    heads = size(config, "num_attention_heads")
    shape = DecoderShape(
        vocabulary=size(config, "vocab_size"),
        hidden=size(config, "hidden_size"),
        heads=heads,
        kv_heads=size(config, "num_key_value_heads", heads),
        head_width=head_width,
        intermediate=size(config, "intermediate_size"),
        positions=size(config, "max_position_embeddings"),
        theta=_theta(config),
        epsilon=epsilon(config, "rms_norm_eps", 1e-6),
        windows=(None,) * len(windows) if both_ways else windows,
        query_bias=query_bias,
        output_bias=output_bias,
        mlp_bias=mlp_bias,
        head_norms=head_norms,
        both_ways=both_ways,
    )
    if heads % shape.kv_heads:
        raise ShapeMismatch(
            "num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}",
            heads=heads,
            kv_heads=shape.kv_heads,
        )
    if head_width % HEAD_STEP:
        raise UnsupportedModel(
            "heads of {width} channels are not written directly, only of multiples of {step}; try --via "
            "optimum",
            width=head_width,
            step=HEAD_STEP,
        )
    return shape


def _both_ways(config: Json) -> bool:
    """Return whether tokens attend in both directions; refuses what does not say it clearly."""
    model_type = str(config.get("model_type"))
    causal = boolean("config.json", config, "is_causal", default=True)
    both_ways = attends_both_ways(config, model_type)
    if not causal and not both_ways:
        raise UnsupportedModel(
            "is_causal: false asks for attention in both directions, which transformers 4 leaves out and "
            "transformers 5 does; it is written for GritLM-7B and gte-Qwen2 only, whose own code says which"
        )
    if both_ways and config.get("use_sliding_window"):
        raise UnsupportedModel(
            "use_sliding_window is not written with attention in both directions"
        )
    return both_ways


def _head_width(config: Json) -> int:
    if config.get("head_dim") is not None:
        return size(config, "head_dim")
    hidden, heads = size(config, "hidden_size"), size(config, "num_attention_heads")
    check_heads("hidden_size", hidden, heads)
    return hidden // heads


def _qwen_windows(config: Json) -> tuple[int | None, ...]:
    """Return the window of each layer; without use_sliding_window there are none."""
    layers = n_layers(config)
    slides = boolean("config.json", config, "use_sliding_window", default=False)
    kinds = layer_kinds(
        config,
        layers,
        lambda index: index >= size(config, "max_window_layers", 28, least=0) and slides,
    )
    if LOCAL in kinds:
        require({"use_sliding_window": False, **config}, use_sliding_window=True)
    window = size(config, "sliding_window", 4096) if slides else None
    return tuple(window if kind == LOCAL else None for kind in kinds)


def _theta(config: Json) -> float:
    """Return the base of the rotary frequencies; refuses positions that are scaled for longer texts."""
    # Newer files have one object for both.
    parameters, scaling = config.get("rope_parameters"), config.get("rope_scaling")
    given = scaling if parameters is None else parameters
    if given is None:
        return theta(config, "rope_theta", 10_000.0)
    kind = given.get("rope_type", given.get("type")) if isinstance(given, dict) else given
    if kind not in (None, "default"):
        raise UnsupportedModel(
            'rope_type "{kind}" is not written directly, only "default"; try --via optimum',
            kind=str(kind)[:80],
        )
    return theta(config if parameters is None else parameters, "rope_theta", 10_000.0)
