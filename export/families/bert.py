"""Writes the serving graph of a BERT encoder: token ids in, one pooled vector per text out.

A batch of texts of one length is a rectangle, (B, T). A batch of several lengths is packed: the
tokens of all its texts stand in one row after the other, (1, tokens), without padding. Everything
but attention works on single tokens and so runs on all of them at once. Attention runs once per
group of texts of equal length, without a mask, on exactly the numbers that a text alone would have:
a vector does not depend on its neighbours. There are GROUPS such places; empty ones cost little.
Where the attention of long texts is in int8 (`attention.py`) they stand only in rectangles. The graph
holds the network twice, for rectangles and for packed batches, over the same weights. A rectangle
needs `input_ids` only; the other inputs have defaults.

With CLS pooling only the first row of the last layer is ever read, so from that layer's query on
only that row is computed. One query needs no keys and values of all tokens either: its product with
a key is that of (query @ key weights) with the token, and a weighted sum of values is the weighted
sum of tokens, projected once. Both are exact; see `_attend_from_first_row`.

The same builder writes the float reference, the int8 artifact and the one-layer graphs that calibration
runs; `linears.py` has the kinds and names of the linear layers.
"""

from collections.abc import Generator, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from export.checkpoint import RELU, TANH_GELU, Checkpoint, FloatArray
from export.families.attention import LONG, Scales, attend_in_int8
from export.families.linears import (
    BLOCK,
    BlockwiseLinear,
    FloatLinear,
    InputQuantizer,
    Int8Linear,
    LayerNames,
    Linears,
    layer_name,
    layer_names,
    site_of,
)
from export.graph import CONTRIB, Branch, GraphWriter
from server.inference.encoder import (
    FIRST_ROWS,
    GROUP_SHAPES,
    GROUP_TEXTS,
    GROUP_TOKENS,
    INPUT_IDS,
    POSITION_IDS,
)
from server.types import Packing

OUTPUT, HIDDEN = "embedding", "hidden"
# Whether the batch is packed; made from the inputs once a run.
PACKED = "packed"

# Groups of equal length in one batch. Measured (2026-11-23, AVX512-VNNI, one thread), eight texts
# of 11 to 30 tokens: one by one 12.0 ms, packed in eight groups 10.4, in 16 places half empty 10.9;
# a lone text pays 0.14 of 1.45 ms for eight places without the branch and nothing with it.
GROUPS = 8


def build_model(
    checkpoint: Checkpoint, linears: Linears, *, int8_embeddings: bool
) -> onnx.ModelProto:
    """The whole network: a batch (see `server.inference.encoder.pack`) -> float32 embedding (B, D)."""
    writer = GraphWriter()
    writer.input(INPUT_IDS, TensorProto.INT64, ["rows", "columns"])
    nothing = np.zeros(GROUPS, np.int64)
    writer.optional_input(POSITION_IDS, np.zeros(1, np.int64), ["columns"])
    writer.optional_input(FIRST_ROWS, np.zeros(1, np.int64), ["texts"])
    writer.optional_input(GROUP_TEXTS, nothing, [GROUPS])
    writer.optional_input(GROUP_TOKENS, nothing, [GROUPS])
    writer.optional_input(GROUP_SHAPES, np.zeros((GROUPS, 3), np.int64), [GROUPS, 3])
    first = writer.node("Gather", [GROUP_TEXTS, writer.integers("first_group", 0)], "first_texts")
    writer.node("Cast", [first], PACKED, to=TensorProto.BOOL)

    def network(packed: bool) -> Branch:
        def write(graph: GraphWriter) -> str:
            layers = _Network(checkpoint, linears, graph, packed=packed)
            hidden = layers.embeddings(int8=int8_embeddings)
            for index in range(checkpoint.shape.layers):
                *_, (_, hidden) = layers.layer(hidden, index)
            return layers.pool(hidden)

        return write

    pooled = writer.branch(PACKED, network(packed=True), network(packed=False), "pooled")
    if checkpoint.settings.normalize:
        writer.node("LpNormalization", [pooled], OUTPUT, axis=-1, p=2)
    else:
        writer.node("Identity", [pooled], OUTPUT)
    return writer.model("bert", {OUTPUT: ["texts", checkpoint.shape.hidden]})


