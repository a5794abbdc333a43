"""Recognises the attention of long texts in bytes, as `export/families/bert/attention.py` writes it."""

import math
from collections.abc import Sequence

import numpy as np

from server.inference.kernels.nodes import MULTIPLY, Nodes
from server.inference.kernels.onnx_file import NotReadable

# Of queries, which are 0 to 255; keys and values are -128 to 127 around 0.
MIDDLE = 128
FLOAT = 1


def read_steps(
    nodes: Nodes, names: Sequence[str], heads: int, width: int
) -> tuple[float, float, float]:
    """Return the steps of queries, keys, and values less their average; raises NotReadable.

    nodes: of the branch. names: of queries, keys and values. width: of a head.
    """
    queries, keys, values = names
    n_tokens = nodes.result("Shape", values, start=1, end=2)
    average = _average(nodes, values, n_tokens)
    deviations = nodes.result("Sub", values, average)
    cut = [
        _parts(nodes, tensor, kind, zero, order, heads, width)
        for tensor, kind, zero, order in (
            (queries, np.uint8, MIDDLE, [0, 2, 1, 3]),
            (keys, np.int8, 0, [0, 2, 3, 1]),
            (deviations, np.int8, 0, [0, 2, 1, 3]),
        )
    ]
    steps = tuple(step for _, step, _ in cut)
    by_row = nodes.take("Concat", None, n_tokens, axis=0)
    nodes.is_whole(by_row.inputs[0], [-1])
    key_step, value_step = cut[1][2], cut[2][2]
    found = []
    for some_queries, some_keys, some_values in zip(*(parts for parts, _, _ in cut), strict=True):
        scores = nodes.take(MULTIPLY, some_queries, some_keys, None, key_step, None)
        scale = nodes.number(scores.inputs[2], np.float32)
        if not math.isclose(scale, steps[0] * width**-0.5, rel_tol=1e-6):
            raise NotReadable(f"{scores.inputs[2]} is {scale}")
        _is(nodes, scores.inputs[4], np.uint8, MIDDLE)
        found.append(_gather(nodes, scores.outputs[0], by_row.outputs[0], some_values, value_step))
    joined = nodes.result("Concat", *found, axis=1)
    by_token = nodes.result("Transpose", joined, perm=[0, 2, 1, 3])
    flat = nodes.take("Reshape", by_token, None)
    nodes.is_whole(flat.inputs[1], [0, 0, heads * width])
    nodes.end(nodes.result("Add", flat.outputs[0], average))
    return steps[0], steps[1], steps[2]


def _is(nodes: Nodes, name: str, kind: type[np.generic], value: float) -> None:
    """Check a constant that is a single number."""
    if not math.isclose(float(nodes.constant(name, kind)), value, rel_tol=1e-6):
        raise NotReadable(f"{name} is not {value}")


def _average(nodes: Nodes, values: str, n_tokens: str) -> str:
    row = nodes.take("Concat", None, n_tokens, axis=0)
    nodes.is_whole(row.inputs[0], [1, 1])
    ones = nodes.take("Expand", None, row.outputs[0])
    if nodes.constant(ones.inputs[0], np.float32, 1, 1, 1).item() != 1:
        raise NotReadable(f"{ones.inputs[0]} is not 1")
    total = nodes.result("MatMul", ones.outputs[0], values)
    count = nodes.result("Cast", n_tokens, to=FLOAT)
    return nodes.result("Div", total, count)


def _parts(
    nodes: Nodes,
    tensor: str,
    kind: type[np.generic],
    zero: int,
    order: list[int],
    heads: int,
    width: int,
) -> tuple[list[str], float, str]:
    """Return a tensor as bytes in parts of some heads, its step, and the name of the step."""
    quantised = nodes.take("QuantizeLinear", tensor, None, None)
    _, step, middle = quantised.inputs
    _is(nodes, middle, kind, zero)
    split = nodes.take("Reshape", quantised.outputs[0], None)
    nodes.is_whole(split.inputs[1], [0, 0, heads, width])
    by_head = nodes.result("Transpose", split.outputs[0], perm=order)
    cut = nodes.take("Split", by_head, None, axis=1)
    sizes = nodes.constant(cut.inputs[1], np.int64, len(cut.outputs))
    if sizes.sum() != heads or (sizes < 1).any():
        raise NotReadable(f"{cut.inputs[1]} is {sizes.tolist()}")
    return cut.outputs, nodes.number(step, np.float32), step


def _gather(nodes: Nodes, scores: str, by_row: str, values: str, value_step: str) -> str:
    """Return what some heads gather by their scores."""
    shares = nodes.result("Softmax", scores)
    highest = nodes.take("ReduceMax", shares, None)
    nodes.is_whole(highest.inputs[1], [-1])
    steps = nodes.take("Mul", highest.outputs[0], None)
    _is(nodes, steps.inputs[1], np.float32, 1 / 255)
    rows = nodes.result("Reshape", shares, by_row)
    of_row = nodes.take("Reshape", steps.outputs[0], None)
    nodes.is_whole(of_row.inputs[1], [-1])
    quantised = nodes.result("QuantizeLinear", rows, of_row.outputs[0], axis=0)
    shape = nodes.result("Shape", shares)
    weights = nodes.result("Reshape", quantised, shape)
    gathered = nodes.take(MULTIPLY, weights, values, None, value_step, None)
    _is(nodes, gathered.inputs[2], np.float32, 1)
    _is(nodes, gathered.inputs[4], np.uint8, 0)
    return nodes.result("Mul", gathered.outputs[0], steps.outputs[0])
