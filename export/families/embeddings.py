"""The word embeddings of any encoder: a row of a table a token, in float32 or in int8."""

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from export.graph import GraphWriter
from export.source.tensors import FloatArray
from server.inference.encoder import INPUT_IDS


def write_words(
    graph: GraphWriter, table: FloatArray, name: str, *, int8: bool, ids: str = INPUT_IDS
) -> str:
    """Return the name of the rows of `table` that the token ids choose, float32 (B, T, D).

    ids: int64 (B, T), the ids of the batch unless others are given.
    """
    if not int8:
        return graph.node("Gather", [graph.floats(f"{name}.float", table), ids], name)
    owner = name.rpartition(".")[0]
    rows, scale = quantize_rows(table)
    # GatherBlockQuantized would be one node, but took twice as long at 256 tokens.
    row = graph.node("Gather", [graph.constant(f"{name}.int8", rows), ids], f"{owner}.rows")
    row = graph.node("Cast", [row], f"{owner}.rows_float", to=TensorProto.FLOAT)
    scales = graph.floats(f"{name}.scale", scale)
    return graph.node(
        "Mul", [row, graph.node("Gather", [scales, ids], f"{owner}.rows_scale")], name
    )


def quantize_rows(table: FloatArray) -> tuple[npt.NDArray[np.int8], FloatArray]:
    """Return the table in int8 with one scale a row: float32 (V, D) -> int8 (V, D), float32 (V, 1)."""
    scale = np.abs(table).max(axis=1, keepdims=True) / np.float32(127)
    scale[scale == 0] = 1
    return np.rint(table / scale).astype(np.int8), scale
