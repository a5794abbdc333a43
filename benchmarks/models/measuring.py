"""Measures an artifact in the process that runs this: speed, memory, and what a batch changes.

    python -m benchmarks.models.measuring ARTIFACT

One JSON object. Speed: with a thread for every core, the median of several runs.
"""

import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

from server.inference.comparison import COMPARISONS
from server.inference.model import Model
from server.system.cpu import cpu_budget
from server.types import Ids

SHAPES = {"1x128": [128], "16x16": [16] * 16}
LEAST_RUNS, SECONDS = 3, 3.0
# Lengths of texts that are computed alone and together.
TOGETHER = (5, 9, 16, 16, 31, 60)
Figures = dict[str, float]


def measure(artifact: Path) -> Figures:
    """Return the figures of an artifact."""
    model = Model(artifact, wide_threads=cpu_budget())
    found: Figures = {
        "batch_difference": batch_difference(model),
        "file_mb": sum(each.stat().st_size for each in artifact.glob("*.onnx*")) / 1e6,
    }
    for name, lengths in SHAPES.items():
        found |= {f"{key}_{name}": value for key, value in _speed(model, _texts(lengths)).items()}
    found["serving_peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {key: float(f"{value:.4g}") for key, value in found.items()}


def batch_difference(model: Model) -> float:
    """Return how far the results of texts move in a batch: of a vector's length, or of a score."""
    texts = _texts(TOGETHER)
    packing, encoder = model.encoder.packing, model.encoder
    batches = [texts] if packing.allows(TOGETHER) else [[each, each] for each in texts]
    distance = COMPARISONS[model.manifest.task].distance
    largest = 0.0
    for batch in batches:
        alone = np.concatenate([encoder.encode([ids]) for ids in batch])
        largest = max(largest, float(distance(encoder.encode(batch), alone).max()))
    return largest


def _texts(lengths: Sequence[int]) -> list[Ids]:
    """Return texts of common words; their meaning does not matter for speed."""
    random = np.random.default_rng(0)
    return [random.integers(1000, 8000, length) for length in lengths]


def _speed(model: Model, batch: Sequence[Ids]) -> Figures:
    """Return tokens per second, and per second of CPU time, which other work on the machine moves less."""
    encoder = model.wide or model.encoder
    encoder.encode(batch)
    times: list[tuple[float, float]] = []
    began = time.perf_counter()
    while len(times) < LEAST_RUNS or time.perf_counter() - began < SECONDS:
        started, cpu = time.perf_counter(), time.process_time()
        encoder.encode(batch)
        times.append((time.perf_counter() - started, time.process_time() - cpu))
    tokens = sum(map(len, batch))
    wall, busy = (median(column) for column in zip(*times, strict=True))
    return {"tokens_s": tokens / wall, "tokens_cpu_s": tokens / busy}


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
