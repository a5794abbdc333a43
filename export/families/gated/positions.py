"""Numbers by which attention knows the places of tokens: rotary tables and the slopes of ALiBi.

Rotary positions: Su et al., RoFormer, 2021. ALiBi: Press et al., Train Short, Test Long, 2022; here it
reaches to both sides, as in jina-embeddings-v2. NTK scaling divides each frequency as the code of the
models "new" does: the base is multiplied by the factor, and the frequency divided by factor ** (2 / width).
"""

import numpy as np

from export.families.gated.shape import GatedShape, Rotary
from export.source.tensors import FloatArray

# Tokens of a tile of queries where a text's scores are not computed all at once (ALiBi), and so the length
# from which they are not.
TILE = 128


def rotary_tables(rotary: Rotary, width: int, n_tokens: int) -> tuple[FloatArray, FloatArray]:
    """Return the cosines and sines of every place and frequency: float32 (n_tokens, width / 2) each."""
    # In float32, as torch computes them: at 8,192 tokens the last digits of an angle are felt.
    exponents = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    base = np.float32(rotary.theta * rotary.factor)
    frequencies = np.float32(1) / base**exponents / np.float32(rotary.factor ** (2 / width))
    angles = np.outer(np.arange(n_tokens, dtype=np.float32), frequencies).astype(np.float32)
    return np.cos(angles), np.sin(angles)


def alibi_slopes(heads: int) -> FloatArray:
    """Return how much each head's scores fall with the distance of one token: float32 (heads,).

    For a power of two a geometric series that ends at 1/256. Other numbers take the rest from the series
    of twice as many heads, every other slope.
    """
    power = 1 << (heads.bit_length() - 1)
    slopes = _series(power)
    slopes += _series(2 * power)[::2][: heads - power]
    return np.array(slopes, np.float32)


def _series(heads: int) -> list[float]:
    return [2 ** (-8 * (head + 1) / heads) for head in range(heads)]


def longest_packed(shape: GatedShape, max_tokens: int) -> int:
    """Return the length of the longest text that may stand in a packed batch.

    There attention is written without windows and without tiles.
    """
    limits = [max_tokens]
    for layer in shape.layers:
        if layer.window is not None:
            limits.append(layer.window + 1)
        if layer.rotary is None:
            limits.append(TILE - 1)
    return min(limits)
