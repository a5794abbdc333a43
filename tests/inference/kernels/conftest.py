"""Toy networks that the kernels know, and the shipped model with them."""

from pathlib import Path
from typing import Any

import pytest

from export.pipeline import export
from export.settings import Settings
from export.verification.verify import Thresholds
from server.inference.kernels.encoder import open_network
from server.inference.kernels.library import Network, NoKernels
from server.inference.manifest import MODEL_FILE
from tests.support.toys import write_toy_checkpoint, write_toy_texts


def exported(folder: Path, *, texts: int = 40, longest: int = 40, **checkpoint: Any) -> Path:
    """Return the int8 artifact of a toy checkpoint with these sizes."""
    settings = Settings(
        source=str(write_toy_checkpoint(folder / "toy", **checkpoint)),
        out=folder / "artifact",
        calibration=write_toy_texts(folder / "calibration.txt", texts, longest=longest),
        verify_texts=write_toy_texts(folder / "verification.txt", 10, seed=1),
        # A random network is touchy: only whether kernels and ONNX Runtime agree is of interest.
        thresholds=Thresholds(mean=0.9, minimum=0.5),
    )
    return export(settings)


def opened(artifact: Path) -> Network:
    """Return the network of an artifact; skips the test where the kernels cannot run."""
    try:
        return open_network(artifact / MODEL_FILE)
    except NoKernels as error:
        pytest.skip(f"the kernels: {error}")


@pytest.fixture(scope="session")
def cls_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three layers of two heads; the last computes first rows, and attention of 128 tokens is in bytes."""
    folder = tmp_path_factory.mktemp("cls")
    return exported(
        folder, longest=300, layers=3, hidden=64, heads=2, intermediate=128, max_tokens=512
    )


@pytest.fixture(scope="session")
def mean_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mean of all rows, which is not normalised."""
    folder = tmp_path_factory.mktemp("mean")
    return exported(folder, hidden=64, heads=1, intermediate=256, pooling="mean", normalize=False)


@pytest.fixture(scope="session")
def cls_network(cls_artifact: Path) -> Network:
    return opened(cls_artifact)


@pytest.fixture(scope="session")
def mean_network(mean_artifact: Path) -> Network:
    return opened(mean_artifact)