def packing(checkpoint: Checkpoint, linears: Linears) -> Packing:
    """Which texts the graph of these layers may be given together."""
    in_int8 = any(
        isinstance(each, Int8Linear) and each.output_scale is not None for each in linears.values()
    )
    return Packing(GROUPS, LONG - 1 if in_int8 else checkpoint.settings.max_tokens)


def build_embeddings(checkpoint: Checkpoint, *, int8: bool) -> tuple[onnx.ModelProto, str]:
    """Only the embedding layer; returns the model and the name of its output (B, T, D)."""
    writer = GraphWriter()
    writer.input(INPUT_IDS, TensorProto.INT64, ["rows", "columns"])
    output = _Network(checkpoint, {}, writer, packed=False).embeddings(int8=int8)
    return writer.model("embeddings", {output: ["rows", "columns", "width"]}), output


def build_layer(
    checkpoint: Checkpoint, linears: Linears, index: int, *, until: str | None = None
) -> tuple[onnx.ModelProto, str]:
    """One layer: float32 hidden (B, T, D) in; out its result, or the input of the site `until`.

    Returns the model and the name of its only output.
    """
    writer = GraphWriter()
    writer.input(HIDDEN, TensorProto.FLOAT, ["rows", "columns", checkpoint.shape.hidden])
    steps = _Network(checkpoint, linears, writer, packed=False).layer(HIDDEN, index)
    wanted = until or layer_name(index)
    # Nothing is written beyond the step that is wanted.
    result = next(activation for site, activation in steps if site == wanted)
    return writer.model(layer_name(index), {result: None}), result


