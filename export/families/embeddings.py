"""The word embeddings of any encoder: a row of a table a token, in float32 or in int8."""

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from export.graph import GraphWriter
from export.source.tensors import FloatArray, in_parts
from server.inference.encoder import INPUT_IDS


def write_words(
    graph: GraphWriter, table: FloatArray, name: str, *, int8: bool, ids: str = INPUT_IDS
) -> str:
    """Return the name of the rows of `table` that the token ids choose, float32 (B, T, D).

    ids: int64 (B, T), the ids of the batch unless others are given.
    """
    if not int8:
        return graph.node("Gather", [graph.floats(f"{name}.float", table), ids], name)
    owner, numbers, scales = name.rpartition(".")[0], f"{name}.int8", f"{name}.scale"
    if not graph.has_constant(numbers):
        rows, scale = quantize_rows(table)
        graph.constant(numbers, rows)
        graph.floats(scales, scale)
    # GatherBlockQuantized would be one node, but took twice as long at 256 tokens.
    row = graph.node("Gather", [numbers, ids], f"{owner}.rows")
    row = graph.node("Cast", [row], f"{owner}.rows_float", to=TensorProto.FLOAT)
    return graph.node(
        "Mul", [row, graph.node("Gather", [scales, ids], f"{owner}.rows_scale")], name
    )


def quantize_rows(table: FloatArray) -> tuple[npt.NDArray[np.int8], FloatArray]:
    """Return the table in int8 with one scale a row: float32 (V, D) -> int8 (V, D), float32 (V, 1)."""
    rows = np.empty(table.shape, np.int8)
    scale = np.empty((len(table), 1), np.float32)
    first = 0
    # In parts: a table of 250,000 words has a gigabyte, and each step would make a copy of it.
    for part in in_parts(table):
        last = first + len(part)
        each = np.abs(part).max(axis=1, keepdims=True) / np.float32(127)
        each[each == 0] = 1
        rows[first:last], scale[first:last] = np.rint(part / each), each
        first = last
    return rows, scale
