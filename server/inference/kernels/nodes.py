"""The nodes of a graph in their order, each taken only if it is exactly what is expected there.

An operator means the same only with the same inputs, attributes and kinds of constants. So whoever takes a node says
all of them, and whatever else it has raises NotReadable.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from server.inference.kernels.onnx_file import Graph, Node, NotReadable, Tensor
from server.types import Vectors

CONTRIB = "com.microsoft"
MULTIPLY, BY_BLOCK, ATTEND = "MatMulIntegerToFloat", "MatMulNBits", "MultiHeadAttention"
DOMAINS = {MULTIPLY: CONTRIB, BY_BLOCK: CONTRIB, ATTEND: CONTRIB}
# The set of operators whose meaning is known here; the exporter states it.
OPSETS = {"": 20, CONTRIB: 1}
# What an attribute is where a node has none. An attribute that is neither here nor named by the caller is unknown.
DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "Gather": {"axis": 0},
    "Gelu": {"approximate": "none"},
    "LayerNormalization": {"axis": -1, "stash_type": 1},
    "LpNormalization": {"axis": -1, "p": 2},
    "QuantizeLinear": {"axis": 1, "saturate": 1},
    "ReduceMax": {"keepdims": 1, "noop_with_empty_axes": 0},
    "ReduceMean": {"keepdims": 1, "noop_with_empty_axes": 0},
    "Reshape": {"allowzero": 0},
    "Shape": {"start": 0},
    "Softmax": {"axis": -1},
    "Split": {"axis": 0},
    ATTEND: {"mask_filter_value": -10000.0, "unidirectional": 0},
}


class Nodes:
    """Goes through the nodes of one graph. outer: has constants that this graph may read."""

    def __init__(self, graph: Graph, outer: Mapping[str, Tensor]) -> None:
        self.tensors = {**outer, **graph.tensors}
        self._nodes = graph.nodes
        self._outputs = graph.outputs
        self._place = 0

    @property
    def next(self) -> str:
        """The operator that comes next; empty at the end."""
        return self._nodes[self._place].operator if self._place < len(self._nodes) else ""

    def take(self, operator: str, *inputs: str | None, **attributes: object) -> Node:
        """Return the next node.

        inputs: all of them by name; None for one that the caller looks at. attributes: those without a default, and
        others that are not the default; a type for one that the caller looks at. It has one output, but Split has
        any number.
        """
        if self.next != operator:
            raise NotReadable(f"{self.next or 'the end'} where {operator} is expected")
        node = self._nodes[self._place]
        self._place += 1
        if node.domain != DOMAINS.get(operator, ""):
            raise NotReadable(f"{operator} is of the domain {node.domain!r}")
        read = list(node.inputs)
        if len(read) != len(inputs) or any(
            wanted not in (None, name) for name, wanted in zip(read, inputs, strict=True)
        ):
            raise NotReadable(f"{operator} reads {', '.join(read)}")
        if len(node.outputs) != 1 and operator != "Split":
            raise NotReadable(f"{operator} has {len(node.outputs)} outputs")
        wanted_values = {**DEFAULTS.get(operator, {}), **attributes}
        for name, value in node.attributes.items():
            wanted = wanted_values.pop(name, None)
            sound = isinstance(value, wanted) if isinstance(wanted, type) else value == wanted
            if wanted is None or not sound:
                raise NotReadable(f"{operator} has {name} = {str(value)[:40]}")
        if missing := wanted_values.keys() - DEFAULTS.get(operator, {}).keys():
            raise NotReadable(f"{operator} has no {', '.join(sorted(missing))}")
        # A default that the caller does not want must be there.
        for name, wanted in wanted_values.items():
            if name in attributes and wanted != DEFAULTS[operator][name]:
                raise NotReadable(f"{operator} has no {name}")
        return node

    def result(self, operator: str, *inputs: str | None, **attributes: object) -> str:
        """Return the name of what the next node gives; see `take`."""
        return self.take(operator, *inputs, **attributes).outputs[0]

    def end(self, result: str) -> None:
        """Check that no node is left, and that this is what the graph gives."""
        if self.next:
            raise NotReadable(f"{self.next} where the end is expected")
        if self._outputs != [result]:
            raise NotReadable(f"the graph gives {', '.join(self._outputs)}")

    # --- constants --------------------------------------------------------------------------------

    def constant(self, name: str, kind: type[np.generic], *shape: int) -> Tensor:
        """Return a constant of this type; -1 stands for a side of any length."""
        tensor = self.tensors.get(name)
        if tensor is None:
            raise NotReadable(f"{name} is no constant")
        sound = tensor.dtype == kind and tensor.ndim == len(shape)
        if not sound or any(
            side not in (-1, found) for found, side in zip(tensor.shape, shape, strict=True)
        ):
            raise NotReadable(f"{name} is {tensor.dtype} of the shape {tensor.shape}")
        return tensor

    def floats(self, name: str, size: int) -> Vectors:
        """Return a constant float32 (size)."""
        values = self.constant(name, np.float32, size)
        if not np.isfinite(values).all():
            raise NotReadable(f"{name} has numbers that are not finite")
        return values

    def number(self, name: str, kind: type[np.generic]) -> float:
        """Return a constant that is a single number; a step must be above 0."""
        value = float(self.constant(name, kind))
        if kind is np.float32 and not 0 < value < np.inf:
            raise NotReadable(f"{name} is {value}")
        return value

    def is_whole(self, name: str, values: Sequence[int]) -> None:
        """Check a constant list of whole numbers."""
        if self.constant(name, np.int64, -1).tolist() != list(values):
            raise NotReadable(f"{name} is not {list(values)}")

    def branch(self, node: Node, name: str) -> "Nodes":
        """Return the nodes of a branch of an If."""
        graph: Graph = node.attributes[name]
        return Nodes(graph, self.tensors)
