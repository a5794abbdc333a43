"""Nodes and constants of a graph that optimum wrote, while it is rewritten."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.families.family import OUTPUT
from export.graph import IR_VERSION, OPSET, inner_graphs, names_read
from server.inference.encoder import INPUT_IDS

Constants = dict[str, onnx.TensorProto]
Message = TypeVar("Message", onnx.NodeProto, onnx.TensorProto)


def filled(
    model: onnx.ModelProto,
    nodes: Iterable[onnx.NodeProto],
    constants: Mapping[str, onnx.TensorProto],
) -> onnx.ModelProto:
    """Make `model` hold the nodes that the output depends on, with their constants.

    In place, so that a large network's weights are not held twice.
    """
    kept: list[onnx.NodeProto] = []
    needed = {OUTPUT}
    for node in reversed(list(nodes)):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(names_read(node))
    graph = model.graph
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in needed:
            del graph.initializer[index]
    held = {tensor.name for tensor in graph.initializer}
    graph.initializer.extend(constants[name] for name in constants if name in needed - held)
    for entry in ("node", "input", "output", "value_info"):
        graph.ClearField(entry)
    graph.name = "encoder"
    graph.node.extend(kept[::-1])
    shapes = (INPUT_IDS, TensorProto.INT64, "tokens"), (OUTPUT, TensorProto.FLOAT, "width")
    for values, (name, kind, axis) in zip((graph.input, graph.output), shapes, strict=True):
        values.append(helper.make_tensor_value_info(name, kind, ["batch", axis]))
    for entry in ("opset_import", "producer_version", "metadata_props", "functions"):
        model.ClearField(entry)
    model.opset_import.append(helper.make_opsetid("", OPSET))
    model.producer_name, model.ir_version = "export", IR_VERSION
    return model


def rename_read(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Replace names that a node or its branches read by others, in place."""
    node.input[:] = [names.get(name, name) for name in node.input]
    for graph in inner_graphs(node):
        for inner in graph.node:
            rename_read(inner, names)


def store(constants: Constants, name: str, array: npt.ArrayLike) -> str:
    # subtle: ascontiguousarray would give a scalar a dimension.
    constants[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
    return name


def copy_of(message: Message) -> Message:
    copied = type(message)()
    copied.CopyFrom(message)
    return copied
