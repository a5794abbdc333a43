"""A graph cut to what is still to be computed, where some of its activations are known already."""

from collections.abc import Iterator, Mapping

import onnx
from onnx import TensorProto, helper


def resume(model: onnx.ModelProto, known: Mapping[str, int]) -> onnx.ModelProto:
    """Return a graph with the same outputs that takes known activations as inputs.

    known: the widths of activations, float32 (rows, columns, width), by their names; also of the model's own
    inputs. Inputs that are not needed are left out.
    """
    graph = model.graph
    makers = {name: place for place, node in enumerate(graph.node) for name in node.output}
    needed, taken = set[int](), set[str]()
    waiting = [output.name for output in graph.output]
    while waiting:
        name = waiting.pop()
        if name in taken:
            continue
        taken.add(name)
        if name not in known and name in makers:
            needed.add(makers[name])
            waiting += _read(graph.node[makers[name]])
    inputs = [each for each in graph.input if each.name in taken]
    inputs += [
        # subtle: without the width the runtime would not fuse the same operators, and numbers would differ.
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", "columns", known[name]])
        for name in makers
        if name in taken and name in known
    ]
    cut = helper.make_graph(
        [graph.node[place] for place in sorted(needed)],
        graph.name,
        inputs,
        graph.output,
        [each for each in graph.initializer if each.name in taken],
    )
    return helper.make_model(cut, opset_imports=model.opset_import, ir_version=model.ir_version)


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node reads, those inside its branches and loops included."""
    yield from node.input
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for each in inner.node:
                yield from _read(each)
            yield from (output.name for output in inner.output)
