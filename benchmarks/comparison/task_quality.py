"""Quality of a contender's vectors, and the project's one rule of equal quality.

Two servers are equally good if they do a task equally well: Spearman's rank correlation x 100 on the
STS-B pairs is at most STS_POINTS below this project's. The cosine to float32 stands beside it and
decides nothing: it says how far the numbers moved, not whether that matters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import reference
from benchmarks.machine import Line
from benchmarks.quality import read_pairs, spearman
from server.inference.comparison import row_cosines
from server.types import Vectors

# Of Spearman x 100. int8 moves this project's own figure by 0.13 (76.74, float32 76.87; 2026-11-24, AMD
# EPYC with AVX512-VNNI), so a smaller allowance would judge rounding.
STS_POINTS = 0.3


@dataclass(frozen=True, slots=True)
class Quality:
    """Cosine to sentence-transformers' float32 vectors, and Spearman x 100 where STS pairs are given."""

    cosine_mean: float
    cosine_min: float
    texts: int
    spearman: float | None = None

    def line(self) -> Line:
        """Return what a result line shows."""
        found = {"sts_spearman": self.spearman} if self.spearman is not None else {}
        cosines = {"cosine_mean": self.cosine_mean, "cosine_min": self.cosine_min}
        return {**found, **cosines, "cosine_texts": self.texts}


def measure(embed: Callable[[str], list[float]], sts: Path | None) -> Quality:
    """Return the quality of `embed`, which is called once per text.

    Raises ValueError if its vectors have another dimension than the reference.
    """
    texts, expected = reference.load()
    mean, minimum = cosines(_vectors(embed, texts), expected)
    if sts is None:
        return Quality(mean, minimum, len(texts))
    sentences, scores = read_pairs(sts)
    return Quality(mean, minimum, len(texts), spearman(_vectors(embed, sentences), scores))


def equal(theirs: Quality, ours: Quality) -> bool:
    """Return whether `theirs` does STS-B as well as `ours` or better; False where one is unknown."""
    if theirs.spearman is None or ours.spearman is None:
        return False
    # subtle: figures have two decimals, their difference more.
    return round(ours.spearman - theirs.spearman, 2) <= STS_POINTS


def cosines(vectors: Vectors, expected: Vectors) -> tuple[float, float]:
    """Return the mean and the lowest cosine row by row; raises ValueError for different shapes."""
    if vectors.shape != expected.shape:
        raise ValueError(f"vectors of shape {vectors.shape}, not {expected.shape}")
    found = row_cosines(vectors, expected)
    return round(float(found.mean()), 5), round(float(found.min()), 5)


def _vectors(embed: Callable[[str], list[float]], texts: list[str]) -> Vectors:
    return np.array([embed(text) for text in texts], np.float32)
