"""4-bit weights for the feed-forward layers of decoders, which are most of their weights.

Blocks of input channels have a scale and a zero point each. For every block some ranges narrower than its own
are tried, and the one that leaves the least error is taken; nothing is calibrated. The other linear layers are
int8, as `rowwise` makes them. An activation is quantised row by row and block by block as it arrives.

Measured (2026-11-30, random weights 128 wide, mean cosine to float32 after 3 and 14 layers, activations in float32):
every layer rounded to the nearest 0.988 and 0.945, with ranges that are searched 0.992 and 0.968, of the feed-forward
layers alone, in blocks of 16, 0.996 and 0.987. Blocks of 32 are kept: those of 16 take another bit a weight for
their scales.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from export.errors import UnsupportedModel
from export.families.family import Network
from export.families.linears import NIBBLE_BLOCK, Linear, NibbleLinear
from export.quantisation import rowwise
from export.source.tensors import FloatArray
from server.types import Ids

# Names this recipe in manifests; change it with anything that changes the numbers.
RECIPE = f"{rowwise.RECIPE}+int4-1"

LARGEST, MIDDLE = 15, 8
# Parts of a block's range that are tried.
PARTS = tuple(np.linspace(0.7, 1.05, 15, dtype=np.float32))
# Output channels that are searched at a time: more only take memory.
OUTPUTS_AT_ONCE = 512

Progress = Callable[[str], None]


def fits(network: Network) -> bool:
    """Return whether this recipe is for the network."""
    return rowwise.fits(network) and bool(_names(network))


def quantize(
    network: Network,
    token_ids: Sequence[Ids],
    *,
    weight_bits: int,
    threads: int,
    progress: Progress = lambda _: None,
) -> dict[str, Linear]:
    """Return every linear layer; token_ids: one int64 (T,) array per calibration text."""
    if not fits(network):
        raise UnsupportedModel("--precision int4 is written for decoders only; use int8 or fp16")
    done = rowwise.quantize(
        network,
        token_ids,
        weight_bits=weight_bits,
        threads=threads,
        progress=progress,
        feed_forward=False,
    )
    # From the checkpoint's own numbers: what reads and writes them is in 4 bits too, so no divisor is left.
    floats = network.float_linears()
    for name in _names(network):
        done[name] = _nibbles(floats[name].weight, floats[name].bias)
    return done


def _names(network: Network) -> list[str]:
    """Return the names of the feed-forward layers."""
    sites = [site for layer in network.layers for site in layer.sites if site.feed_forward]
    return [name for site in sites for name in site.readers]


def _nibbles(weight: FloatArray, bias: FloatArray) -> NibbleLinear:
    """Return a linear layer in 4 bits; weight: float32 (K, N)."""
    inputs, outputs = weight.shape
    blocks = -(-inputs // NIBBLE_BLOCK)
    numbers = np.empty((outputs, blocks, NIBBLE_BLOCK // 2), np.uint8)
    scales = np.empty((outputs, blocks), np.float32)
    zeros = np.full((outputs, blocks + blocks % 2), MIDDLE, np.uint8)
    for first in range(0, outputs, OUTPUTS_AT_ONCE):
        part = slice(first, first + OUTPUTS_AT_ONCE)
        rows = np.zeros((len(bias[part]), blocks * NIBBLE_BLOCK), np.float32)
        rows[:, :inputs] = weight[:, part].T
        found, scales[part], zeros[part, :blocks] = _searched(
            rows.reshape(len(rows), blocks, NIBBLE_BLOCK)
        )
        numbers[part] = _packed(found)
    return NibbleLinear(numbers, scales, _packed(zeros), bias, inputs)


def _packed(numbers: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return two numbers of 4 bits a byte, the first in the lower half; of the last axis."""
    return numbers[..., 0::2] | (numbers[..., 1::2] << np.uint8(4))


def _searched(
    blocks: FloatArray,
) -> tuple[npt.NDArray[np.uint8], FloatArray, npt.NDArray[np.uint8]]:
    """Return numbers (N, B, S), scales (N, B) and zero points (N, B) of blocks, float32 (N, B, S)."""
    best: tuple[FloatArray, FloatArray, FloatArray] | None = None
    least = np.full(blocks.shape[:2], np.inf, np.float32)
    for scale, zero in _candidates(blocks):
        whole = np.clip(np.rint(blocks / scale) + zero, 0, LARGEST)
        error = np.square((whole - zero) * scale - blocks).sum(axis=-1)
        found = whole, scale, zero
        if best is None:
            best, least = found, error
            continue
        better = error < least
        least = np.where(better, error, least)
        pairs = zip(found, best, strict=True)
        best = tuple(np.where(better[..., None], new, old) for new, old in pairs)  # type: ignore[assignment]
    assert best is not None
    whole, scale, zero = best
    return whole.astype(np.uint8), scale[..., 0], zero[..., 0].astype(np.uint8)


def _candidates(blocks: FloatArray) -> list[tuple[FloatArray, FloatArray]]:
    """Return scales and zero points to try, float32 (N, B, 1) each."""
    low, high = blocks.min(axis=-1, keepdims=True), blocks.max(axis=-1, keepdims=True)
    # With the zero in the middle the largest number by size has the end that reaches further.
    furthest = np.where(-low > high, low, high)
    found = []
    for part in PARTS:
        found.append((_divisible(furthest * part / -MIDDLE), np.full_like(low, MIDDLE)))
        scale = _divisible((high - low) * part / LARGEST)
        found.append((scale, np.clip(np.rint(-low * part / scale), 0, LARGEST)))
    return found


def _divisible(scale: FloatArray) -> FloatArray:
    return np.where(scale == 0, np.float32(1), scale)
