"""Fixtures that all tests share: a toy checkpoint, its artifact, the shipped model, and data beside it."""

import os
from pathlib import Path

# Read when numpy is imported: on toy matrices a second BLAS thread only waits for a core.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Read when onnxruntime is imported, which some tests do before the server's own module can.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import pytest

from server.inference import engine
from server.inference.model import Model
from tests.support.commands import Commands, commands
from tests.support.many_vectors import export_toy, write_toy_m3
from tests.support.scorers import write_toy_scorer
from tests.support.toys import write_toy_checkpoint, write_toy_texts

# These run in an environment of their own: `make test-clients`.
collect_ignore = ["clients"]

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "models" / "bge-small-zh-v1.5"
SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(autouse=True)
def lanes_for_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute nothing on the loop, so that tests may stop encoders; tests of the loop undo it."""
    monkeypatch.setattr(engine, "LOOP_S", 0.0)


@pytest.fixture(scope="session")
def toy_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a 2-layer BERT of random weights: 32 wide, CLS pooling, normalised, 64 tokens.

    Shared by all tests, which do not change it.
    """
    return write_toy_checkpoint(tmp_path_factory.mktemp("checkpoint") / "toy")


@pytest.fixture(scope="session")
def toy_artifact(toy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The int8 artifact of `toy_checkpoint`, whose model id is "toy". Not to be changed either."""
    from export.pipeline import export
    from export.settings import Settings
    from export.verification.verify import Thresholds

    folder = tmp_path_factory.mktemp("artifact")
    settings = Settings(
        source=str(toy_checkpoint),
        out=folder / "onnx-int8",
        calibration=write_toy_texts(folder / "calibration.txt", 120),
        verify_texts=write_toy_texts(folder / "verification.txt", 30, seed=1),
        # A random network may hold an odd text or two on which it is touchy.
        thresholds=Thresholds(mean=0.99, minimum=0.9),
        query_instruction="搜索：",
    )
    return export(settings)


@pytest.fixture(scope="session")
def toy_model(toy_artifact: Path) -> Model:
    """Not to be changed: `with_parts` makes a copy with other parts."""
    return Model(toy_artifact)


@pytest.fixture(scope="session")
def scorer_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose score of a pair follows from its mean token id; 16 tokens, its id is "toy-scorer"."""
    return write_toy_scorer(tmp_path_factory.mktemp("scorer") / "artifact")


@pytest.fixture(scope="session")
def toy_scorer(scorer_artifact: Path) -> Model:
    return Model(scorer_artifact)


@pytest.fixture(scope="session")
def m3_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random XLM-R of one layer with the heads of bge-m3; 24 tokens."""
    return write_toy_m3(tmp_path_factory.mktemp("m3") / "toy-m3", layers=1, max_tokens=24)


@pytest.fixture(scope="session")
def toy_m3(m3_checkpoint: Path) -> list[Model]:
    """Its sparse weights and its token vectors, each a model of its own, in float32; both are "toy-m3"."""
    return [export_toy(m3_checkpoint, task) for task in ("sparse", "token_vectors")]


@pytest.fixture(scope="session")
def shipped_checkpoint() -> Path:
    """bge-small-zh-v1.5 as it ships with the repository."""
    if not (SHIPPED / "model.safetensors").exists():
        pytest.skip("models/bge-small-zh-v1.5 is not in this copy")
    return SHIPPED


@pytest.fixture(scope="session")
def shipped_artifact() -> Path:
    """The int8 artifact of the shipped model, as `make export` leaves it."""
    folder = SHIPPED / "onnx-int8"
    if not (folder / "manifest.json").exists():
        pytest.skip("the shipped model is not exported: run `make export`")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Public data sets that are kept beside the project, not in it."""
    if not SHARED_DATA.is_dir():
        pytest.skip("there is no ../shared/data beside the project")
    return SHARED_DATA


@pytest.fixture
def run(
    toy_artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Commands:
    """The command line with the toy artifact and an empty data folder."""
    return commands(toy_artifact, tmp_path / "data", monkeypatch, capsys)
