"""Takes an attention mask of ones out of a graph, where it changes nothing."""

import operator
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from export.families.family import OUTPUT
from export.optimum.nodes import Constants, copy_of, rename_read

Number = bool | int | float

# Operators that only move the numbers of their first input.
MOVES = ("Expand", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
COMPUTES: dict[str, Callable[..., Number]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Equal": operator.eq,
    "Not": operator.not_,
    "Where": lambda condition, yes, no: yes if condition else no,
}
# Adding 0 to a tensor or multiplying it by 1 does not change it.
NEUTRAL = {"Add": 0, "Mul": 1}


def without_mask(nodes: Sequence[onnx.NodeProto], constants: Constants) -> list[onnx.NodeProto]:
    """Return the nodes without those that do nothing when every number of the mask is one.

    `known` holds the tensors of which every element is the same known number, whatever the shape.
    subtle: a mask may also widen what it is added to, by its shape; that is not checked here.
    The caller compares results on several shapes and keeps the mask if they differ.
    """
    known = {
        name: array.flat[0].item()
        for name, tensor in constants.items()
        # The tensors of interest are scalars, or hold a few equal numbers.
        if 0 < np.prod(tensor.dims, dtype=np.int64) <= 64
        and ((array := numpy_helper.to_array(tensor)) == array.flat[0]).all()
    }
    stands_for: dict[str, str] = {}
    kept = []
    for node in nodes:
        copy = copy_of(node)
        rename_read(copy, stands_for)
        value = _uniform_value(copy, known)
        if value is not None:
            known[copy.output[0]] = value
        same = _same_as(copy, known)
        if same is None:
            kept.append(copy)
        else:
            stands_for[copy.output[0]] = same
    return kept


def _uniform_value(node: onnx.NodeProto, known: Mapping[str, Number]) -> Number | None:
    """Return the number that every element of the node's output is, if that is known."""
    inputs = [known.get(name) for name in node.input]
    if node.op_type == "ConstantOfShape":
        values = [numpy_helper.to_array(each.t) for each in node.attribute if each.name == "value"]
        return values[0].item() if values else 0.0
    if node.op_type in MOVES:
        return inputs[0]
    if node.op_type == "Cast":
        # 0 and 1 are the same in every type.
        return inputs[0] if inputs[0] in (0, 1) else None
    if node.op_type in COMPUTES and None not in inputs:
        return COMPUTES[node.op_type](*inputs)
    return None


def _same_as(node: onnx.NodeProto, known: Mapping[str, Number]) -> str | None:
    """Return the input that the node's output equals, if there is one."""
    names: list[str] = list(node.input)
    if OUTPUT in node.output:
        return None
    if node.op_type == "Identity":
        return names[0]
    if node.op_type == "Where" and names[0] in known:
        return names[1] if known[names[0]] else names[2]
    if node.op_type in NEUTRAL:
        for name, other in (names, names[::-1]):
            if known.get(name) == NEUTRAL[node.op_type] and other not in known:
                return other
    return None
