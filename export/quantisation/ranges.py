"""Searches how an activation becomes 8-bit numbers: SmoothQuant's divisor and the range that is kept.

`quantise.py` says why, and what it measured. Here is the arithmetic, on the rows that calibration kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from export.families.linears import LEAST_SIZE, FloatLinear, InputQuantizer
from export.source.tensors import FloatArray

# Alphas tried; 0.8 and 0.9 win nearly everywhere, 0.65 where the weights have outliers too.
ALPHAS = (0.65, 0.8, 0.9)
# Parts of the observed range that are kept, tried at the upper end, then at the lower.
CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.42, 0.35, 0.3, 0.25)
# By row, a lower bound is worth more than a sign where it is within this part of the highest: what a Gelu
# gives is never under -0.17.
LOW_SIDE = 0.5


@dataclass(slots=True)
class Rows:
    """The rows and ranges of one activation, kept by calibration.

    sampled: float32 (R, K); low, high: float32 (K,), over all rows of all texts.
    """

    sampled: FloatArray
    low: FloatArray
    high: FloatArray

    def split(self, width: int) -> "Rows":
        """Return rows of `width` channels, where a row is what several heads read side by side."""
        low, high = self.low.reshape(-1, width), self.high.reshape(-1, width)
        return Rows(self.sampled.reshape(-1, width), low.min(axis=0), high.max(axis=0))


@dataclass(frozen=True, slots=True)
class Choice:
    """A search's choice for an activation; low and high: its range after the division."""

    alpha: float | None
    divisor: FloatArray  # (K,), ones where alpha is None
    low: float
    high: float
    error: float
    by_row: bool = False
    floor: float = 0.0

    @property
    def quantizer(self) -> InputQuantizer:
        scale, zero_point = _affine(self.low, self.high)
        divisor = None if self.alpha is None else self.divisor
        return InputQuantizer(scale, zero_point, divisor, self.by_row, self.floor)

    def restored(self, x: FloatArray) -> FloatArray:
        """Return rows (R, K) divided, through uint8 and back, as the served graph reads them."""
        scaled = x / self.divisor
        if self.by_row:
            return _restored_by_row(scaled, self.floor)
        return fake_quantize(scaled, self.low, self.high)


def search(
    rows: Rows,
    linears: Sequence[FloatLinear],
    limit: int,
    *,
    must_save: float,
    by_row: bool = False,
) -> Choice:
    """Return the divisor and range with the least output error on the sampled rows.

    limit: the largest int8 weight. must_save: relative squared error that the divisor must take off,
    per channel, or it is left out. by_row: each row is divided by its size (`InputQuantizer`).
    """
    weight = np.concatenate([linear.weight for linear in linears], axis=1)
    exact = rows.sampled @ weight

    def search_range(alpha: float | None, divisor: FloatArray) -> Choice:
        return _search_range(rows, weight, exact, alpha, divisor, limit, by_row=by_row)

    plain = search_range(None, np.ones(len(weight), np.float32))
    smooth = min(
        (search_range(alpha, smoothing_divisor(rows, weight, alpha)) for alpha in ALPHAS),
        key=lambda choice: choice.error,
    )
    return smooth if plain.error - smooth.error > must_save * len(weight) else plain


def smoothing_divisor(rows: Rows, weight: FloatArray, alpha: float) -> FloatArray:
    """Return SmoothQuant's divisor per input channel, scaled to a geometric mean of 1."""
    activation = np.maximum(np.maximum(rows.high, -rows.low), 1e-5)
    divisor = activation**alpha / np.maximum(np.abs(weight).max(axis=1), 1e-5) ** (1 - alpha)
    return np.asarray(divisor / np.exp(np.log(divisor).mean()), np.float32)


def _search_range(
    rows: Rows,
    weight: FloatArray,
    exact: FloatArray,
    alpha: float | None,
    divisor: FloatArray,
    limit: int,
    *,
    by_row: bool,
) -> Choice:
    """Return the range with the least error for one divisor; exact: what the layers give, float32 (R, N)."""
    # 1 for a layer whose weights are all zero, which has no error either.
    power = float(np.square(exact).sum()) or 1.0
    scaled = rows.sampled / divisor
    quantized, weight_scale = quantize_columns(weight * divisor[:, None], limit)
    restored = quantized * weight_scale

    def squared(read: FloatArray) -> float:
        return float(np.square(read @ restored - exact).sum()) / power

    full_low = min(float((rows.low / divisor).min()), 0.0)
    full_high = max(float((rows.high / divisor).max()), 0.0)
    if by_row:
        both = Choice(alpha, divisor, -1.0, 1.0, squared(_restored_by_row(scaled, 0.0)), True)
        if not full_low or -full_low > LOW_SIDE * full_high:
            return both
        raised = squared(_restored_by_row(scaled, full_low))
        above = Choice(alpha, divisor, 0.0, 1.0, raised, True, full_low)
        return min(both, above, key=lambda choice: choice.error)

    # The two descents share a range, and the last range of all has been tried.
    @cache
    def error(low: float, high: float) -> float:
        return squared(fake_quantize(scaled, low, high))

    def descend(objective: Callable[[float], float]) -> float:
        best, least = CLIPS[0], objective(CLIPS[0])
        for clip in CLIPS[1:]:
            found = objective(clip)
            if found < least:
                best, least = clip, found
            elif found > 1.5 * least:
                break
        return best

    high = full_high * descend(lambda clip: error(full_low, full_high * clip))
    low = full_low * descend(lambda clip: error(full_low * clip, high))
    return Choice(alpha, divisor, low, high, error(low, high))


def _affine(low: float, high: float) -> tuple[float, int]:
    """Return scale and zero point of uint8 over [low, high], which contains 0."""
    scale = float(np.float32((high - low) / 255)) or 1.0
    return scale, int(np.clip(round(-low / scale), 0, 255))


def _restored_by_row(x: FloatArray, floor: float) -> FloatArray:
    """Return `x` through uint8 and back, where each row is divided by its size; see InputQuantizer."""
    raised = x - np.float32(floor)
    sides = raised if floor else np.abs(raised)
    size = np.maximum(sides.max(axis=-1, keepdims=True), np.float32(LEAST_SIZE))
    low = 0.0 if floor else -1.0
    return np.asarray(fake_quantize(raised / size, low, 1.0) * size + np.float32(floor), np.float32)


def fake_quantize(x: FloatArray, low: float, high: float) -> FloatArray:
    """Return `x` through uint8 and back, as QuantizeLinear rounds (to even) and saturates."""
    scale, zero_point = _affine(low, high)
    levels = np.rint(x * np.float32(1 / scale))
    np.clip(levels, -zero_point, 255 - zero_point, out=levels)
    return np.asarray(levels * np.float32(scale), np.float32)


def quantize_columns(weight: FloatArray, limit: int) -> tuple[FloatArray, FloatArray]:
    """Return float32 (K, N) as whole numbers within +-limit as float32 (K, N), and scales (N,)."""
    scale = np.abs(weight).max(axis=0) / np.float32(limit)
    scale[scale == 0] = 1
    return np.rint(weight / scale), np.asarray(scale, np.float32)
