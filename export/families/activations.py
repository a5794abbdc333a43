"""The activations of feed-forward layers: their names in config.json, and how a graph computes each."""

from export.graph import CONTRIB, GraphWriter

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
