"""Recognises the graph of a BERT encoder, as `export/families/bert` writes it, and takes its plan from it.

The nodes are read in their order, and each must be the one that such a graph has there. Anything else raises
NotReadable: ONNX Runtime runs that graph, and no kernel computes what only looks like it.
"""

from collections.abc import Sequence

import numpy as np

from server.inference.kernels.onnx_file import Graph, Node, NotReadable, Tensor, scalar, the_only
from server.inference.kernels.plan import (
    BlockLinear,
    FirstRows,
    Layer,
    Linear,
    Norm,
    Plan,
    Quantiser,
)
from server.types import Vectors

BLOCK = 128
# Columns of a tile, and numbers that are computed at once: sizes must be multiples of them.
COLUMNS = 32
MULTIPLY, BY_BLOCK, ATTEND = "MatMulIntegerToFloat", "MatMulNBits", "MultiHeadAttention"
NORM, QUANTISE = "LayerNormalization", "QuantizeLinear"
# Attributes that change what these operators compute, and the only values that are known here.
PLAIN: dict[str, dict[str, tuple[object, ...]]] = {
    NORM: {"axis": (-1,)},
    "Gelu": {"approximate": ("none", "")},
    QUANTISE: {"axis": (1,), "block_size": (0,)},
    BY_BLOCK: {"bits": (8,), "block_size": (BLOCK,), "accuracy_level": (4,)},
    "LpNormalization": {"axis": (-1, 1), "p": (2,)},
}
# Attributes that the reader looks at itself.
READ = {NORM: {"epsilon"}, ATTEND: {"num_heads", "scale"}, BY_BLOCK: {"K", "N"}}


def plan_of(graph: Graph) -> Plan:
    """Return the plan of a graph; raises NotReadable for one that is no such network."""
    branches = [node for node in graph.nodes if node.operator == "If"]
    network = the_only(branches, "If").attributes.get("else_branch")
    after = graph.nodes[graph.nodes.index(branches[0]) + 1 :]
    if not isinstance(network, Graph):
        raise NotReadable("the choice of a layout has no graph of rectangles")
    if [node.operator for node in after] not in ([], ["LpNormalization"]):
        raise NotReadable(f"after pooling come {', '.join(node.operator for node in after)}")
    for node in after:
        _check_plain(node)
    return _Reader(graph, network).plan(normalised=bool(after))


def _check_plain(node: Node) -> None:
    plain = PLAIN.get(node.operator, {})
    for name, value in node.attributes.items():
        known = plain.get(name)
        if value not in known if known is not None else name not in READ.get(node.operator, set()):
            raise NotReadable(f"{node.operator} has {name} = {value!r}")


