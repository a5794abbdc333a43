"""Writes the serving graph of a BERT encoder: token ids in, one pooled vector per text out.

All rows of a batch have the same number of tokens (the server forms batches that way), so the graph
has no attention mask and no padding. With CLS pooling only the first row of the last layer is ever
read, so from that layer's query on only that row is computed; this is exact.

Each linear layer is float32 (`FloatLinear`), static int8 (`Int8Linear`) or int8 with a scale per
block and row (`BlockwiseLinear`); the same builder writes the float reference, the int8 artifact and
the one-layer graphs that calibration runs.
Tensor names follow the checkpoint: encoder.layer.0.attention.self.query, and so on.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from export.checkpoint import RELU, TANH_GELU, Checkpoint, FloatArray
from export.graph import CONTRIB, GraphWriter

INPUT, OUTPUT, HIDDEN = "input_ids", "embedding", "hidden"


@dataclass(frozen=True, slots=True)
class FloatLinear:
    """y = x @ weight + bias; weight: float32 (K, N), bias: float32 (N)."""

    weight: FloatArray
    bias: FloatArray


@dataclass(frozen=True, slots=True)
class InputQuantizer:
    """x -> uint8: round(x / smoothing / scale) + zero_point, clamped to 0..255.

    smoothing: float32 (K,), one divisor a channel, or None where none is applied at run time.
    """

    scale: float
    zero_point: int
    smoothing: FloatArray | None


@dataclass(frozen=True, slots=True)
class Int8Linear:
    """y = dequantised(x) @ (weight * weight_scale) + bias; weight: int8 (K, N), scale: float32 (N)."""

    input: InputQuantizer
    weight: npt.NDArray[np.int8]
    weight_scale: FloatArray
    bias: FloatArray


@dataclass(frozen=True, slots=True)
class BlockwiseLinear:
    """Int8 weights with a scale per block of input channels; each row's activation is quantised
    when it arrives, block by block, so nothing is calibrated and nothing saturates.

    weight: float32 whole numbers (K, N) within +-127; scale: float32 (ceil(K / BLOCK), N).
    """

    weight: FloatArray
    scale: FloatArray
    bias: FloatArray


# Input channels that share a scale. 32 measured no closer to float32 than 128, and is slower.
BLOCK = 128

Linear = FloatLinear | Int8Linear | BlockwiseLinear
Linears = Mapping[str, Linear]


def layer_name(index: int) -> str:
    return f"encoder.layer.{index}"


def linear_names(index: int) -> tuple[str, str, str, str, str, str]:
    """Query, key, value, attention output, intermediate and output projection of one layer."""
    prefix = layer_name(index)
    return (
        f"{prefix}.attention.self.query",
        f"{prefix}.attention.self.key",
        f"{prefix}.attention.self.value",
        f"{prefix}.attention.output.dense",
        f"{prefix}.intermediate.dense",
        f"{prefix}.output.dense",
    )


def site_of(linear: str) -> str:
    """The name of the activation that a linear layer reads; query, key and value share one."""
    return linear.rsplit(".", 1)[0] if ".attention.self." in linear else linear


def float_linears(checkpoint: Checkpoint) -> dict[str, FloatLinear]:
    return {
        name: FloatLinear(
            np.ascontiguousarray(checkpoint.tensors[f"{name}.weight"].T),
            checkpoint.tensors[f"{name}.bias"],
        )
        for index in range(checkpoint.shape.layers)
        for name in linear_names(index)
    }


def build_model(
    checkpoint: Checkpoint, linears: Linears, *, int8_embeddings: bool
) -> onnx.ModelProto:
    """The whole network: int64 input_ids (B, T) -> float32 embedding (B, D)."""
    writer = GraphWriter()
    writer.input(INPUT, TensorProto.INT64, ["batch", "tokens"])
    network = _Network(checkpoint, linears, writer)
    hidden = network.embeddings(int8=int8_embeddings)
    for index in range(checkpoint.shape.layers):
        hidden = network.layer(hidden, index)
    network.pool(hidden)
    return writer.model(checkpoint.name, {OUTPUT: ["batch", checkpoint.shape.hidden]})


def build_embeddings(checkpoint: Checkpoint, *, int8: bool) -> tuple[onnx.ModelProto, str]:
    """Only the embedding layer; returns the model and the name of its output (B, T, D)."""
    writer = GraphWriter()
    writer.input(INPUT, TensorProto.INT64, ["batch", "tokens"])
    output = _Network(checkpoint, {}, writer).embeddings(int8=int8)
    return writer.model(checkpoint.name, {output: ["batch", "tokens", "width"]}), output


def build_layer(
    checkpoint: Checkpoint, linears: Linears, index: int, *, until: str | None = None
) -> tuple[onnx.ModelProto, str]:
    """One layer: float32 hidden (B, T, D) in; out its result, or the input of the site `until`.

    Returns the model and the name of its only output.
    """
    writer = GraphWriter()
    writer.input(HIDDEN, TensorProto.FLOAT, ["batch", "tokens", checkpoint.shape.hidden])
    network = _Network(checkpoint, linears, writer)
    result = network.layer(HIDDEN, index, until=until)
    return writer.model(layer_name(index), {result: ["batch", "rows", "width"]}), result


class _Network:
    """Appends a checkpoint's operators to a graph; every method returns its output's name."""

    def __init__(self, checkpoint: Checkpoint, linears: Linears, writer: GraphWriter) -> None:
        self._shape = checkpoint.shape
        self._settings = checkpoint.settings
        self._tensors = checkpoint.tensors
        self._linears = linears
        self._graph = writer

    # --- the parts, in the order in which a text meets them ----------------------------------------

    def embeddings(self, *, int8: bool) -> str:
        graph, name = self._graph, "embeddings"
        words = self._tensors[f"{name}.word_embeddings.weight"]
        if int8:
            table, scale = quantize_rows(words)
            word = graph.node(
                "GatherBlockQuantized",
                [
                    graph.constant(f"{name}.words.int8", table),
                    INPUT,
                    graph.floats(f"{name}.words.scale", scale),
                ],
                f"{name}.words",
                domain=CONTRIB,
                bits=8,
                gather_axis=0,
                quantize_axis=1,
                # One block a row: the operator wants a power of two that covers it.
                block_size=max(16, 1 << (words.shape[1] - 1).bit_length()),
            )
        else:
            word = graph.node(
                "Gather", [graph.floats(f"{name}.words.float", words), INPUT], f"{name}.words"
            )
        # Every token has type 0, so that row is added to the positions once, here.
        positions = (
            self._tensors[f"{name}.position_embeddings.weight"]
            + self._tensors[f"{name}.token_type_embeddings.weight"][0]
        )
        n_tokens = graph.node("Shape", [INPUT], f"{name}.n_tokens", start=1, end=2)
        position = graph.node(
            "Slice",
            [
                graph.floats(f"{name}.positions.float", positions[: self._settings.max_tokens]),
                graph.integers("zero", [0]),
                n_tokens,
                graph.integers("axis_0", [0]),
            ],
            f"{name}.positions",
        )
        total = graph.node("Add", [word, position], f"{name}.sum")
        return self._layer_norm(total, f"{name}.LayerNorm")

    def layer(self, hidden: str, index: int, *, until: str | None = None) -> str:
        """One transformer layer; stops at the input of the site `until` when that is given."""
        graph, name = self._graph, layer_name(index)
        first_row_only = self._settings.pooling == "cls" and index == self._shape.layers - 1
        query, key, value, attention_out, intermediate, output = linear_names(index)
        if until == site_of(query):
            return hidden
        read = self._site_input(hidden, site_of(query), like=query)
        residual, query_read = hidden, read
        if first_row_only:
            residual = self._first_row(hidden)
            query_read = residual if read == hidden else self._first_row(read)
        context = graph.node(
            "MultiHeadAttention",
            [
                self._linear(query_read, query),
                self._linear(read, key),
                self._linear(read, value),
            ],
            f"{name}.attention.context",
            domain=CONTRIB,
            num_heads=self._shape.heads,
        )
        if until == attention_out:
            return context
        attended = self._linear(self._site_input(context, attention_out), attention_out)
        attended = graph.node("Add", [attended, residual], f"{name}.attention.sum")
        attended = self._layer_norm(attended, f"{name}.attention.output.LayerNorm")
        if until == intermediate:
            return attended
        wide = self._linear(self._site_input(attended, intermediate), intermediate)
        active = self._activation(wide, f"{name}.activation")
        if until == output:
            return active
        narrow = self._linear(self._site_input(active, output), output)
        total = graph.node("Add", [narrow, attended], f"{name}.output.sum")
        return self._layer_norm(total, f"{name}.output.LayerNorm")

    def pool(self, hidden: str) -> str:
        graph, pooling = self._graph, self._settings.pooling
        normalize = self._settings.normalize
        name = "pooled" if normalize else OUTPUT
        axis = graph.integers("axis_1", [1])
        if pooling == "cls":
            pooled = graph.node("Squeeze", [hidden, axis], name)
        else:
            operator = {"mean": "ReduceMean", "max": "ReduceMax"}[pooling]
            pooled = graph.node(operator, [hidden, axis], name, keepdims=0)
        if normalize:
            pooled = graph.node("LpNormalization", [pooled], OUTPUT, axis=-1, p=2)
        return pooled

    # --- the operators they are made of -------------------------------------------------------------

    def _linear(self, read: str, name: str) -> str:
        graph, linear = self._graph, self._linears[name]
        if isinstance(linear, FloatLinear):
            product = graph.node(
                "MatMul", [read, graph.floats(f"{name}.weight", linear.weight)], f"{name}.product"
            )
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
        graph = self._graph
        bounds = [graph.integers(name, [value]) for name, value in (("zero", 0), ("one", 1))]
        return graph.node(
            "Slice", [tensor, *bounds, graph.integers("axis_1", [1])], f"{tensor}.first_row"
        )

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


def quantize_rows(table: FloatArray) -> tuple[npt.NDArray[np.uint8], FloatArray]:
    """8 bits with one scale a row, 128 standing for 0.

    table: float32 (V, D) -> uint8 (V, D), float32 (V, 1).
    """
    scale = np.abs(table).max(axis=1, keepdims=True) / np.float32(127)
    scale[scale == 0] = 1
    return (np.rint(table / scale) + 128).astype(np.uint8), scale
