"""Reads the config.json of a BERT, and says which tensors its weights must have."""

from dataclasses import dataclass

from export.errors import CorruptFile, ShapeMismatch, UnsupportedModel
from export.source.json_file import Json, is_number, shown, size

# config.json's hidden_act -> the operator it names; the two kinds of Gelu differ in `approximate`.
EXACT_GELU, TANH_GELU, RELU = "gelu", "gelu_tanh", "relu"
ACTIVATIONS = {
    "gelu": EXACT_GELU,
    "gelu_python": EXACT_GELU,
    "gelu_new": TANH_GELU,
    "gelu_fast": TANH_GELU,
    "gelu_pytorch_tanh": TANH_GELU,
    "relu": RELU,
}
# No BERT is near this. It refuses a damaged number before memory runs out.
MOST_LAYERS = 1_000


@dataclass(frozen=True, slots=True)
class BertShape:
    """The numbers of config.json that the graph depends on."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    positions: int
    token_types: int
    layer_norm_epsilon: float
    activation: str

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return name -> shape of every tensor that the graph needs."""
        hidden, wide = self.hidden, self.intermediate
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings.word_embeddings.weight": (self.vocabulary, hidden),
            "embeddings.position_embeddings.weight": (self.positions, hidden),
            "embeddings.token_type_embeddings.weight": (self.token_types, hidden),
            **_affine("embeddings.LayerNorm", hidden),
        }
        for index in range(self.layers):
            prefix = f"encoder.layer.{index}."
            for name in ("query", "key", "value"):
                shapes |= _affine(f"{prefix}attention.self.{name}", hidden, hidden)
            shapes |= _affine(f"{prefix}attention.output.dense", hidden, hidden)
            shapes |= _affine(f"{prefix}attention.output.LayerNorm", hidden)
            shapes |= _affine(f"{prefix}intermediate.dense", wide, hidden)
            shapes |= _affine(f"{prefix}output.dense", hidden, wide)
            shapes |= _affine(f"{prefix}output.LayerNorm", hidden)
        return shapes


def _affine(name: str, *weight: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


def read_shape(config: Json) -> BertShape:
    """Return the network's numbers; raises an ExportError for what the graph cannot honour."""
    position_type = config.get("position_embedding_type", "absolute")
    if position_type != "absolute":
        raise UnsupportedModel(
            'position_embedding_type "{position_type}" is not "absolute"; try --via optimum',
            position_type=str(position_type)[:80],
        )
    if config.get("is_decoder"):
        raise UnsupportedModel(
            "is_decoder: true asks for attention to earlier tokens only; try --via optimum"
        )
    activation = str(config.get("hidden_act", "gelu"))
    if activation not in ACTIVATIONS:
        raise UnsupportedModel(
            'hidden_act "{activation}" is not one of {known}; try --via optimum',
            activation=activation[:80],
            known=", ".join(ACTIVATIONS),
        )
    shape = BertShape(
        vocabulary=size(config, "vocab_size"),
        hidden=size(config, "hidden_size"),
        layers=size(config, "num_hidden_layers", most=MOST_LAYERS),
        heads=size(config, "num_attention_heads"),
        intermediate=size(config, "intermediate_size"),
        positions=size(config, "max_position_embeddings"),
        token_types=size(config, "type_vocab_size", 2),
        layer_norm_epsilon=_layer_norm_epsilon(config),
        activation=ACTIVATIONS[activation],
    )
    if shape.hidden % shape.heads:
        raise ShapeMismatch(
            "hidden_size {hidden} cannot be split into {heads} heads",
            hidden=shape.hidden,
            heads=shape.heads,
        )
    return shape


def _layer_norm_epsilon(config: Json) -> float:
    value = config.get("layer_norm_eps", 1e-12)
    # Written so that NaN, which Python reads from JSON, is refused.
    if not is_number(value) or not 0 <= value < 1:
        raise CorruptFile(
            "config.json: layer_norm_eps is {shown}, not a number from 0 to below 1",
            shown=shown(value),
        )
    return float(value)
