"""The wheel in a new environment: `inkwell serve` fetches its model on first use, and needs no hub afterwards.

`make test-wheel` downloads the packages to build/wheels first.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support import stand_in_hub
from tests.support.processes import ROOT, RUNNING, environment
from tests.support.stand_in_hub import StandInHub

WHEELS = ROOT / "build/wheels"
PATIENCE_S = 600

pytestmark = pytest.mark.slow


def made(*command: str | Path) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def inkwell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command in a new environment, installed from the built wheel with the `export` extra."""
    if not any(WHEELS.glob("*.whl")):
        pytest.skip("build/wheels is empty: run `make test-wheel`")
    place = tmp_path_factory.mktemp("wheel")
    offline = ("--quiet", "--disable-pip-version-check", "--no-index", "--find-links", WHEELS)
    for name in ("tools", "venv"):
        made(sys.executable, "-m", "venv", place / name)
    tools, python = place / "tools/bin/python", place / "venv/bin/python"
    made(tools, "-m", "pip", "install", *offline, "--upgrade", "setuptools", "pip")
    # A copy, because the build leaves files in the folder.
    source = place / "source"
    source.mkdir()
    parts = ("pyproject.toml", "README.md", "LICENSE", "server", "export")
    made("cp", "-r", *(ROOT / name for name in parts), source)
    build = ("-m", "pip", "wheel", *offline, "--no-deps", "--no-build-isolation")
    made(tools, *build, "--wheel-dir", place, source)
    (wheel,) = place.glob("*.whl")
    made(python, "-m", "pip", "install", *offline, f"{wheel}[export]")
    return place / "venv/bin/inkwell"


@pytest.fixture
def hub(shipped_checkpoint: Path) -> Iterator[StandInHub]:
    """A hub with the shipped model under its public name."""
    hub = StandInHub()
    hub.model = "BAAI/bge-small-zh-v1.5"
    hub.files = {
        path.relative_to(shipped_checkpoint).as_posix(): path.read_bytes()
        for path in shipped_checkpoint.rglob("*")
        if path.is_file() and "onnx-" not in path.as_posix()
    }
    yield from stand_in_hub.run(hub)


def first_vector(command: list[str], place: Path, **variables: str) -> list[float]:
    """Start a server, embed a text, and stop it."""
    log = place / "log"
    variables = {"HOME": str(place), "PYTHONWARNINGS": "default", **variables}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=place, env=environment(**variables), stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not RUNNING.search(log.read_text()) and process.poll() is None:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        found = RUNNING.search(log.read_text())
        assert found, log.read_text()
        url = f"http://{found[2]}:{found[3]}"
        reply = httpx.post(f"{url}/embed", json={"texts": ["你好"]}, trust_env=False, timeout=60)
        vectors: list[list[float]] = reply.json()["vectors"]
        return vectors[0]
    finally:
        process.terminate()
        process.wait(60)


def test_first_start_fetches_the_model_and_the_next_needs_no_hub(
    inkwell: Path, hub: StandInHub, tmp_path: Path
) -> None:
    serve = [str(inkwell), "serve", "--port", "0"]
    refused = subprocess.run(
        serve, cwd=tmp_path, env=environment(HOME=str(tmp_path)), stdin=subprocess.DEVNULL,
        capture_output=True, text=True,
    )  # fmt: skip
    assert refused.returncode == 1 and "give --fetch" in refused.stderr
    assert not hub.seen
    first = first_vector([*serve, "--fetch"], tmp_path, HF_ENDPOINT=hub.url)
    assert "model.safetensors" in hub.sent()
    hub.seen.clear()
    assert first_vector(serve, tmp_path, HF_ENDPOINT=hub.url) == first and len(first) == 512
    assert not hub.seen
    folder = tmp_path / ".local/share/inkwell/models/bge-small-zh-v1.5/onnx-int8"
    assert (folder / "manifest.json").is_file()
