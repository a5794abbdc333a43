"""A network as the kernels compute it: every tensor of it, under the names of `source/network.h`.

Sizes: H is the width of a row, F that of the feed-forward layers, K and N what a product reads and gives.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from server.types import Vectors

Bytes = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Quantiser:
    """value -> byte: round(value * scale + zero), clamped to 0..255; scale: float32 (K)."""

    scale: Vectors
    zero: float


@dataclass(frozen=True, slots=True)
class Linear:
    """bytes @ weight * scale + bias; weight: int8 (K, N), scale and bias: float32 (N).

    The step of the input is part of the scale, and its zero point is taken out of the bias.
    """

    weight: Bytes
    scale: Vectors
    bias: Vectors


@dataclass(frozen=True, slots=True)
class BlockLinear:
    """The same with a scale for each block of 128 inputs; weight: int8 (K, N), scale: float32 (K / 128, N)."""

    weight: Bytes
    scale: Vectors
    bias: Vectors


@dataclass(frozen=True, slots=True)
class Norm:
    """Layer norm; weight, bias: float32 (H). read: of the product that reads its bytes, if one does."""

    weight: Vectors
    bias: Vectors
    epsilon: float
    read: Quantiser | None = None


@dataclass(frozen=True, slots=True)
class FirstRows:
    """Attention of the first row of each text alone; keys and values: one for each head.

    first, sought, found: how the rows are read that `query`, `keys` and `values` multiply.
    """

    first: Quantiser
    query: Linear
    sought: Quantiser
    keys: Sequence[Linear]
    found: Quantiser
    values: Sequence[Linear]


@dataclass(frozen=True, slots=True)
class Layer:
    """A transformer layer. qkv: queries, keys and values side by side, or FirstRows in the last layer.

    steps: of queries, keys, and values less their average, as bytes, for long texts; None without.
    active: None before a `down` by block, which finds its steps itself.
    """

    qkv: Linear | FirstRows
    steps: tuple[float, float, float] | None
    context: Quantiser
    out: Linear
    after_attention: Norm
    up: Linear
    active: Quantiser | None
    down: Linear | BlockLinear
    after_feed: Norm


@dataclass(frozen=True, slots=True)
class Plan:
    """A network. words: int8 (vocabulary, H); word_scale: float32 (vocabulary); positions: float32 (P, H).

    long_from: tokens from which a text's attention is computed in bytes. normalised: whether vectors are
    brought to unit length.
    """

    words: Bytes
    word_scale: Vectors
    positions: Vectors
    embedded: Norm
    layers: Sequence[Layer]
    heads: int
    long_from: int
    normalised: bool
