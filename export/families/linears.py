"""The linear layers of any encoder: their float32 and int8 kinds, and how a graph computes each."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from export.graph import CONTRIB, GraphWriter
from export.source.tensors import FloatArray

# Input channels that share a blockwise scale. 32 measured no closer to float32 than 128, and is slower.
BLOCK = 128
# The same for 4-bit weights.
NIBBLE_BLOCK = 32
# Zero as uint8, of activations that are quantised by row.
MIDDLE = 128
# A row is divided by no less than this.
LEAST_SIZE = 1e-30


@dataclass(frozen=True, slots=True)
class FloatLinear:
    """y = x @ weight + bias; weight: float32 (K, N), bias: float32 (N)."""

    weight: FloatArray
    bias: FloatArray


@dataclass(frozen=True, slots=True)
class InputQuantizer:
    """x -> uint8: round(x / smoothing / scale) + zero_point, clamped to 0..255.

    smoothing: float32 (K,), one divisor a channel, or None where none is applied at run time. by_row:
    each row is first divided by its size, so that the range fits every row; what the layer computes is
    multiplied by it again. A maximum is exact, so a row's result does not depend on the rows beside it.
    floor: what is taken off every number before; a row's size is then its highest, else its largest
    absolute number. It is for activations that have a lower bound, and the bias makes up for it.
    """

    scale: float
    zero_point: int
    smoothing: FloatArray | None
    by_row: bool = False
    floor: float = 0.0


@dataclass(frozen=True, slots=True)
class Int8Linear:
    """y = dequantised(x) @ (weight * weight_scale) + bias; weight: int8 (K, N), scale: float32 (N).

    output_scale: the size of one step where long texts read this layer's output as 8-bit numbers;
    only query, key and value layers have one.
    """

    input: InputQuantizer
    weight: npt.NDArray[np.int8]
    weight_scale: FloatArray
    bias: FloatArray
    output_scale: float | None = None


@dataclass(frozen=True, slots=True)
class BlockwiseLinear:
    """Int8 weights with a scale per block of input channels.

    Each row of the activation is quantised when it arrives, block by block, so nothing is calibrated
    and nothing saturates. weight: float32 whole numbers (K, N) within +-127; scale: float32
    (ceil(K / BLOCK), N).
    """

    weight: FloatArray
    scale: FloatArray
    bias: FloatArray


@dataclass(frozen=True, slots=True)
class RowwiseLinear:
    """Int8 weights with a scale per output channel, for rows that each have their own scale.

    A row of the activation is quantised when it arrives: x -> round(x / step), step = its largest number /
    127. Nothing is calibrated and nothing saturates, and a row's result depends on that row alone: products
    of whole numbers are exact in any order. weight: int8 (K, N), weight_scale: float32 (N). smoothing: float32
    (K,), a divisor a channel that whatever writes the activation has applied; None where there is none.
    """

    weight: npt.NDArray[np.int8]
    weight_scale: FloatArray
    bias: FloatArray
    smoothing: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class NibbleLinear:
    """4-bit weights with a scale and a zero point per block of input channels.

    Each row of the activation is quantised when it arrives, block by block. weight: uint8, two numbers a byte,
    (N, blocks, NIBBLE_BLOCK / 2); scale: float32 (N, blocks); zero_point: uint8, two a byte, (N, blocks / 2).
    inputs: K.
    """

    weight: npt.NDArray[np.uint8]
    scale: FloatArray
    zero_point: npt.NDArray[np.uint8]
    bias: FloatArray
    inputs: int


Linear = FloatLinear | Int8Linear | BlockwiseLinear | RowwiseLinear | NibbleLinear
Linears = Mapping[str, Linear]
# Names of the linear layers that read the same activation.
Readers = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Site:
    """An activation that linear layers read: they share its range and its name.

    by_head: each reader reads its own part of a row, one part beside the other. blockwise: it is
    quantised by row and block as it runs (`BlockwiseLinear`). by_row: quantised by row as it runs
    (`RowwiseLinear`). after_norm: a norm writes it, and can apply a divisor. folds_into: the linear layers whose
    outputs, side by side, reach this activation unscaled, so that a divisor can be folded into them.
    feed_forward: the readers may have 4-bit weights.
    """

    name: str
    readers: Readers
    by_head: bool = False
    blockwise: bool = False
    by_row: bool = False
    after_norm: bool = False
    folds_into: Readers = ()
    feed_forward: bool = False


class LinearsByLayer(Mapping[str, FloatLinear]):
    """The float32 linear layers of a network, of which one layer's at a time are in memory.

    names: of the linear layers, by the layer that they are part of. read: returns those of a layer.
    """

    def __init__(
        self, names: Sequence[Sequence[str]], read: Callable[[int], Mapping[str, FloatLinear]]
    ) -> None:
        self._layers = {name: index for index, layer in enumerate(names) for name in layer}
        self._read = read
        self._index = -1
        self._current: Mapping[str, FloatLinear] = {}

    def __getitem__(self, name: str) -> FloatLinear:
        index = self._layers[name]
        if index != self._index:
            self._current, self._index = {}, -1
            self._current, self._index = self._read(index), index
        return self._current[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


class LinearWriter:
    """Appends linear layers to a graph, each as its kind asks for."""

    def __init__(self, graph: GraphWriter, linears: Linears) -> None:
        self._graph = graph
        self._linears = linears
        # Site -> the size of each row, where the site is quantised by row.
        self._sizes: dict[str, str] = {}

    def read(self, tensor: str, site: Site) -> str:
        """Return what a site's layers read: `tensor` itself, or its uint8 form."""
        linear = self._linears[site.readers[0]]
        if isinstance(linear, RowwiseLinear):
            return self._quantize_rows(tensor, site)
        if not isinstance(linear, Int8Linear):
            return tensor
        name = site.name
        if linear.input.smoothing is not None:
            divisor = self._graph.floats(f"{name}.smoothing", 1.0 / linear.input.smoothing)
            tensor = self._graph.node("Mul", [tensor, divisor], f"{name}.smoothed")
        if linear.input.by_row:
            if linear.input.floor:
                floor = self._graph.floats(f"{name}.floor", linear.input.floor)
                tensor = self._graph.node("Sub", [tensor, floor], f"{name}.raised")
            one_sided = bool(linear.input.floor)
            size = self._sizes[name] = self._size_of_row(tensor, name, one_sided=one_sided)
            tensor = self._graph.node("Div", [tensor, size], f"{name}.divided")
        scale, zero_point = self._quantization(site, linear.input)
        return self._graph.node("QuantizeLinear", [tensor, scale, zero_point], f"{name}.quantized")

    def apply(self, read: str, name: str, site: Site) -> str:
        """Write the layer `name`, a reader of `site`; read: what `read` returned, or a part of it."""
        graph, linear = self._graph, self._linears[name]
        if isinstance(linear, BlockwiseLinear):
            return self._blockwise(read, name, linear)
        if isinstance(linear, NibbleLinear):
            return self._nibbles(read, name, linear)
        if isinstance(linear, Int8Linear):
            return self._int8(read, name, site, linear)
        if isinstance(linear, RowwiseLinear):
            return self._rowwise(read, name, site, linear)
        weight = graph.floats(f"{name}.weight", linear.weight)
        if not linear.bias.any():
            return graph.node("MatMul", [read, weight], name)
        product = graph.node("MatMul", [read, weight], f"{name}.product")
        return graph.node("Add", [product, graph.floats(f"{name}.bias", linear.bias)], name)

    def read_and_apply(self, tensor: str, site: Site) -> str:
        """Write the only layer that reads `site`."""
        (name,) = site.readers
        return self.apply(self.read(tensor, site), name, site)

    def _int8(self, read: str, name: str, site: Site, linear: Int8Linear) -> str:
        scale, zero_point = self._quantization(site, linear.input)
        product = [
            read,
            self._graph.constant(f"{name}.weight", linear.weight),
            scale,
            self._graph.floats(f"{name}.weight_scale", linear.weight_scale),
            zero_point,
        ]
        bias = self._graph.floats(f"{name}.bias", linear.bias)
        multiply = "MatMulIntegerToFloat"
        if not linear.input.by_row:
            return self._graph.node(multiply, [*product, "", bias], name, CONTRIB)
        by_size = self._graph.node(multiply, product, f"{name}.by_size", CONTRIB)
        restored = self._graph.node("Mul", [by_size, self._sizes[site.name]], f"{name}.restored")
        return self._graph.node("Add", [restored, bias], name)

    def _size_of_row(self, tensor: str, name: str, *, one_sided: bool) -> str:
        """Return the highest or the largest absolute number of each row, float32 (B, T, 1)."""
        graph, last = self._graph, self._graph.integers("last_axis", [-1])
        sides = [graph.node("ReduceMax", [tensor, last], f"{name}.high", keepdims=1)]
        if not one_sided:
            low = graph.node("ReduceMin", [tensor, last], f"{name}.low", keepdims=1)
            sides.append(graph.node("Neg", [low], f"{name}.below"))
        # A row of zeros stays one.
        least = graph.floats("least_size", LEAST_SIZE)
        return graph.node("Max", [*sides, least], f"{name}.size")

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

    def _nibbles(self, read: str, name: str, linear: NibbleLinear) -> str:
        graph = self._graph
        weights = [
            graph.constant(f"{name}.weight", linear.weight),
            graph.floats(f"{name}.weight_scale", linear.scale),
            graph.constant(f"{name}.weight_zero", linear.zero_point),
        ]
        if linear.bias.any():
            weights += ["", graph.floats(f"{name}.bias", linear.bias)]
        return graph.node(
            "MatMulNBits",
            [read, *weights],
            name,
            domain=CONTRIB,
            K=linear.inputs,
            N=len(linear.scale),
            bits=4,
            block_size=NIBBLE_BLOCK,
            # 4 asks for int8 arithmetic.
            accuracy_level=4,
        )

    def _quantize_rows(self, tensor: str, site: Site) -> str:
        """Write the rows of `tensor`, float32 (B, T, K), as uint8 around MIDDLE, and the step of each row."""
        graph, name = self._graph, site.name
        last = graph.integers("rows.last_axis", [-1])
        sizes = graph.node("Abs", [tensor], f"{name}.sizes")
        highest = graph.node("ReduceMax", [sizes, last], f"{name}.highest", keepdims=1)
        # A row of zeros has a step, too.
        least = graph.floats("rows.least", LEAST_SIZE)
        highest = graph.node("Max", [highest, least], f"{name}.divisible")
        part = graph.floats("rows.part", 1 / 127)
        steps = graph.node("Mul", [highest, part], f"{name}.steps")
        step_of_row = graph.node("Reshape", [steps, last], f"{name}.step_of_row")
        n_rows = graph.node("Shape", [step_of_row], f"{name}.n_rows")
        middle = graph.constant("rows.middle", np.array(MIDDLE, np.uint8))
        middles = graph.node("Expand", [middle, n_rows], f"{name}.middles")
        width = len(self._linears[site.readers[0]].weight)
        flat = graph.integers(f"rows.flat.{width}", [-1, width])
        rows = graph.node("Reshape", [tensor, flat], f"{name}.rows")
        quantized = graph.node(
            "QuantizeLinear", [rows, step_of_row, middles], f"{name}.rows.quantized", axis=0
        )
        shape = graph.node("Shape", [tensor], f"{name}.shape")
        return graph.node("Reshape", [quantized, shape], f"{name}.quantized")

    def _rowwise(self, read: str, name: str, site: Site, linear: RowwiseLinear) -> str:
        graph = self._graph
        product = graph.node(
            "MatMulIntegerToFloat",
            [
                read,
                graph.constant(f"{name}.weight", linear.weight),
                graph.floats("rows.unit", 1.0),
                graph.floats(f"{name}.weight_scale", linear.weight_scale),
                graph.constant("rows.middle", np.array(MIDDLE, np.uint8)),
            ],
            f"{name}.product",
            domain=CONTRIB,
        )
        scaled = f"{name}.scaled" if linear.bias.any() else name
        result = graph.node("Mul", [product, f"{site.name}.steps"], scaled)
        if not linear.bias.any():
            return result
        return graph.node("Add", [result, graph.floats(f"{name}.bias", linear.bias)], name)

    def _quantization(self, site: Site, quantizer: InputQuantizer) -> tuple[str, str]:
        zero_point = np.array(quantizer.zero_point, dtype=np.uint8)
        return (
            self._graph.floats(f"{site.name}.scale", quantizer.scale),
            self._graph.constant(f"{site.name}.zero_point", zero_point),
        )
