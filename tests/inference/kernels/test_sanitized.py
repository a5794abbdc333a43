"""The kernels with AddressSanitizer and UBSan: random networks and batches, by one and by several threads."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from server.inference.kernels.compiler import NotCompiled, compile_library
from server.inference.kernels.library import NoKernels, check_cpu
from tests.support.processes import ROOT
from tests.support.random_networks import run

SECONDS = 25
FLAGS = (
    "-g",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
)


@pytest.fixture(autouse=True)
def cpu() -> None:
    try:
        check_cpu()
    except NoKernels as error:
        pytest.skip(f"the kernels: {error}")


def compiled(folder: Path, *flags: str) -> Path:
    try:
        return compile_library(folder / "kernels.so", "gcc", flags)
    except NotCompiled as error:
        pytest.skip(str(error))


def test_random_networks_give_vectors_that_depend_on_nothing_else(tmp_path: Path) -> None:
    assert run(compiled(tmp_path), seconds=3, seed=0) > 20


@pytest.mark.slow
def test_sanitizers_find_nothing_in_random_networks(tmp_path: Path) -> None:
    library = compiled(tmp_path, *FLAGS)
    gcc = shutil.which("gcc")
    assert gcc
    # The interpreter was not compiled with it, so it must come first.
    preloaded = subprocess.run(
        [gcc, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(preloaded).is_absolute():
        pytest.skip("gcc has no libasan")
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.random_networks", library, str(SECONDS), "1"],
        cwd=ROOT,
        # Python itself leaks on purpose at its end.
        env={**os.environ, "LD_PRELOAD": preloaded, "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True,
        text=True,
        timeout=10 * SECONDS,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert int(done.stdout) > 20
