"""Layers of a weight and a bias that stay in float32: the shapes of their tensors, and how a graph computes them."""

from export.graph import GraphWriter
from export.source.tensors import Tensors


def affine_shapes(name: str, *weight: int) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of NAME.weight and NAME.bias, of a linear layer or a norm."""
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


def write_affine(
    graph: GraphWriter, rows: str, name: str, tensors: Tensors, output: str | None = None
) -> str:
    """Write rows @ NAME.weight + NAME.bias; returns the name of the result, by default NAME.result."""
    weight = graph.floats(f"{name}.weight", tensors[f"{name}.weight"].T)
    product = graph.node("MatMul", [rows, weight], f"{name}.product")
    bias = graph.floats(f"{name}.bias", tensors[f"{name}.bias"])
    return graph.node("Add", [product, bias], output or f"{name}.result")


def write_layer_norm(
    graph: GraphWriter, rows: str, name: str, tensors: Tensors, epsilon: float
) -> str:
    """Write the norm of the last axis, times NAME.weight, plus NAME.bias; returns NAME."""
    parts = [
        graph.floats(f"{name}.{part}", tensors[f"{name}.{part}"]) for part in ("weight", "bias")
    ]
    return graph.node("LayerNormalization", [rows, *parts], name, axis=-1, epsilon=epsilon)
