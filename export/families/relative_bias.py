"""The bias that a score gets by the distance of its two tokens, as T5 and MPNet learned it.

Distances fall into buckets (Raffel et al., T5, 2020): half of them for keys behind the query and half for keys
before it. Near distances have a bucket each; farther ones share buckets that grow like the logarithm, and from
`furthest` on there is one bucket for all. Each head has a number for each bucket.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from export.errors import CorruptFile
from export.source.json_file import Json, size
from export.source.tensors import FloatArray

# No network is near this. It refuses a damaged number before memory runs out.
MOST_BUCKETS = 65_536
# The distance from which on there is one bucket for all, where config.json does not say it.
FURTHEST = 128


class Buckets(NamedTuple):
    """How distances fall into buckets. furthest: the distance from which on there is one bucket for all."""

    number: int
    furthest: int = FURTHEST


def read_buckets(config: Json, furthest: int = FURTHEST) -> Buckets:
    """Return the buckets that config.json states; refuses more than there are distances for."""
    count = size(config, "relative_attention_num_buckets", 32, least=4, most=MOST_BUCKETS)
    if count // 4 >= furthest:
        raise CorruptFile(
            "config.json: {count} buckets of distances (relative_attention_num_buckets) have no room below "
            "the largest distance, {furthest} (relative_attention_max_distance)",
            count=count,
            furthest=furthest,
        )
    return Buckets(count, furthest)


def bucket_of(distances: npt.NDArray[np.int64], buckets: Buckets) -> npt.NDArray[np.int64]:
    """Return the bucket of each distance, the place of the key less that of the query."""
    half = buckets.number // 2
    near = half // 2
    away = np.abs(distances)
    # In float32, as torch computes it: the logarithm decides where one bucket ends.
    ratio = np.maximum(away, 1).astype(np.float32) / np.float32(near)
    grown = np.log(ratio) / np.float32(np.log(buckets.furthest / near)) * np.float32(half - near)
    far = np.minimum(near + grown.astype(np.int64), half - 1)
    return np.where(distances > 0, half, 0) + np.where(away < near, away, far)


def bias_by_distance(table: FloatArray, buckets: Buckets, least: int, most: int) -> FloatArray:
    """Return each head's bias at the distances from `least` to `most`: float32 (heads, most - least + 1).

    table: float32 (buckets, heads), as checkpoints have it.
    """
    chosen = bucket_of(np.arange(least, most + 1), buckets)
    return np.ascontiguousarray(table[chosen].T)
