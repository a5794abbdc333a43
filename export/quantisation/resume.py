"""Graphs of a layer that start from an activation which is known already, so that no pass is repeated."""

from collections.abc import Iterator, Mapping

import onnx
from onnx import TensorProto, helper

from export.families.family import HIDDEN
from export.graph import names_read
from export.onnx_file import open_graph
from export.source.tensors import FloatArray


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
            waiting += names_read(graph.node[makers[name]])
    inputs = [each for each in graph.input if each.name in taken]
    inputs += [
        # subtle: without the width the runtime would not fuse the same operators, and numbers would differ. The
        # lengths have names of their own: an activation of the last layer may have one row a text.
        helper.make_tensor_value_info(
            name, TensorProto.FLOAT, [f"{name}.rows", f"{name}.columns", known[name]]
        )
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


class Passes:
    """Runs the graphs of one layer on every text, each from the last activation that is known.

    hidden: the layer's input, float32 (1, T, D) a text.
    """

    def __init__(self, hidden: list[FloatArray], threads: int) -> None:
        self._known = {HIDDEN: hidden}
        self._threads = threads

    def run(
        self, model: onnx.ModelProto, output: str, *, keep: bool = False
    ) -> Iterator[FloatArray]:
        """Yield an activation of each text. keep: whether later graphs start from it."""
        if output in self._known:
            yield from self._known[output]
            return
        widths = {name: each[0].shape[-1] for name, each in self._known.items()}
        session = open_graph(resume(model, widths), self._threads)
        names = [each.name for each in session.get_inputs()]
        kept: list[FloatArray] = []
        width = self._known[HIDDEN][0].shape[-1]
        for rows in zip(*(self._known[name] for name in names), strict=True):
            found = session.run([output], dict(zip(names, rows, strict=True)))[0]
            # Wider ones would take more memory than they save time.
            if keep and found.ndim == 3 and found.shape[-1] <= width:
                kept.append(found)
            yield found
        if kept:
            self._known[output] = kept

    def forget(self) -> None:
        """Forget activations: a layer before one of them has changed."""
        self._known = {HIDDEN: self._known[HIDDEN]}
