"""Attention of long texts in int8, written with standard operators.

For each head, of width d, and a text of T tokens:

    scores  = queries (T, d) uint8 @ keys (d, T) int8, scaled
    weights = exp(scores - the row's highest)            at most 1, as uint8
    context = weights (T, T) uint8 @ values (T, d) int8, scaled, / the sum of the row's weights

A row's highest weight is always 255, so a row that is spread over hundreds of tokens keeps as many digits
as one that looks at a single token. Queries, keys and values have one scale each, fixed at export, and
every row is computed for itself: a vector does not depend on its neighbours.

The fused operator, MultiHeadAttention, computes in float32 and goes over the scores once. This goes over
them several times, but its products are four times as fast and there are T * T of them: so a graph has
both, and LONG decides.

Measured (2026-11-25, AVX512-VNNI, one thread, bge-small-zh-v1.5). One layer's attention in milliseconds,
fused and in int8: 64 tokens 0.133, 0.129; 96 tokens 0.255, 0.209; 128 tokens 0.417, 0.311; 256 tokens
1.48, 0.92; 512 tokens 6.07, 3.48. The whole encoder is 1.02 times as fast at 128 tokens, 1.09 times at 256
and 1.16 times at 512, and at 18 tokens as fast as without the choice.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from export.graph import CONTRIB, GraphWriter

# Tokens from which a text's attention is computed in int8.
LONG = 96
# So that their scores stay in a core's own cache. At 512 tokens 8 heads at once took 4.0 ms, 4 took 3.5
# and 2 took 3.4; at 128 tokens 0.29, 0.31 and 0.32.
HEADS_AT_ONCE = 4
# A weight of 1 as uint8, and what one step is worth.
WHOLE = 255
# What uint8 queries have for a zero; keys and values are int8 and have 0.
MIDDLE = 128


class Scales(NamedTuple):
    """What one step of the int8 form of queries, keys and values is worth."""

    queries: float
    keys: float
    values: float


def attend_in_int8(
    graph: GraphWriter, projected: Sequence[str], scales: Scales, heads: int, width: int, name: str
) -> str:
    """The context of every token, float32 (B, T, heads * width); see above.

    projected: queries, keys and values, float32 (B, T, heads * width).
    """
    sizes = [min(HEADS_AT_ONCE, heads - first) for first in range(0, heads, HEADS_AT_ONCE)]
    cut = graph.integers("attention.heads_at_once", sizes)
    operands = [
        graph.split(operand, cut, len(sizes), f"{operand}.parts")
        for operand in _operands(graph, projected, scales, (heads, width), name)
    ]
    found = [
        _attend(graph, part, scales, width, f"{name}.{index}", name)
        for index, part in enumerate(zip(*operands, strict=True))
    ]
    found_together = graph.node("Concat", found, f"{name}.by_head", axis=1)
    by_token = graph.node("Transpose", [found_together], f"{name}.by_token", perm=(0, 2, 1, 3))
    flat = graph.integers("attention.flat", [0, 0, heads * width])
    return graph.node("Reshape", [by_token, flat], name)


def _operands(
    graph: GraphWriter,
    projected: Sequence[str],
    scales: Scales,
    shape: tuple[int, int],
    name: str,
) -> list[str]:
    """Queries (B, heads, T, d) uint8, keys (B, heads, d, T) and values (B, heads, T, d) int8."""
    middle, zero = _middle(graph), graph.constant("attention.zero", np.array(0, np.int8))
    split = graph.integers("attention.split", [0, 0, *shape])
    by_head, turned = (0, 2, 1, 3), (0, 2, 3, 1)
    operands = []
    for part, tensor, scale, origin, order in zip(
        Scales._fields,
        projected,
        scales,
        (middle, zero, zero),
        (by_head, turned, by_head),
        strict=True,
    ):
        step = graph.floats(f"{name}.{part}.scale", scale)
        whole = graph.node("QuantizeLinear", [tensor, step, origin], f"{name}.{part}.int8")
        heads = graph.node("Reshape", [whole, split], f"{name}.{part}.split")
        operands.append(graph.node("Transpose", [heads], f"{name}.{part}", perm=order))
    return operands


def _attend(
    graph: GraphWriter,
    part: tuple[str, str, str],
    scales: Scales,
    width: int,
    name: str,
    layer: str,
) -> str:
    """What a few heads gather, float32 (B, heads, T, d)."""
    queries, keys, values = part
    score_scale = graph.floats(f"{layer}.score_scale", scales.queries * width**-0.5)
    weight_scale = graph.floats("attention.weight_scale", 1 / WHOLE)
    key_scale, value_scale = f"{layer}.keys.scale", f"{layer}.values.scale"
    nothing = graph.constant("attention.nothing", np.array(0, np.uint8))
    last = graph.integers("attention.last_axis", [-1])

    read = [queries, keys, score_scale, key_scale, _middle(graph)]
    scores = graph.node("MatMulIntegerToFloat", read, f"{name}.scores", CONTRIB)
    highest = graph.node("ReduceMax", [scores, last], f"{name}.highest", keepdims=1)
    below = graph.node("Sub", [scores, highest], f"{name}.below")
    weights = graph.node("Exp", [below], f"{name}.weights")
    total = graph.node("ReduceSum", [weights, last], f"{name}.total", keepdims=1)
    read = [weights, weight_scale, nothing]
    whole = graph.node("QuantizeLinear", read, f"{name}.weights.int8")
    read = [whole, values, weight_scale, value_scale, nothing]
    gathered = graph.node("MatMulIntegerToFloat", read, f"{name}.gathered", CONTRIB)
    return graph.node("Div", [gathered, total], f"{name}.context")


def _middle(graph: GraphWriter) -> str:
    return graph.constant("attention.middle", np.array(MIDDLE, np.uint8))
