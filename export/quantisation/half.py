"""Stores a float32 graph's large constants in 16 bits; it still computes in float32.

The file is half as large. When the graph is loaded, constants are widened once; a table of which a few rows
are read stays as it is stored, and those rows are widened.
"""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.errors import UnsupportedModel
from export.graph import inner_graphs

# Smaller constants are not worth a node.
LEAST_ELEMENTS = 1024
LARGEST_HALF = float(np.finfo(np.float16).max)
STORED, WIDENED = ".fp16", ".fp32"


def halve(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with its large float32 constants in 16 bits; `model` loses them."""
    halved: set[str] = set()
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) >= LEAST_ELEMENTS:
            halved.add(tensor.name)
            tensor.CopyFrom(_halved(tensor))
    # A table that is only gathered from is never widened as a whole.
    whole = {name for graph in _graphs(model.graph) for name in _read_whole(graph, halved)}
    for graph in _graphs(model.graph):
        _widen_rows(graph, halved)
    widened = [
        helper.make_node("Cast", [name + STORED], [name], f"{name}{WIDENED}", to=TensorProto.FLOAT)
        for name in sorted(whole)
    ]
    nodes = [*widened, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _halved(tensor: TensorProto) -> TensorProto:
    array = numpy_helper.to_array(tensor)
    largest = float(np.abs(array).max(initial=0.0))
    if largest > LARGEST_HALF:
        raise UnsupportedModel(
            "{name} has a weight of {largest:.3g}, beyond what 16 bits hold; export --precision fp32",
            name=tensor.name,
            largest=largest,
        )
    return numpy_helper.from_array(array.astype(np.float16), tensor.name + STORED)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and those of its branches."""
    yield graph
    for node in graph.node:
        for inner in inner_graphs(node):
            yield from _graphs(inner)


def _read_whole(graph: onnx.GraphProto, halved: set[str]) -> Iterator[str]:
    for node in graph.node:
        tables = {node.input[0]} if node.op_type == "Gather" else set()
        yield from halved & set(node.input) - tables


def _widen_rows(graph: onnx.GraphProto, halved: set[str]) -> None:
    """Let each Gather read the stored table, and widen what it found."""
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type == "Gather" and node.input[0] in halved:
            output = node.output[0]
            node.input[0] += STORED
            node.output[0] = output + STORED
            nodes.append(
                helper.make_node(
                    "Cast", [output + STORED], [output], f"{output}{WIDENED}", to=TensorProto.FLOAT
                )
            )
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
