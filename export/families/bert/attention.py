"""Attention of long texts in int8, written with standard operators.

For each head, of width d, and a text of T tokens:

    scores  = queries (T, d) uint8 @ keys (d, T) int8, scaled
    weights = softmax(scores) / the row's highest        at most 1, as uint8
    context = average + weights (T, T) uint8 @ (values - average) (T, d) int8, scaled, * the row's highest

A row's highest weight is always 255, so a row that is spread evenly over hundreds of tokens keeps as many
digits as one over a few. A weight under 1/510 of the highest is lost. What a row loses goes to the average
of all values, not to zero, because a long tail of small weights is close to that average. Queries, keys
and values have one scale each, fixed at export.

The fused operator, MultiHeadAttention, computes in float32 and goes over the scores once. This goes over
them several times and needs memory for all of them, but its products are four times as fast and there
are T * T of them: so a graph has both, and LONG decides.

Measured (2026-11-25, AVX512-VNNI, one thread, bge-small-zh-v1.5): the whole encoder is 1.00 to 1.02 times
as fast at 128 tokens, 1.03 times at 192, 1.06 at 256 and 1.19 at 512. Mean cosine to float32 of texts of 256
to 512 tokens: 0.9991 with the fused operator, 0.9990 with this one; of "yes" 256 times 0.992 with both, and
0.987 without the average, which costs a hundredth of the speed. With the softmax itself as uint8, without
the row's highest, 0.993 for the former.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from onnx import TensorProto

from export.graph import CONTRIB, GraphWriter

# Tokens from which a text's attention is computed in int8. From about 70 on it is faster for a text
# alone, but such a text can then not be packed with other lengths. Two texts packed, with the fused
# operator, against one after the other in int8: 97 and 103 tokens 1.03 times as fast, 125 and 131 as fast,
# 189 and 195 0.96 times.
LONG = 128
# Longest text of a model whose long texts are: 4 bytes a score, 12 heads and 2,048 tokens are 200 MB, and
# the gain has shrunk to 1.2 times the speed of attention alone.
LONGEST = 1024
# Few, so that their scores stay in a core's own cache. At 512 tokens 8 heads at once took 4.4 ms a layer, 4 took
# 4.2 and 2 took 3.8; at 128 tokens 0.32, 0.34 and 0.35.
HEADS_AT_ONCE = 2
# A weight of 1 as uint8.
WHOLE = 255
# The zero point of uint8 queries; keys and values are int8 and have 0.
MIDDLE = 128


class Scales(NamedTuple):
    """The size of one step of the int8 form: of queries, keys, and values less their average."""

    queries: float
    keys: float
    values: float


def attend_in_int8(
    graph: GraphWriter, projected: Sequence[str], scales: Scales, heads: int, width: int, name: str
) -> str:
    """Write the context of every token, float32 (B, T, heads * width); see above.

    projected: queries, keys and values, float32 (B, T, heads * width).
    """
    steps = [
        graph.floats(f"{name}.{part}.scale", scale)
        for part, scale in zip(Scales._fields, scales, strict=True)
    ]
    middle = graph.constant("attention.middle", np.array(MIDDLE, np.uint8))
    zero = graph.constant("attention.zero", np.array(0, np.int8))
    split = graph.integers("attention.split", [0, 0, heads, width])
    sizes = [min(HEADS_AT_ONCE, heads - first) for first in range(0, heads, HEADS_AT_ONCE)]
    cut = graph.integers("attention.heads_at_once", sizes)

    n_tokens = graph.node("Shape", [projected[2]], f"{name}.n_tokens", start=1, end=2)
    average = _average(graph, projected[2], n_tokens, name)
    deviations = graph.node("Sub", [projected[2], average], f"{name}.deviations")
    operands = (*projected[:2], deviations)

    def operand(place: int, origin: str, order: tuple[int, ...]) -> list[str]:
        """Write queries, keys or values as 8-bit numbers, in parts of a few heads."""
        part = f"{name}.{Scales._fields[place]}"
        read = [operands[place], steps[place], origin]
        whole = graph.node("QuantizeLinear", read, f"{part}.int8")
        by_token = graph.node("Reshape", [whole, split], f"{part}.split")
        by_head = graph.node("Transpose", [by_token], part, perm=order)
        return graph.split(by_head, cut, len(sizes), f"{part}.parts")

    queries = operand(0, middle, (0, 2, 1, 3))
    keys = operand(1, zero, (0, 2, 3, 1))
    values = operand(2, zero, (0, 2, 1, 3))
    all_rows = graph.integers("attention.rows", [-1])
    by_row = graph.node("Concat", [all_rows, n_tokens], f"{name}.by_row", axis=0)
    score_scale = graph.floats(f"{name}.score_scale", scales.queries * width**-0.5)
    found = []
    for index, (some_queries, some_keys, some_values) in enumerate(
        zip(queries, keys, values, strict=True)
    ):
        read = [some_queries, some_keys, score_scale, steps[1], middle]
        scores = graph.node("MatMulIntegerToFloat", read, f"{name}.{index}.scores", CONTRIB)
        found.append(_gather(graph, scores, by_row, some_values, steps[2], f"{name}.{index}"))
    by_head = graph.node("Concat", found, f"{name}.by_head", axis=1)
    by_token = graph.node("Transpose", [by_head], f"{name}.by_token", perm=(0, 2, 1, 3))
    flat = graph.integers("attention.flat", [0, 0, heads * width])
    deviation = graph.node("Reshape", [by_token, flat], f"{name}.deviation")
    return graph.node("Add", [deviation, average], name)


def _average(graph: GraphWriter, values: str, n_tokens: str, name: str) -> str:
    """Write the average of the values of all tokens, float32 (B, 1, D)."""
    # A product with a row of ones: ReduceMean over the tokens took ten times as long.
    one = graph.floats("attention.one", [[[1.0]]])
    units = graph.integers("attention.units", [1, 1])
    row = graph.node("Concat", [units, n_tokens], f"{name}.row", axis=0)
    ones = graph.node("Expand", [one, row], f"{name}.ones")
    total = graph.node("MatMul", [ones, values], f"{name}.total")
    count = graph.node("Cast", [n_tokens], f"{name}.count", to=TensorProto.FLOAT)
    return graph.node("Div", [total, count], f"{name}.average")


def _gather(
    graph: GraphWriter, scores: str, by_row: str, values: str, value_scale: str, name: str
) -> str:
    """Write what a few heads gather by their scores (B, heads, T, T): float32 (B, heads, T, d).

    by_row: the shape that makes all rows of scores one axis.
    """
    weight_scale = graph.floats("attention.weight_scale", 1 / WHOLE)
    unit = graph.floats("attention.unit", 1)
    nothing = graph.constant("attention.nothing", np.array(0, np.uint8))
    last = graph.integers("attention.last_axis", [-1])
    all_rows = graph.integers("attention.rows", [-1])
    # subtle: not Exp and ReduceSum, which would be as fast. ReduceSum's last digits depend on a row's
    # address, and so a text's vector on where in a batch it stands.
    shares = graph.node("Softmax", [scores], f"{name}.shares", axis=-1)
    highest = graph.node("ReduceMax", [shares, last], f"{name}.highest", keepdims=1)
    steps = graph.node("Mul", [highest, weight_scale], f"{name}.steps")
    # One step a row, as the scales of an axis: that costs nothing. Divided by their highest before, in a
    # pass of its own over all shares, the whole encoder took 1.05 times as long at 512 tokens.
    rows = graph.node("Reshape", [shares, by_row], f"{name}.rows")
    step_of_row = graph.node("Reshape", [steps, all_rows], f"{name}.step_of_row")
    quantized = graph.node("QuantizeLinear", [rows, step_of_row], f"{name}.rows.int8", axis=0)
    shape = graph.node("Shape", [shares], f"{name}.shape")
    weights = graph.node("Reshape", [quantized, shape], f"{name}.weights")
    read = [weights, values, unit, value_scale, nothing]
    gathered = graph.node("MatMulIntegerToFloat", read, f"{name}.gathered", CONTRIB)
    return graph.node("Mul", [gathered, steps], f"{name}.context")
