"""The linear layers of a BERT encoder as the graph computes them: their names, kinds and float32 form.

Names follow the checkpoint: encoder.layer.0.attention.self.query, and so on. With CLS pooling the last
layer's keys and values are one linear layer a head, ...self.key.0 and so on, because they are applied
to the one row that is read instead of to all tokens (`bert._Network.attend_from_first_row` says how):
a key layer takes a head's part of the query to a row of tokens' width, a value layer back to the head's
part of the output.

Layers that read the same activation form a *site*, which has one input range and one name.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from export.checkpoint import Checkpoint, FloatArray

# Input channels that share a blockwise scale. 32 measured no closer to float32 than 128, and is slower.
BLOCK = 128


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
    """y = dequantised(x) @ (weight * weight_scale) + bias; weight: int8 (K, N), scale: float32 (N).

    output_scale: of a query, key or value layer whose output long texts read as 8-bit numbers, what one step
    of those is worth.
    """

    input: InputQuantizer
    weight: npt.NDArray[np.int8]
    weight_scale: FloatArray
    bias: FloatArray
    output_scale: float | None = None


@dataclass(frozen=True, slots=True)
class BlockwiseLinear:
    """Int8 weights with a scale per block of input channels; each row's activation is quantised
    when it arrives, block by block, so nothing is calibrated and nothing saturates.

    weight: float32 whole numbers (K, N) within +-127; scale: float32 (ceil(K / BLOCK), N).
    """

    weight: FloatArray
    scale: FloatArray
    bias: FloatArray


Linear = FloatLinear | Int8Linear | BlockwiseLinear
Linears = Mapping[str, Linear]
# Names of the linear layers that read the same activation.
Readers = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LayerNames:
    """The linear layers of one layer; `by_head` says that keys and values have a name for each head."""

    by_head: bool
    query: str
    keys: Readers
    values: Readers
    attention_out: str
    intermediate: str
    output: str

    @property
    def sites(self) -> tuple[Readers, ...]:
        """The readers of each activation, in the order in which a text meets them."""
        attention = (
            ((self.query,), self.keys, self.values)
            if self.by_head
            else ((self.query, *self.keys, *self.values),)
        )
        return (*attention, (self.attention_out,), (self.intermediate,), (self.output,))


def layer_name(index: int) -> str:
    return f"encoder.layer.{index}"


def layer_names(checkpoint: Checkpoint, index: int) -> LayerNames:
    layer = layer_name(index)
    by_head = reads_first_row(checkpoint, index)

    def readers(part: str) -> Readers:
        name = f"{layer}.attention.self.{part}"
        heads = range(checkpoint.shape.heads)
        return tuple(f"{name}.{head}" for head in heads) if by_head else (name,)

    return LayerNames(
        by_head,
        query=f"{layer}.attention.self.query",
        keys=readers("key"),
        values=readers("value"),
        attention_out=f"{layer}.attention.output.dense",
        intermediate=f"{layer}.intermediate.dense",
        output=f"{layer}.output.dense",
    )


def reads_first_row(checkpoint: Checkpoint, index: int) -> bool:
    """Whether only the first row of each text is ever read of a layer's output."""
    return checkpoint.settings.pooling == "cls" and index == checkpoint.shape.layers - 1


def site_of(linear: str) -> str:
    """The name of the activation that a linear layer reads; all its readers share it."""
    return linear.rsplit(".", 1)[0] if ".attention.self." in linear else linear


def float_linears(checkpoint: Checkpoint) -> dict[str, FloatLinear]:
    """Every linear layer, as the checkpoint has it."""
    found: dict[str, FloatLinear] = {}
    for index in range(checkpoint.shape.layers):
        names = layer_names(checkpoint, index)
        attention = f"{layer_name(index)}.attention.self"
        key, value = (_stored(checkpoint, f"{attention}.{part}") for part in ("key", "value"))
        keys, values = [key], [value]
        if names.by_head:
            keys, values = _keys_by_head(key, len(names.keys)), _by_head(value, len(names.values))
        found |= zip(names.keys, keys, strict=True)
        found |= zip(names.values, values, strict=True)
        for name in (names.query, names.attention_out, names.intermediate, names.output):
            found[name] = _stored(checkpoint, name)
    return found


def _stored(checkpoint: Checkpoint, name: str) -> FloatLinear:
    weight = np.ascontiguousarray(checkpoint.tensors[f"{name}.weight"].T)
    return FloatLinear(weight, checkpoint.tensors[f"{name}.bias"])


def _by_head(linear: FloatLinear, heads: int) -> list[FloatLinear]:
    weights = np.split(linear.weight, heads, axis=1)
    return [
        FloatLinear(np.ascontiguousarray(weight), bias)
        for weight, bias in zip(weights, np.split(linear.bias, heads), strict=True)
    ]


def _keys_by_head(linear: FloatLinear, heads: int) -> list[FloatLinear]:
    """From a head's part of the query to the width of a token.

    The bias of the keys is left out: it adds the same to all scores of a query, which changes nothing.
    """
    return [
        FloatLinear(np.ascontiguousarray(part.weight.T), np.zeros(len(part.weight), np.float32))
        for part in _by_head(linear, heads)
    ]
