"""The RMS norm of decoders and T5: a row is divided by the root of its mean square."""

from export.graph import GraphWriter
from export.source.tensors import FloatArray


def write_rms_norm(
    graph: GraphWriter, tensor: str, name: str, factors: FloatArray, epsilon: float
) -> str:
    """Write the norm of the last axis, which subtracts no average; factors: of the channels."""
    # ONNX Runtime makes one operator of these, which ONNX has only in later versions.
    squares = graph.node("Pow", [tensor, graph.floats("norm.power", 2.0)], f"{name}.squares")
    axis = graph.integers("last_axis", [-1])
    mean = graph.node("ReduceMean", [squares, axis], f"{name}.mean", keepdims=1)
    added = graph.floats("norm.epsilon", epsilon)
    root = graph.node("Sqrt", [graph.node("Add", [mean, added], f"{name}.sum")], f"{name}.root")
    normed = graph.node("Div", [tensor, root], f"{name}.normed")
    return graph.node("Mul", [normed, graph.floats(f"{name}.weight", factors)], name)
