"""A thin writer of ONNX graphs: named nodes, shared constants, and the standard tail of a model.

It knows ONNX and no models: a family says which operators its network has.
"""

from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

# Opset 20 is the first with Gelu as a standard operator; IR version 9 is the oldest that may carry it.
OPSET = 20
IR_VERSION = 9
CONTRIB = "com.microsoft"

Dimension = int | str
Branch = Callable[["GraphWriter"], str]
LoopBody = Callable[["GraphWriter", str], str]
CarryingBody = Callable[["GraphWriter", str, Sequence[str]], Sequence[str]]
ConstantMaker = Callable[[npt.NDArray[Any], str], TensorProto]
# Makes a constant of its numbers and its name; `onnx_file.large_graph` sets one that writes them to a file.
CONSTANT_MAKER: ContextVar[ConstantMaker] = ContextVar(
    "constant_maker", default=numpy_helper.from_array
)


class GraphWriter:
    """Collects nodes and constants; a tensor is referred to by its name."""

    def __init__(self, outer: "GraphWriter | None" = None) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {} if outer is None else outer._constants
        self._inputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, element: int, shape: Sequence[Dimension]) -> str:
        """Declare a graph input; `element` is a TensorProto data type, a string in `shape` is free."""
        self._inputs.append(helper.make_tensor_value_info(name, element, shape))
        return name

    def optional_input(
        self, name: str, default: npt.NDArray[np.generic], shape: Sequence[Dimension]
    ) -> str:
        """Declare an input that has the value `default` where none is given."""
        self.constant(name, default)
        return self.input(name, helper.np_dtype_to_tensor_dtype(default.dtype), shape)

    def constant(self, name: str, array: npt.NDArray[np.generic]) -> str:
        """Store `array` under `name`, once: a second call with the same name reuses the first."""
        if name not in self._constants:
            stored = np.asarray(array, order="C")
            self._constants[name] = CONSTANT_MAKER.get()(stored, name)
        return name

    def has_constant(self, name: str) -> bool:
        """Return whether `constant` need not be given the numbers again."""
        return name in self._constants

    def floats(self, name: str, array: npt.ArrayLike) -> str:
        return self.constant(name, np.asarray(array, dtype=np.float32))

    def integers(self, name: str, values: npt.ArrayLike) -> str:
        return self.constant(name, np.asarray(values, dtype=np.int64))

    def node(
        self, operator: str, inputs: Sequence[str], name: str, domain: str = "", **attributes: Any
    ) -> str:
        """Append a node with one output, which has the node's name; returns that name."""
        self._nodes.append(
            helper.make_node(operator, inputs, [name], name=name, domain=domain, **attributes)
        )
        return name

    def outputs(
        self,
        operator: str,
        inputs: Sequence[str],
        names: Sequence[str],
        domain: str = "",
        **attributes: Any,
    ) -> list[str]:
        """Append a node with several outputs; returns their names. The first names the node too."""
        self._nodes.append(
            helper.make_node(operator, inputs, names, name=names[0], domain=domain, **attributes)
        )
        return [*names]

    def split(self, tensor: str, sizes: str, parts: int, name: str, axis: int = 1) -> list[str]:
        """Cut `tensor` along an axis into `parts` of the given sizes, zero allowed."""
        outputs = [f"{name}.{part}" for part in range(parts)]
        node = helper.make_node("Split", [tensor, sizes], outputs, name=name, axis=axis)
        self._nodes.append(node)
        return outputs

    def branch(
        self,
        condition: str,
        then: Branch,
        otherwise: Branch,
        name: str,
        *,
        share_constants: bool = True,
    ) -> str:
        """Append a choice between two subgraphs, made when the graph runs; each returns its output's name.

        A subgraph reads outer tensors by name. share_constants: its constants are kept with the outer
        ones, where other subgraphs find them. Small constants cost less inside: every outer tensor that
        is read is passed in once a run.
        """
        graphs = {}
        for attribute, write in (("then_branch", then), ("else_branch", otherwise)):
            inner = GraphWriter(outer=self if share_constants else None)
            output = write(inner)
            graphs[attribute] = helper.make_graph(
                inner._nodes,
                f"{name}.{attribute}",
                [],
                [_value(output, None)],
                [] if share_constants else list(inner._constants.values()),
            )
        return self.node("If", [condition], name, **graphs)

    def loop(self, trips: str, write: "LoopBody", name: str) -> str:
        """Append a subgraph that runs `trips` times (int64, a scalar); returns its results, stacked.

        write: given the subgraph and the name of the run's number (int64, a scalar), returns the name of
        the run's result, whose shape must not change from run to run. Constants are kept in the subgraph.
        """
        inner = GraphWriter(outer=None)
        number, go_on = f"{name}.number", f"{name}.go_on"
        result = write(inner, number)
        inner.node("Identity", [go_on], f"{name}.goes_on")
        scalar = helper.make_tensor_value_info
        body = helper.make_graph(
            inner._nodes,
            f"{name}.body",
            [scalar(number, TensorProto.INT64, []), scalar(go_on, TensorProto.BOOL, [])],
            [scalar(f"{name}.goes_on", TensorProto.BOOL, []), _value(result, None)],
            list(inner._constants.values()),
        )
        return self.node("Loop", [trips, ""], name, body=body)

    def carry(
        self, trips: str, start: Sequence[str], write: "CarryingBody", name: str
    ) -> list[str]:
        """Append a subgraph that runs `trips` times and hands tensors on; returns what the last run gave.

        start: float32 tensors for the first run, whose shapes may change from run to run. write: given the
        subgraph, the run's number (int64, a scalar) and the tensors, returns the tensors for the next run.
        """
        inner = GraphWriter(outer=None)
        number, go_on = f"{name}.number", f"{name}.go_on"
        carried = [f"{name}.carried.{place}" for place in range(len(start))]
        results = write(inner, number, carried)
        inner.node("Identity", [go_on], f"{name}.goes_on")
        scalar = helper.make_tensor_value_info
        body = helper.make_graph(
            inner._nodes,
            f"{name}.body",
            [
                scalar(number, TensorProto.INT64, []),
                scalar(go_on, TensorProto.BOOL, []),
                *(_value(each, None) for each in carried),
            ],
            [
                scalar(f"{name}.goes_on", TensorProto.BOOL, []),
                *(_value(each, None) for each in results),
            ],
            list(inner._constants.values()),
        )
        names = [f"{name}.{place}" for place in range(len(start))]
        return self.outputs("Loop", [trips, "", *start], names, body=body)

    def model(self, name: str, outputs: dict[str, Sequence[Dimension] | None]) -> onnx.ModelProto:
        """Return the finished model with float32 `outputs` (tensor name -> shape)."""
        graph = helper.make_graph(
            self._nodes,
            name,
            self._inputs,
            [_value(output, shape) for output, shape in outputs.items()],
            list(self._constants.values()),
        )
        return helper.make_model(
            graph,
            producer_name="export",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)],
        )


def inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the branches of an If, or the body of a Loop."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g


def names_read(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node reads, those inside its branches and loops included."""
    yield from node.input
    for graph in inner_graphs(node):
        for inner in graph.node:
            yield from names_read(inner)


def _value(name: str, shape: Sequence[Dimension] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