class _Network:
    """Appends a checkpoint's operators to a graph; its methods return names of activations."""

    def __init__(
        self, checkpoint: Checkpoint, linears: Linears, writer: GraphWriter, *, packed: bool
    ) -> None:
        self._checkpoint = checkpoint
        self._shape = checkpoint.shape
        self._settings = checkpoint.settings
        self._tensors = checkpoint.tensors
        self._linears = linears
        self._graph = writer
        self._packed = packed
        self._shapes: set[str] = set()
        self._long: str | None = None

    # --- the parts, in the order in which a text meets them ----------------------------------------

    def embeddings(self, *, int8: bool) -> str:
        graph, name = self._graph, "embeddings"
        words = self._tensors[f"{name}.word_embeddings.weight"]
        if int8:
            int8_words, scale = quantize_rows(words)
            # GatherBlockQuantized would be one node, but took twice as long at 256 tokens.
            int8_table = graph.constant(f"{name}.words.int8", int8_words)
            rows = graph.node("Gather", [int8_table, INPUT_IDS], f"{name}.rows")
            rows = graph.node("Cast", [rows], f"{name}.rows_float", to=TensorProto.FLOAT)
            scales = graph.floats(f"{name}.words.scale", scale)
            scales = graph.node("Gather", [scales, INPUT_IDS], f"{name}.rows_scale")
            word = graph.node("Mul", [rows, scales], f"{name}.words")
        else:
            word = graph.node(
                "Gather", [graph.floats(f"{name}.words.float", words), INPUT_IDS], f"{name}.words"
            )
        # Every token has type 0, so that row is added to the positions once, here.
        positions = (
            self._tensors[f"{name}.position_embeddings.weight"]
            + self._tensors[f"{name}.token_type_embeddings.weight"][0]
        )
        table = positions[: self._settings.max_tokens]
        position = self._positions(graph.floats(f"{name}.positions.float", table))
        total = graph.node("Add", [word, position], f"{name}.sum")
        return self._layer_norm(total, f"{name}.LayerNorm")

    def layer(self, hidden: str, index: int) -> Iterator[tuple[str, str]]:
        """One transformer layer, written step by step.

        Yields each site and its activation before that is read, and in the end the layer's name and
        its result.
        """
        graph, name = self._graph, layer_name(index)
        names = layer_names(self._checkpoint, index)
        residual = self._first_row(hidden) if names.by_head else hidden
        yield site_of(names.query), residual
        if names.by_head:
            context = yield from self._attend_from_first_row(residual, hidden, names, name)
        else:
            context = self._attend(hidden, names, name)
        yield names.attention_out, context
        attended = self._linear(self._site_input(context, names.attention_out), names.attention_out)
        attended = graph.node("Add", [attended, residual], f"{name}.attention.sum")
        attended = self._layer_norm(attended, f"{name}.attention.output.LayerNorm")
        yield names.intermediate, attended
        wide = self._linear(self._site_input(attended, names.intermediate), names.intermediate)
        active = self._activation(wide, f"{name}.activation")
        yield names.output, active
        narrow = self._linear(self._site_input(active, names.output), names.output)
        total = graph.node("Add", [narrow, attended], f"{name}.output.sum")
        yield name, self._layer_norm(total, f"{name}.output.LayerNorm")

    def pool(self, hidden: str) -> str:
        """One row a text, (B, D)."""
        graph, pooling = self._graph, self._settings.pooling
        if pooling == "cls":
            # The last layer left one row a text: (B, 1, D).
            flat = graph.integers("flat", [-1, self._shape.hidden])
            return graph.node("Reshape", [hidden, flat], "first_rows.flat")
        operator = {"mean": "ReduceMean", "max": "ReduceMax"}[pooling]
        axis = graph.integers("axis_1", [1])
        texts = self._groups(hidden, GROUP_TOKENS, "pool") if self._packed else [hidden]
        parts = [
            graph.node(operator, [group, axis], f"pool.part.{index}", keepdims=0)
            for index, group in enumerate(texts)
        ]
        return graph.node("Concat", parts, "pool.parts", axis=0)

    # --- the operators they are made of -----------------------------------------------------------

    def _positions(self, table: str) -> str:
        """Rows of the position table: of 0, 1, ... T - 1, or what a packed batch says."""
        graph = self._graph
        if self._packed:
            return graph.node("Gather", [table, POSITION_IDS], "embeddings.positions")
        n_tokens = graph.node("Shape", [INPUT_IDS], "embeddings.n_tokens", start=1, end=2)
        begin, axis = graph.integers("zeros", [0]), graph.integers("axis_0", [0])
        return graph.node("Slice", [table, begin, n_tokens, axis], "embeddings.positions")

    def _attend(self, hidden: str, names: LayerNames, layer: str) -> str:
        """Each text's tokens attend to that text's."""
        graph, name = self._graph, f"{layer}.attention.context"
        readers = (names.query, *names.keys, *names.values)
        read = self._site_input(hidden, site_of(names.query), like=names.query)
        projected = [self._linear(read, reader) for reader in readers]

        if not self._packed:
            return self._attend_by_length(projected, readers, name)
        groups = [self._groups(each, GROUP_TOKENS, f"{each}.groups") for each in projected]
        row = graph.integers("row", [1, -1, self._shape.hidden])
        parts = []
        for group, tensors in enumerate(zip(*groups, strict=True)):
            attended = self._fused(graph, tensors, f"{name}.{group}")
            parts.append(graph.node("Reshape", [attended, row], f"{attended}.row"))
        return graph.node("Concat", parts, name, axis=1)

    def _fused(self, graph: GraphWriter, projected: Sequence[str], name: str) -> str:
        """Attention in float32, written to `graph`: this one's or a subgraph's."""
        heads = self._shape.heads
        return graph.node("MultiHeadAttention", projected, name, CONTRIB, num_heads=heads)

    def _attend_by_length(self, projected: Sequence[str], readers: Sequence[str], name: str) -> str:
        """In int8 where the texts are long and the layers say how."""
        steps = [
            linear.output_scale
            for linear in (self._linears[reader] for reader in readers)
            if isinstance(linear, Int8Linear) and linear.output_scale is not None
        ]
        if not steps:
            return self._fused(self._graph, projected, name)
        scales, heads = Scales(*steps), self._shape.heads
        width = self._shape.hidden // heads
        return self._graph.branch(
            self._is_long(projected[0]),
            lambda graph: attend_in_int8(graph, projected, scales, heads, width, f"{name}.int8"),
            lambda graph: self._fused(graph, projected, f"{name}.float"),
            name,
            share_constants=False,
        )

    def _is_long(self, tensor: str) -> str:
        """Whether the texts of a tensor (B, T, D), or of any other of this batch, are long."""
        if self._long is None:
            n_tokens = self._graph.node("Shape", [tensor], "attention.n_tokens", start=1, end=2)
            least = self._graph.integers("attention.long", [LONG])
            self._long = self._graph.node("GreaterOrEqual", [n_tokens, least], "attention.is_long")
        return self._long

    def _attend_from_first_row(
        self, first_row: str, hidden: str, names: LayerNames, layer: str
    ) -> Generator[tuple[str, str], None, str]:
        """What the one query row of each text gathers from all of its tokens, (B, 1, D).

        A score is (query @ key weights') @ token, and the gathered values are (weights @ tokens) @ value
        weights: so keys and values of the tokens are never computed, and the two products are of one
        row a head and text instead of one row a token.

        Measured (2026-11-25, AVX512-VNNI, one thread, bge-small-zh-v1.5, microseconds of one layer's
        attention; in brackets with int8 keys and values of all tokens): 1x18 70 (81), 1x128 109 (407),
        4x64 188 (830), 16x16 252 (837). With float32 weights 16x16 takes 289, with one product of
        block-diagonal rows instead of one a head 461.
        """
        graph, width = self._graph, self._shape.hidden // self._shape.heads
        asked = self._linear(
            self._site_input(first_row, site_of(names.query), like=names.query), names.query
        )
        yield site_of(names.keys[0]), asked
        sought = self._by_head(asked, names.keys, width, axis=2)
        found = self._gather_tokens(
            graph.node("Concat", sought, f"{layer}.attention.sought", axis=1),
            hidden,
            width**-0.5,
            f"{layer}.attention.found",
        )
        yield site_of(names.values[0]), found
        told = self._by_head(found, names.values, 1, axis=1)
        return graph.node("Concat", told, f"{layer}.attention.context", axis=2)

    def _by_head(self, tensor: str, names: Sequence[str], size: int, axis: int) -> list[str]:
        """Each head's part of a site's activation, `size` long on an axis, through that head's layer."""
        site = site_of(names[0])
        read = self._site_input(tensor, site, like=names[0])
        sizes = self._graph.integers(f"sizes_by_head.{size}", [size] * len(names))
        parts = self._graph.split(read, sizes, len(names), f"{site}.heads", axis)
        return [self._linear(part, name) for part, name in zip(parts, names, strict=True)]

    def _gather_tokens(self, sought: str, hidden: str, scale: float, name: str) -> str:
        """The softmax-weighted sum of each text's tokens for each head: (B, heads, D) twice.

        It is attention with the heads for queries and the tokens for keys and values. Written as two
        products and a Softmax it is 0.25 % of the whole faster, but the products' last digits depend on
        the number of threads, and what quantises them makes 0.002 of that.
        """
        graph = self._graph

        def gather(sought: str, tokens: str, output: str) -> str:
            read = (sought, tokens, tokens)
            return graph.node("MultiHeadAttention", read, output, CONTRIB, num_heads=1, scale=scale)

        if not self._packed:
            return gather(sought, hidden, name)
        texts = graph.split(sought, GROUP_TEXTS, GROUPS, f"{sought}.groups", axis=0)
        tokens = self._groups(hidden, GROUP_TOKENS, f"{name}.tokens")
        parts = [
            gather(*pair, f"{name}.{group}")
            for group, pair in enumerate(zip(texts, tokens, strict=True))
        ]
        return graph.node("Concat", parts, name, axis=0)

    def _groups(self, tensor: str, sizes: str, name: str) -> list[str]:
        """A packed tensor (1, tokens, D) as one (texts, T, D) for every group."""
        graph, groups = self._graph, []
        for group, rows in enumerate(graph.split(tensor, sizes, GROUPS, name)):
            shape = f"group_shapes.{group}"
            if shape not in self._shapes:
                index = graph.integers(f"group.{group}", group)
                self._shapes.add(graph.node("Gather", [GROUP_SHAPES, index], shape, axis=0))
            # subtle: a 0 in the shape of an empty place means no texts, not "as it was".
            groups.append(graph.node("Reshape", [rows, shape], f"{rows}.texts", allowzero=1))
        return groups

    def _linear(self, read: str, name: str) -> str:
        graph, linear = self._graph, self._linears[name]
        if isinstance(linear, FloatLinear):
            weight = graph.floats(f"{name}.weight", linear.weight)
            if not linear.bias.any():
                return graph.node("MatMul", [read, weight], name)
            product = graph.node("MatMul", [read, weight], f"{name}.product")
            return graph.node("Add", [product, graph.floats(f"{name}.bias", linear.bias)], name)
        if isinstance(linear, BlockwiseLinear):
            return self._blockwise(read, name, linear)
        scale, zero_point = self._quantization(site_of(name), linear.input)
        return graph.node(
            "MatMulIntegerToFloat",
            [
                read,
                graph.constant(f"{name}.weight", linear.weight),
                scale,
                graph.floats(f"{name}.weight_scale", linear.weight_scale),
                zero_point,
                "",
                graph.floats(f"{name}.bias", linear.bias),
            ],
            name,
            domain=CONTRIB,
        )

    def _blockwise(self, read: str, name: str, linear: BlockwiseLinear) -> str:
        inputs, outputs = linear.weight.shape
        blocks = linear.scale.shape[0]
        padded = np.full((blocks * BLOCK, outputs), 128, dtype=np.uint8)
        padded[:inputs] = linear.weight + 128
        return self._graph.node(
            "MatMulNBits",
            [
                read,
                self._graph.constant(f"{name}.weight", padded.T.reshape(outputs, blocks, BLOCK)),
                self._graph.floats(f"{name}.weight_scale", linear.scale.T),
                "",
                "",
                self._graph.floats(f"{name}.bias", linear.bias),
            ],
            name,
            domain=CONTRIB,
            K=inputs,
            N=outputs,
            bits=8,
            block_size=BLOCK,
            # 4 asks for int8 arithmetic; the default would widen the weights to float32.
            accuracy_level=4,
        )

    def _site_input(self, tensor: str, site: str, *, like: str | None = None) -> str:
        """What the linear layers of a site read: `tensor` itself, or its uint8 form."""
        linear = self._linears[like or site]
        if not isinstance(linear, Int8Linear):
            return tensor
        if linear.input.smoothing is not None:
            divisor = self._graph.floats(f"{site}.smoothing", 1.0 / linear.input.smoothing)
            tensor = self._graph.node("Mul", [tensor, divisor], f"{site}.smoothed")
        scale, zero_point = self._quantization(site, linear.input)
        return self._graph.node("QuantizeLinear", [tensor, scale, zero_point], f"{site}.quantized")

    def _quantization(self, site: str, quantizer: InputQuantizer) -> tuple[str, str]:
        return (
            self._graph.floats(f"{site}.scale", quantizer.scale),
            self._graph.constant(
                f"{site}.zero_point", np.array(quantizer.zero_point, dtype=np.uint8)
            ),
        )

    def _first_row(self, tensor: str) -> str:
        """(B, 1, D)."""
        graph, name = self._graph, f"{tensor}.first_row"
        if self._packed:
            rows = graph.node("Gather", [tensor, FIRST_ROWS], f"{name}.packed", axis=1)
            return graph.node("Transpose", [rows], name, perm=[1, 0, 2])
        begin, end = graph.integers("zeros", [0]), graph.integers("ones", [1])
        return graph.node("Slice", [tensor, begin, end, graph.integers("axis_1", [1])], name)

    def _layer_norm(self, tensor: str, name: str) -> str:
        return self._graph.node(
            "LayerNormalization",
            [
                tensor,
                self._graph.floats(f"{name}.weight", self._tensors[f"{name}.weight"]),
                self._graph.floats(f"{name}.bias", self._tensors[f"{name}.bias"]),
            ],
            name,
            axis=-1,
            epsilon=self._shape.layer_norm_epsilon,
        )

    def _activation(self, tensor: str, name: str) -> str:
        if self._shape.activation == RELU:
            return self._graph.node("Relu", [tensor], name)
        approximate = "tanh" if self._shape.activation == TANH_GELU else "none"
        return self._graph.node("Gelu", [tensor], name, approximate=approximate)


def quantize_rows(table: FloatArray) -> tuple[npt.NDArray[np.int8], FloatArray]:
    """int8 with one scale a row. table: float32 (V, D) -> int8 (V, D), float32 (V, 1)."""
    scale = np.abs(table).max(axis=1, keepdims=True) / np.float32(127)
    scale[scale == 0] = 1
    return np.rint(table / scale).astype(np.int8), scale