class _Reader:
    """Goes through the nodes of one graph."""

    def __init__(self, outer: Graph, graph: Graph) -> None:
        self._tensors = {**outer.tensors, **graph.tensors}
        self._nodes = iter(graph.nodes)
        self._next = next(self._nodes, None)
        self._heads = 0
        self._long_from = 0

    # --- nodes ------------------------------------------------------------------------------------

    def _is(self, operator: str) -> bool:
        return self._next is not None and self._next.operator == operator

    def _any(self, operator: str) -> Node:
        node = self._next
        if node is None or node.operator != operator:
            raise NotReadable(
                f"{'the end' if node is None else node.operator} where {operator} is expected"
            )
        self._next = next(self._nodes, None)
        return node

    def _take(self, operator: str, *reads: str) -> Node:
        """Return the next node, which must be this operator, and read these first."""
        node = self._any(operator)
        if tuple(node.inputs[: len(reads)]) != reads:
            raise NotReadable(f"{operator} reads {', '.join(node.inputs)}")
        _check_plain(node)
        return node

    def _floats(self, name: str, size: int) -> Vectors:
        """Return a constant as float32 (size)."""
        tensor = self._constant(name)
        if tensor.dtype != np.float32 or tensor.size not in (1, size):
            raise NotReadable(f"{name} has the shape {tensor.shape}")
        return np.broadcast_to(tensor.reshape(-1), (size,)).astype(np.float32)

    def _constant(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise NotReadable(f"{name} is no constant")
        return self._tensors[name]

    # --- parts ------------------------------------------------------------------------------------

    def _read(self, tensor: str, width: int) -> tuple[str, Quantiser, Node]:
        """Return what quantises a tensor: the name of its bytes, how, and the node that has scale and zero."""
        smoothing = np.ones(width, np.float32)
        if self._is("Mul"):
            node = self._take("Mul", tensor)
            smoothing, (tensor,) = self._floats(node.inputs[1], width), node.outputs
        node = self._take(QUANTISE, tensor)
        _, scale, zero = node.inputs
        step = np.float32(scalar(self._tensors, scale))
        return node.outputs[0], Quantiser(smoothing / step, scalar(self._tensors, zero)), node

    def _linear(self, read: str, by: Node) -> tuple[str, Linear]:
        """Return the next product, of bytes that `by` made, or of a part of them."""
        _, scale, zero = by.inputs
        node = self._any(MULTIPLY)
        if node.inputs[0] != read or node.inputs[2] != scale or node.inputs[4:6] != [zero, ""]:
            raise NotReadable(f"{MULTIPLY} reads {', '.join(node.inputs)}")
        weight = self._constant(node.inputs[1])
        if (
            weight.dtype != np.int8
            or weight.ndim != 2
            or weight.shape[0] % 4
            or weight.shape[1] % COLUMNS
        ):
            raise NotReadable(f"{node.inputs[1]} is {weight.dtype} of the shape {weight.shape}")
        outputs = weight.shape[1]
        steps = self._floats(node.inputs[3], outputs) * np.float32(scalar(self._tensors, scale))
        taken = scalar(self._tensors, zero) * weight.sum(axis=0, dtype=np.int64)
        bias = self._floats(node.inputs[6], outputs) - (steps * taken).astype(np.float32)
        return node.outputs[0], Linear(weight, steps, bias)

    def _block_linear(self, read: str) -> tuple[str, BlockLinear]:
        node = self._take(BY_BLOCK, read)
        packed, name = self._constant(node.inputs[1]), node.inputs[1]
        if (
            packed.dtype != np.uint8
            or packed.ndim != 3
            or packed.shape[2] != BLOCK
            or node.inputs[3:5] != ["", ""]
        ):
            raise NotReadable(f"{name} is {packed.dtype} of the shape {packed.shape}")
        outputs, blocks, _ = packed.shape
        inputs = node.attributes["K"]
        if (outputs, blocks * BLOCK) != (node.attributes["N"], inputs) or outputs % COLUMNS:
            raise NotReadable(f"{name} has {blocks} blocks for {inputs} inputs")
        weight = (packed.reshape(outputs, inputs).astype(np.int16) - 128).astype(np.int8).T
        scale = self._constant(node.inputs[2]).reshape(outputs, blocks).T
        return node.outputs[0], BlockLinear(
            weight, scale.astype(np.float32), self._floats(node.inputs[5], outputs)
        )

    def _norm(self, tensor: str, width: int) -> tuple[str, Norm]:
        node = self._take(NORM, tensor)
        weight, bias = (self._floats(name, width) for name in node.inputs[1:3])
        return node.outputs[0], Norm(weight, bias, float(node.attributes["epsilon"]))

    def _sum(self, first: str, second: str) -> str:
        return self._take("Add", first, second).outputs[0]

    # --- the network --------------------------------------------------------------------------------

    def plan(self, *, normalised: bool) -> Plan:
        words, word_scale, positions, hidden = self._embeddings()
        width = words.shape[1]
        hidden, norm = self._norm(hidden, width)
        norms = [norm]
        layers: list[Layer] = []
        while not layers or not isinstance(layers[-1].qkv, FirstRows):
            hidden, read, layer = self._layer(hidden, width)
            if read is not None:
                norms[-1] = _with(norms[-1], read)
            layers.append(layer)
            norms.append(layer.after_feed)
        self._take("Reshape", hidden)
        if self._next is not None:
            raise NotReadable(f"{self._next.operator} after the last layer")
        done = [_after(layer, norm) for layer, norm in zip(layers, norms[1:], strict=True)]
        self._check_sizes(done, width)
        return Plan(
            words, word_scale, positions, norms[0], done, self._heads, self._long_from, normalised
        )

    def _check_sizes(self, layers: Sequence[Layer], width: int) -> None:
        if not self._heads or width % (self._heads * COLUMNS):
            raise NotReadable(f"{self._heads} heads in rows of {width}")
        for layer in layers:
            feed = layer.up.weight.shape[1]
            if (
                layer.up.weight.shape[0] != width
                or layer.down.weight.shape != (feed, width)
                or feed % BLOCK
            ):
                raise NotReadable(
                    f"feed-forward layers of {layer.up.weight.shape} and {layer.down.weight.shape}"
                )
            if isinstance(layer.qkv, Linear) and layer.qkv.weight.shape != (width, 3 * width):
                raise NotReadable(f"queries, keys and values of {layer.qkv.weight.shape}")

    def _embeddings(self) -> tuple[Tensor, Vectors, Vectors, str]:
        gathered = self._any("Gather")
        words, ids = self._constant(gathered.inputs[0]), gathered.inputs[1]
        cast = self._any("Cast")
        scales = self._any("Gather")
        if ids != "input_ids" or cast.inputs != gathered.outputs or scales.inputs[1] != ids:
            raise NotReadable("the embeddings of words are not rows of one table by token id")
        product = self._take("Mul", cast.outputs[0], scales.outputs[0]).outputs[0]
        shape, slices = self._any("Shape"), self._any("Slice")
        positions = self._constant(slices.inputs[0])
        if shape.inputs != [ids] or slices.inputs[2] != shape.outputs[0]:
            raise NotReadable("positions are not counted from 0")
        if words.dtype != np.int8 or words.ndim != 2 or words.shape[1] % COLUMNS:
            raise NotReadable(f"{gathered.inputs[0]} is {words.dtype} of the shape {words.shape}")
        if positions.ndim != 2 or positions.shape[1] != words.shape[1]:
            raise NotReadable(f"positions have the shape {positions.shape}")
        total = self._sum(product, slices.outputs[0])
        scale = self._floats(scales.inputs[0], len(words))
        return words, scale, positions.astype(np.float32), total

    def _layer(self, hidden: str, width: int) -> tuple[str, Quantiser | None, Layer]:
        """Return the name of a layer's result, how its bytes are read where all rows are, and the layer."""
        residual, steps, read = hidden, None, None
        attention: Linear | FirstRows
        if self._is("Slice"):
            residual = self._first_row(hidden)
            context, attention = self._first_rows(residual, hidden, width)
        else:
            found, read, by = self._read(hidden, width)
            names, parts = zip(*(self._linear(found, by) for _ in range(3)), strict=True)
            context, steps = self._attend(names, width)
            attention = Linear(
                *(np.concatenate(each, axis=-1) for each in zip(*map(_values, parts), strict=True))
            )
        found, how, by = self._read(context, width)
        name, out = self._linear(found, by)
        attended, norm = self._norm(self._sum(name, residual), width)
        found, seen, by = self._read(attended, width)
        name, up = self._linear(found, by)
        active = self._take("Gelu", name).outputs[0]
        quantiser: Quantiser | None = None
        down: Linear | BlockLinear
        if self._is(BY_BLOCK):
            name, down = self._block_linear(active)
        else:
            found, quantiser, by = self._read(active, up.weight.shape[1])
            name, down = self._linear(found, by)
        done, after = self._norm(self._sum(name, attended), width)
        return (
            done,
            read,
            Layer(attention, steps, how, out, _with(norm, seen), up, quantiser, down, after),
        )

    def _attend(
        self, names: Sequence[str], width: int
    ) -> tuple[str, tuple[float, float, float] | None]:
        """Return the context of all rows, and the steps of attention in bytes where a graph has it."""
        if self._is(ATTEND):
            node = self._take(ATTEND, *names)
            self._count_heads(node)
            return node.outputs[0], None
        if self._is("Shape"):
            counted = self._any("Shape")
            compared = self._take("GreaterOrEqual", counted.outputs[0])
            self._long_from = int(scalar(self._tensors, compared.inputs[1]))
        choice = self._any("If")
        short, long = choice.attributes["else_branch"], choice.attributes["then_branch"]
        node = the_only(short.nodes, "attention in floats")
        if node.operator != ATTEND or tuple(node.inputs) != tuple(names) or not self._long_from:
            raise NotReadable(f"attention is {node.operator}")
        self._count_heads(node)
        (name,) = long.outputs
        steps = [
            scalar(long.tensors, f"{name}.{part}.scale") for part in ("queries", "keys", "values")
        ]
        return choice.outputs[0], (steps[0], steps[1], steps[2])

    def _count_heads(self, node: Node) -> None:
        heads = node.attributes["num_heads"]
        if "scale" in node.attributes or self._heads not in (0, heads):
            raise NotReadable(f"attention with {node.attributes}")
        self._heads = heads

    def _first_row(self, hidden: str) -> str:
        node = self._any("Slice")
        begin, end, axis = (scalar(self._tensors, name) for name in node.inputs[1:4])
        if node.inputs[0] != hidden or (begin, end, axis) != (0, 1, 1):
            raise NotReadable("the rows that go on are not the first ones")
        return node.outputs[0]

    def _first_rows(self, residual: str, hidden: str, width: int) -> tuple[str, FirstRows]:
        found, first, by = self._read(residual, width)
        name, query = self._linear(found, by)
        name, sought, keys = self._by_head(name, width, axis=2)
        node = self._any(ATTEND)
        head_width = width // len(keys)
        if node.inputs != [name, hidden, hidden] or node.attributes.get("num_heads") != 1:
            raise NotReadable(f"{ATTEND} reads {', '.join(node.inputs)}")
        if abs(node.attributes.get("scale", 0) * head_width**0.5 - 1) > 1e-6:
            raise NotReadable(f"scores are scaled by {node.attributes.get('scale')}")
        context, gathered, values = self._by_head(node.outputs[0], width, axis=1)
        if self._heads not in (0, len(keys)) or len(keys) != len(values):
            raise NotReadable(f"{len(keys)} heads of keys and {len(values)} of values")
        self._heads = len(keys)
        return context, FirstRows(first, query, sought, keys, gathered, values)

    def _by_head(self, tensor: str, width: int, axis: int) -> tuple[str, Quantiser, list[Linear]]:
        """Return a product for each head; axis: where the heads lie side by side before it."""
        found, how, by = self._read(tensor, width)
        split = self._any("Split")
        if split.inputs[0] != found or split.attributes.get("axis") != axis:
            raise NotReadable("heads are not split where they lie")
        heads = [self._linear(part, by) for part in split.outputs]
        joined = self._any("Concat")
        if (
            joined.inputs != [name for name, _ in heads]
            or joined.attributes.get("axis") != 3 - axis
        ):
            raise NotReadable("heads are not joined in their order")
        shape = (width // len(heads), width) if axis == 2 else (width, width // len(heads))
        if any(linear.weight.shape != shape for _, linear in heads):
            raise NotReadable(f"the products of heads are not {shape}")
        return joined.outputs[0], how, [linear for _, linear in heads]


def _values(linear: Linear) -> tuple[Tensor, Vectors, Vectors]:
    return linear.weight, linear.scale, linear.bias


def _with(norm: Norm, read: Quantiser) -> Norm:
    return Norm(norm.weight, norm.bias, norm.epsilon, read)


def _after(layer: Layer, norm: Norm) -> Layer:
    """Return the layer with the norm that the next layer reads."""
    return Layer(
        layer.qkv,
        layer.steps,
        layer.context,
        layer.out,
        layer.after_attention,
        layer.up,
        layer.active,
        layer.down,
        norm,
    )
