"""Stored float32 vectors that sentence-transformers made of texts of many kinds.

They belong to one model; tests/support/reference_vectors.py made them.
"""

import json
from pathlib import Path

import numpy as np

from server.types import Vectors

MODEL = "bge-small-zh-v1.5"
DATA = Path(__file__).parents[1] / "tests" / "data"


def load() -> tuple[list[str], Vectors]:
    """Return the texts and their vectors: float32 (B, D), rows of unit L2 norm."""
    texts: list[str] = json.loads((DATA / "mixed_texts.json").read_text(encoding="utf-8"))
    with np.load(DATA / "bge_small_zh_reference.npz") as stored:
        vectors: Vectors = stored["vectors"]
    return texts, vectors
