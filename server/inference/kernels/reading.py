"""Recognises the graph of a BERT encoder, as `export/families/bert` writes it, and takes its plan from it.

The nodes are read in their order, and each must be the one that such a graph has there, with all that it reads.
Anything else raises NotReadable: ONNX Runtime runs that graph, and no kernel computes what only looks like it.

A graph has the network twice. Read here is the one of texts of one length; the other one gives the same vectors.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from server.inference.encoder import GROUP_TEXTS, INPUT_IDS
from server.inference.kernels.long_attention import FLOAT, read_steps
from server.inference.kernels.nodes import ATTEND, BY_BLOCK, MULTIPLY, OPSETS, Nodes
from server.inference.kernels.onnx_file import Graph, NotReadable, Tensor
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
# Products of bytes that a 32-bit sum holds, whatever the bytes are.
MOST_INPUTS = 1 << 16
NORM, QUANTISE = "LayerNormalization", "QuantizeLinear"
BOOL = 9


def plan_of(graph: Graph) -> Plan:
    """Return the plan of a graph; raises NotReadable for one that is no such network."""
    if graph.opsets != OPSETS:
        raise NotReadable(f"its operators are of the sets {graph.opsets}")
    nodes = Nodes(graph, {})
    first = nodes.take("Gather", GROUP_TEXTS, None)
    if (
        nodes.constant(first.inputs[1], np.int64).item()
        or nodes.constant(GROUP_TEXTS, np.int64, -1).any()
    ):
        raise NotReadable("texts of one length are no rectangle in it")
    packed = nodes.result("Cast", first.outputs[0], to=BOOL)
    choice = nodes.take("If", packed, else_branch=Graph, then_branch=Graph)
    pooled = choice.outputs[0]
    normalised = nodes.next == "LpNormalization"
    nodes.end(nodes.result("LpNormalization" if normalised else "Identity", pooled))
    return _Network(nodes.branch(choice, "else_branch")).plan(normalised=normalised)


class _Network:
    """Goes through the network of one graph. width: of a row."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._width = 0
        self._heads = 0
        self._long_from = 0
        self._is_long = ""

    def plan(self, *, normalised: bool) -> Plan:
        nodes = self._nodes
        words, word_scale, positions, total = self._embeddings()
        hidden, embedded = self._norm(total)
        norms, layers = [embedded], list[Layer]()
        while nodes.next not in ("ReduceMean", ""):
            hidden, read, layer = self._layer(hidden)
            # The bytes that a layer reads are written by the norm before it.
            if read is not None:
                norms[-1] = replace(norms[-1], read=read)
            layers.append(layer)
            norms.append(layer.after_feed)
            if isinstance(layer.qkv, FirstRows):
                break
        if not layers:
            raise NotReadable("it has no layers")
        self._pool(hidden, first_rows=isinstance(layers[-1].qkv, FirstRows))
        done = [
            replace(layer, after_feed=norm) for layer, norm in zip(layers, norms[1:], strict=True)
        ]
        sizes = {layer.up.weight.shape for layer in done}
        if len(sizes) != 1:
            raise NotReadable(f"its feed-forward layers have the sizes {sorted(sizes)}")
        return Plan(
            words, word_scale, positions, norms[0], done, self._heads, self._long_from, normalised
        )

    def _pool(self, hidden: str, *, first_rows: bool) -> None:
        nodes = self._nodes
        if first_rows:
            flat = nodes.take("Reshape", hidden, None)
            nodes.is_whole(flat.inputs[1], [-1, self._width])
            return nodes.end(flat.outputs[0])
        mean = nodes.take("ReduceMean", hidden, None, keepdims=0)
        nodes.is_whole(mean.inputs[1], [1])
        return nodes.end(nodes.result("Concat", mean.outputs[0], axis=0))

    # --- parts ------------------------------------------------------------------------------------

    def _embeddings(self) -> tuple[Tensor, Vectors, Vectors, str]:
        """Return the table of words with its scales, that of positions, and the name of their sum."""
        nodes = self._nodes
        gathered = nodes.take("Gather", None, INPUT_IDS)
        words = nodes.constant(gathered.inputs[0], np.int8, -1, -1)
        count, self._width = words.shape
        if not count or not self._width or self._width % COLUMNS:
            raise NotReadable(f"{gathered.inputs[0]} has the shape {words.shape}")
        cast = nodes.result("Cast", gathered.outputs[0], to=FLOAT)
        scales = nodes.take("Gather", None, INPUT_IDS)
        scale = nodes.constant(scales.inputs[0], np.float32, count, 1)
        product = nodes.result("Mul", cast, scales.outputs[0])
        n_tokens = nodes.result("Shape", INPUT_IDS, start=1, end=2)
        rows = nodes.take("Slice", None, None, n_tokens, None)
        table, begin, _, axis = rows.inputs
        nodes.is_whole(begin, [0])
        nodes.is_whole(axis, [0])
        positions = nodes.constant(table, np.float32, -1, self._width)
        if not 0 < len(positions) <= MOST_INPUTS:
            raise NotReadable(f"it has {len(positions)} positions")
        return words, scale[:, 0], positions, nodes.result("Add", product, rows.outputs[0])

    def _norm(self, tensor: str) -> tuple[str, Norm]:
        node = self._nodes.take(NORM, tensor, None, None, epsilon=float)
        weight, bias = (self._nodes.floats(name, self._width) for name in node.inputs[1:])
        return node.outputs[0], Norm(weight, bias, float(node.attributes["epsilon"]))

    def _read(self, tensor: str, width: int) -> tuple[Sequence[str], Quantiser]:
        """Return how a tensor becomes bytes, and the names of the bytes, their step and their zero."""
        nodes, smoothing = self._nodes, np.ones(width, np.float32)
        if nodes.next == "Mul":
            node = nodes.take("Mul", tensor, None)
            smoothing, tensor = nodes.floats(node.inputs[1], width), node.outputs[0]
        node = nodes.take(QUANTISE, tensor, None, None)
        _, step, zero = node.inputs
        quantiser = Quantiser(
            smoothing / np.float32(nodes.number(step, np.float32)), nodes.number(zero, np.uint8)
        )
        return (node.outputs[0], step, zero), quantiser

    def _linear(self, read: Sequence[str], inputs: int, outputs: int) -> tuple[str, Linear]:
        """Return the next product of these bytes, or of a part of them; outputs: -1 for any number."""
        nodes, (found, step, zero) = self._nodes, read
        node = nodes.take(MULTIPLY, found, None, step, None, zero, "", None)
        weight = nodes.constant(node.inputs[1], np.int8, inputs, outputs)
        outputs = weight.shape[1]
        if not outputs or inputs % COLUMNS or outputs % COLUMNS or inputs > MOST_INPUTS:
            raise NotReadable(f"{node.inputs[1]} has the shape {weight.shape}")
        scale = nodes.floats(node.inputs[3], outputs) * np.float32(nodes.number(step, np.float32))
        taken = nodes.number(zero, np.uint8) * weight.sum(axis=0, dtype=np.int64)
        bias = nodes.floats(node.inputs[6], outputs) - (scale * taken).astype(np.float32)
        return node.outputs[0], Linear(weight, scale, bias)

    def _block_linear(self, read: str, inputs: int) -> tuple[str, BlockLinear]:
        nodes, outputs, blocks = self._nodes, self._width, inputs // BLOCK
        options = {"K": inputs, "N": outputs, "bits": 8, "block_size": BLOCK, "accuracy_level": 4}
        node = nodes.take(BY_BLOCK, read, None, None, "", "", None, **options)
        packed = nodes.constant(node.inputs[1], np.uint8, outputs, blocks, BLOCK)
        weight = (packed.reshape(outputs, inputs).astype(np.int16) - 128).astype(np.int8).T
        scale = nodes.constant(node.inputs[2], np.float32, outputs, blocks).T
        return node.outputs[0], BlockLinear(weight, scale, nodes.floats(node.inputs[5], outputs))

    # --- layers -----------------------------------------------------------------------------------

    def _layer(self, hidden: str) -> tuple[str, Quantiser | None, Layer]:
        """Return the name of a layer's result, how its bytes are read where all rows are, and the layer."""
        nodes, width = self._nodes, self._width
        residual, steps, read = hidden, None, None
        attention: Linear | FirstRows
        if nodes.next == "Slice":
            residual = self._first_row(hidden)
            context, attention = self._first_rows(residual, hidden)
        else:
            found, read = self._read(hidden, width)
            names, parts = zip(*(self._linear(found, width, width) for _ in range(3)), strict=True)
            context, steps = self._attend(names)
            attention = _side_by_side(parts)
        found, how = self._read(context, width)
        name, out = self._linear(found, width, width)
        attended, norm = self._norm(nodes.result("Add", name, residual))
        found, seen = self._read(attended, width)
        name, up = self._linear(found, width, -1)
        feed = up.weight.shape[1]
        if feed % BLOCK:
            raise NotReadable(f"its feed-forward layers have {feed} numbers")
        active = nodes.result("Gelu", name)
        quantiser: Quantiser | None = None
        down: Linear | BlockLinear
        if nodes.next == BY_BLOCK and isinstance(attention, FirstRows):
            name, down = self._block_linear(active, feed)
        else:
            found, quantiser = self._read(active, feed)
            name, down = self._linear(found, feed, width)
        done, after = self._norm(nodes.result("Add", name, attended))
        norm = replace(norm, read=seen)
        layer = Layer(attention, steps, how, out, norm, up, quantiser, down, after)
        return done, read, layer

    def _attend(self, names: Sequence[str]) -> tuple[str, tuple[float, float, float] | None]:
        """Return the context of all rows, and the steps of attention in bytes where a graph has it."""
        nodes = self._nodes
        if nodes.next == ATTEND:
            return self._attend_in_floats(nodes, names), None
        if not self._is_long:
            n_tokens = nodes.result("Shape", names[0], start=1, end=2)
            compared = nodes.take("GreaterOrEqual", n_tokens, None)
            self._long_from = int(nodes.constant(compared.inputs[1], np.int64, 1).item())
            self._is_long = compared.outputs[0]
            if not 0 < self._long_from < 1 << 20:
                raise NotReadable(f"{compared.inputs[1]} is {self._long_from}")
        choice = nodes.take("If", self._is_long, else_branch=Graph, then_branch=Graph)
        short = nodes.branch(choice, "else_branch")
        short.end(self._attend_in_floats(short, names))
        long = nodes.branch(choice, "then_branch")
        steps = read_steps(long, names, self._heads, self._width // self._heads)
        return choice.outputs[0], steps

    def _attend_in_floats(self, nodes: Nodes, names: Sequence[str]) -> str:
        node = nodes.take(ATTEND, *names, num_heads=int)
        self._count_heads(node.attributes["num_heads"])
        return node.outputs[0]

    def _count_heads(self, heads: int) -> None:
        if heads < 1 or self._width % (heads * COLUMNS) or self._heads not in (0, heads):
            raise NotReadable(f"it has {heads} heads in rows of {self._width}")
        self._heads = heads

    def _first_row(self, hidden: str) -> str:
        node = self._nodes.take("Slice", hidden, None, None, None)
        for name, value in zip(node.inputs[1:], (0, 1, 1), strict=True):
            self._nodes.is_whole(name, [value])
        return node.outputs[0]

    def _first_rows(self, residual: str, hidden: str) -> tuple[str, FirstRows]:
        nodes, width = self._nodes, self._width
        found, first = self._read(residual, width)
        name, query = self._linear(found, width, width)
        name, sought, keys = self._by_head(name, axis=2)
        scaled = nodes.take(ATTEND, name, hidden, hidden, num_heads=1, scale=float)
        scale = scaled.attributes["scale"]
        if not abs(scale * (width // self._heads) ** 0.5 - 1) < 1e-6:
            raise NotReadable(f"its scores are scaled by {scale}")
        context, gathered, values = self._by_head(scaled.outputs[0], axis=1)
        return context, FirstRows(first, query, sought, keys, gathered, values)

    def _by_head(self, tensor: str, axis: int) -> tuple[str, Quantiser, list[Linear]]:
        """Return a product for each head; axis: where the heads lie side by side before it."""
        nodes, width = self._nodes, self._width
        (found, step, zero), how = self._read(tensor, width)
        split = nodes.take("Split", found, None, axis=axis)
        heads = len(split.outputs)
        self._count_heads(heads)
        size = width // heads if axis == 2 else 1
        nodes.is_whole(split.inputs[1], [size] * heads)
        shape = (width // heads, width) if axis == 2 else (width, width // heads)
        made = [self._linear((part, step, zero), *shape) for part in split.outputs]
        joined = nodes.result("Concat", *(name for name, _ in made), axis=3 - axis)
        return joined, how, [linear for _, linear in made]


def _side_by_side(linears: Sequence[Linear]) -> Linear:
    """Return layers of one input as one."""
    return Linear(
        np.concatenate([each.weight for each in linears], axis=1),
        np.concatenate([each.scale for each in linears]),
        np.concatenate([each.bias for each in linears]),
    )
