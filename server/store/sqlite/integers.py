"""Reads a column of integers as one row, because a thread may wait for the interpreter lock after each row."""

import numpy as np
import orjson

from server.types import Labels


def integers(listed: str) -> Labels:
    """Return the integers of a `json_group_array`: int64 (N,)."""
    return np.array(orjson.loads(listed), dtype=np.int64)
