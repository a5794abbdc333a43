"""A CPU without VNNI, emulated: qemu runs this very Python as a Haswell, which has AVX2 alone."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from export import pipeline
from export.settings import Settings
from server.inference.comparison import SAME_VECTORS, USABLE_VECTORS, row_cosines
from server.inference.model import Model
from server.system.cpu import EXACT_INT8_FEATURES, cpu_features
from server.types import Vectors
from tests.support.processes import ROOT, environment

QEMU = shutil.which("qemu-x86_64")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.cpu,
    pytest.mark.skipif(QEMU is None, reason="qemu-x86_64 is missing: install qemu-user"),
    pytest.mark.skipif(
        not cpu_features() & EXACT_INT8_FEATURES, reason="this CPU itself has no exact int8"
    ),
]
TEXTS = [
    "人工智能正在改变世界。",
    "AI 能做哪些事?",
    "深圳是一个高速发展的城市。",
    "劳动者每日工作时间不超过八小时、平均每周工作时间不超过四十四小时。",
    "The quick brown fox jumps over the lazy dog.",
    "SELECT name FROM users WHERE id = 42",
    # Long enough for attention in int8.
    "劳动者每日工作时间不超过八小时、平均每周工作时间不超过四十四小时，用人单位应当保证劳动者休息。"
    * 4,
]
# Opens the artifact as the server does, with what it says of it in the log, then embeds.
EMBED = """
import json, logging, sys
from pathlib import Path
import numpy as np
from server.config import effective
from server.inference.registry import opened

logging.basicConfig(level="WARNING")
(model,) = opened(effective({}, {"model": sys.argv[1], "lanes": "1"}).config)
np.save(sys.argv[2], model.embed(json.loads(sys.argv[3])))
print(model.self_test_agreement)
"""


@dataclass(frozen=True)
class Emulated:
    """cosine: of the self-test. said: standard error."""

    cosine: float
    vectors: Vectors
    said: str


def emulated(artifact: Path, folder: Path) -> Emulated:
    assert QEMU is not None
    out = folder / "vectors.npy"
    done = subprocess.run(
        [
            *(QEMU, "-cpu", "Haswell", sys.executable, "-c", EMBED),
            *(str(artifact), str(out), json.dumps(TEXTS)),
        ],
        cwd=ROOT,
        env=environment(OPENBLAS_NUM_THREADS="1", PYTHONWARNINGS="default"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return Emulated(float(done.stdout), np.load(out), done.stderr)


@pytest.fixture(scope="module")
def seven_bits(shipped_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model with weights that cannot saturate."""
    settings = Settings(
        source=str(shipped_checkpoint),
        out=tmp_path_factory.mktemp("seven") / "onnx-int8",
        weight_bits=7,
    )
    return pipeline.export(settings)


def test_8_bit_artifact_is_served_without_vnni_and_warns(
    shipped_artifact: Path, tmp_path: Path
) -> None:
    here = Model(shipped_artifact)
    if here.self_test_agreement < SAME_VECTORS:
        pytest.skip("the artifact was exported on another kind of CPU")
    there = emulated(shipped_artifact, tmp_path)
    assert USABLE_VECTORS < there.cosine < SAME_VECTORS
    assert "--weight-bits 7" in there.said
    cosines = row_cosines(here.embed(TEXTS), there.vectors)
    assert USABLE_VECTORS < cosines.min() < SAME_VECTORS


def test_7_bit_artifact_gives_the_same_vectors_with_and_without_vnni(
    seven_bits: Path, tmp_path: Path
) -> None:
    there = emulated(seven_bits, tmp_path)
    assert there.cosine >= SAME_VECTORS
    assert "--weight-bits 7" not in there.said
    np.testing.assert_allclose(there.vectors, Model(seven_bits).embed(TEXTS), atol=1e-5)
