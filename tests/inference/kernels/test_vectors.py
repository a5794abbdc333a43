"""What the kernels compute: as ONNX Runtime does, and the same to the last bit in any company and by any threads."""

import multiprocessing
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.texts.samples import self_test_texts
from server.inference.comparison import SAME_VECTORS, row_cosines
from server.inference.encoder import SessionEncoder
from server.inference.kernels.encoder import KernelEncoder, open_network
from server.inference.kernels.library import Network
from server.inference.manifest import MODEL_FILE, read_manifest
from server.inference.model import Model
from server.system.memory import resident_bytes
from server.types import Ids, Packing, Vectors
from tests.inference.kernels.conftest import exported, opened

LENGTHS = (1, 2, 3, 13, 14, 15, 16, 17, 28, 31, 32, 33, 63, 64, 100, 127, 128, 129, 160, 255, 257, 512)
THREADS = (1, 2, 3, 8)


def random_texts(lengths: Sequence[int], vocabulary: int = 100, seed: int = 0) -> list[Ids]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, vocabulary, length) for length in lengths]


def alone(network: Network, texts: Sequence[Ids]) -> Vectors:
    return np.concatenate([network.encode([each]) for each in texts])


def by_runtime(artifact: Path, texts: Sequence[Ids]) -> Vectors:
    session = SessionEncoder(str(artifact / MODEL_FILE), Packing(1, 1))
    return np.concatenate([session.encode([each]) for each in texts])
