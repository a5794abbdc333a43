"""The activations of feed-forward layers: their names in config.json, and how a graph computes each."""

from collections.abc import Mapping

from export.errors import UnsupportedModel
from export.graph import CONTRIB, GraphWriter
from export.source.json_file import Json

# The two kinds of Gelu differ in `approximate`.
EXACT_GELU, TANH_GELU, RELU, SILU, SIGMOID = "gelu", "gelu_tanh", "relu", "silu", "sigmoid"
# Names in config.json -> what they mean.
ACTIVATIONS = {
    "gelu": EXACT_GELU,
    "gelu_python": EXACT_GELU,
    "gelu_new": TANH_GELU,
    "gelu_fast": TANH_GELU,
    "gelu_pytorch_tanh": TANH_GELU,
    "relu": RELU,
    "silu": SILU,
    "swish": SILU,
}


def read_activation(config: Json, key: str, known: Mapping[str, str] = ACTIVATIONS) -> str:
    """Return the activation that a key of config.json names, Gelu where it names none."""
    activation = str(config.get(key, "gelu"))
    if activation not in known:
        raise UnsupportedModel(
            '{key} "{activation}" is not one of {known}; try --via optimum',
            key=key,
            activation=activation[:80],
            known=", ".join(known),
        )
    return known[activation]


def write_activation(graph: GraphWriter, activation: str, tensor: str, name: str) -> str:
    """Write an activation of every number of a tensor; returns the name of the result."""
    if activation == RELU:
        return graph.node("Relu", [tensor], name)
    if activation == SIGMOID:
        return graph.node("Sigmoid", [tensor], name)
    if activation == SILU:
        return graph.node("QuickGelu", [tensor], name, CONTRIB, alpha=1.0)
    approximate = "tanh" if activation == TANH_GELU else "none"
    return graph.node("Gelu", [tensor], name, approximate=approximate)
