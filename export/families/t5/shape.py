"""Reads the config.json of a T5, and says which tensors its encoder needs.

The weights may hold a decoder too, which is not read.
"""

from dataclasses import dataclass

from export.families.activations import ACTIVATIONS, TANH_GELU, read_activation
from export.families.config import epsilon, n_layers, require
from export.families.relative_bias import FURTHEST, Buckets, read_buckets
from export.source.json_file import Json, check_aliases, size

WORDS, FINAL_NORM = "shared.weight", "encoder.final_layer_norm"
# Of the first layer; all others use it.
DISTANCE_BIAS = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
# A T5 has no positions and reads texts of any length. The tokenizer's limit is 512 in published models.
MOST_TOKENS = 8192
MOST_DISTANCE = 1_000_000
GATED = "gated-"
# Names in feed_forward_proj -> the activation. The gated Gelu is another one than the plain one.
FEED_FORWARD = {
    **ACTIVATIONS,
    **{f"{GATED}{name}": activation for name, activation in ACTIVATIONS.items()},
    f"{GATED}gelu": TANH_GELU,
}


@dataclass(frozen=True, slots=True)
class T5Shape:
    """The numbers of config.json that the graph depends on.

    head_width: of queries, keys and values; heads * head_width need not be `hidden`. is_gated: the
    feed-forward part is down(activation(gate) * up) instead of down(activation(up)).
    """

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    head_width: int
    intermediate: int
    epsilon: float
    activation: str
    is_gated: bool
    buckets: Buckets
    positions: int = MOST_TOKENS

    @property
    def inner(self) -> int:
        """The width of queries, keys and values, all heads together."""
        return self.heads * self.head_width

    def wide_parts(self) -> tuple[str, ...]:
        """Return the names of the linear layers that widen, the gate first."""
        return ("wi_0", "wi_1") if self.is_gated else ("wi",)

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return name -> shape of every tensor that the graph needs."""
        hidden, wide = self.hidden, self.intermediate
        shapes: dict[str, tuple[int, ...]] = {
            WORDS: (self.vocabulary, hidden),
            f"{FINAL_NORM}.weight": (hidden,),
            DISTANCE_BIAS: (self.buckets.number, self.heads),
        }
        for index in range(self.layers):
            attention, fed = (f"encoder.block.{index}.layer.{part}" for part in range(2))
            for part in "qkv":
                shapes[f"{attention}.SelfAttention.{part}.weight"] = (self.inner, hidden)
            shapes[f"{attention}.SelfAttention.o.weight"] = (hidden, self.inner)
            for part in self.wide_parts():
                shapes[f"{fed}.DenseReluDense.{part}.weight"] = (wide, hidden)
            shapes[f"{fed}.DenseReluDense.wo.weight"] = (hidden, wide)
            for name in (attention, fed):
                shapes[f"{name}.layer_norm.weight"] = (hidden,)
        return shapes


def tensor_name(stored: str) -> str:
    """Return a tensor's name; the encoder's table of words is the one that it shares with the decoder."""
    return WORDS if stored == "encoder.embed_tokens.weight" else stored


def read_t5(config: Json) -> T5Shape:
    """Return the network's numbers; raises an ExportError for what the graph cannot honour."""
    check_aliases(
        config,
        hidden_size="d_model",
        num_hidden_layers="num_layers",
        num_attention_heads="num_heads",
        head_dim="d_kv",
    )
    key = "feed_forward_proj"
    named = str({key: "relu", **config}[key])
    activation = read_activation({key: named}, key, FEED_FORWARD)
    is_gated = named.startswith(GATED)
    # What transformers makes of `feed_forward_proj`, and may have written beside it.
    plain = "gelu_new" if named == f"{GATED}gelu" else named.removeprefix(GATED)
    require(config, is_gated_act=is_gated, dense_act_fn=plain)
    furthest = size(config, "relative_attention_max_distance", FURTHEST, most=MOST_DISTANCE)
    return T5Shape(
        vocabulary=size(config, "vocab_size"),
        hidden=size(config, "d_model"),
        layers=n_layers(config, "num_layers"),
        heads=size(config, "num_heads"),
        head_width=size(config, "d_kv", 64),
        intermediate=size(config, "d_ff"),
        epsilon=epsilon(config, "layer_norm_epsilon", 1e-6),
        activation=activation,
        is_gated=is_gated,
        buckets=read_buckets(config, furthest),
    )
