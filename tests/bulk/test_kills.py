"""A corpus is embedded while processes are killed, at moments drawn at random; the result is the truth.

`kill -9` meets the driver, which is everything on one machine, and the workers and the scheduler of a cluster.
SEED draws other moments.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from server.inference.model import Model
from tests.support.bulk_corpora import bulk, check_truth, corpus, digest, run, write_jsonl
from tests.support.processes import ROOT, environment

pytest.importorskip("distributed")
pytestmark = pytest.mark.bulk

SEED = int(os.environ.get("SEED", "1"))
ROWS = 1100
KILLS = 5


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, object]]]:
    """A corpus in three files, and its rows."""
    folder = tmp_path_factory.mktemp("given")
    rows = corpus(ROWS, SEED)
    for place in range(3):
        write_jsonl(folder / f"{place}.jsonl", rows[place::3])
    return folder, rows


def until(holds: Callable[[], object]) -> None:
    """Wait for a process, which has the cores meanwhile."""
    deadline = time.monotonic() + 240
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.02)


def size(out: Path) -> int:
    """The bytes of all files under a folder that changes meanwhile."""
    found = 0
    for path in out.rglob("*"):
        with contextlib.suppress(OSError):
            found += path.stat().st_size
    return found


def until_written(out: Path, n_bytes: float, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the folder holds more than so many bytes, or the process has ended."""
    until(lambda: size(out) > n_bytes or process.poll() is not None)


def kept(out: Path, dimension: int) -> set[bytes]:
    """The digests of all vectors that are stored, in parts or in journals."""
    from server.bulk import journal
    from server.bulk.parts import vectors_in

    found = {each for path in out.glob("part-*.parquet") for each, _ in vectors_in(path)}
    folder = out / ".work" / "journals"
    names = {path.name.rpartition(".")[0].rpartition(".")[0] for path in folder.glob("*.vectors")}
    for name in names:
        found |= {each for each, _ in journal.read(folder, name, dimension)}
    return found


@contextlib.contextmanager
def started(command: list[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process that is killed at the end, with all that it has started."""
    variables = environment(PYTHONWARNINGS="default")
    with log.open("ab") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=variables, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def embedding(out: Path, given: Path, artifact: Path, *flags: str) -> list[str]:
    return bulk("embed", given, "--out", out, "--model", artifact, "--lanes", "2", *flags)


def test_killed_run_goes_on_where_it_was(
    given: tuple[Path, list[dict[str, object]]], shipped_artifact: Path, tmp_path: Path
) -> None:
    folder, rows = given
    model, out = Model(shipped_artifact), tmp_path / "out"
    choose = random.Random(SEED)
    # What the whole takes on the disk: vectors twice, in a journal and in parts, and texts.
    whole = len(rows) * (model.manifest.dimension * 4 + 100)
    for number in range(KILLS):
        target = whole * (number + choose.random()) / KILLS
        command = embedding(out, folder, shipped_artifact)
        with started(command, tmp_path / "log") as process:
            until_written(out, target, process)
        # Another run may hold the folder at once: the kernel has freed the lock.
    unique = {digest(row) for row in rows}
    before = kept(out, model.manifest.dimension)
    assert before and before <= unique
    said, _ = run(*embedding(out, folder, shipped_artifact)[4:])
    assert f"{len(unique - before):,} texts embedded" in said
    check_truth(out, rows, model)


@contextlib.contextmanager
def cluster(folder: Path, workers: int) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Run a scheduler and workers of one thread each; yield its address and its process."""
    file = folder / "scheduler.json"
    file.unlink(missing_ok=True)
    common = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
    scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", *common]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1", *common]
    worker += ["--nworkers", str(workers), "--local-directory", str(folder / "scratch")]
    with contextlib.ExitStack() as stack:
        log = folder / "cluster.log"
        process = stack.enter_context(started([*scheduler, "--scheduler-file", str(file)], log))
        until(lambda: file.exists() and "address" in file.read_text())
        stack.enter_context(started([*worker, "--scheduler-file", str(file)], log))
        yield json.loads(file.read_text())["address"], process


def worker_processes(folder: Path) -> list[int]:
    """The processes that compute, below the nannies that start them again."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            parent = int(path.with_name("stat").read_text().rpartition(")")[2].split()[1])
            above = Path(f"/proc/{parent}/cmdline").read_bytes()
            if b"spawn_main" in path.read_bytes() and str(folder).encode() in above:
                found.append(int(path.parent.name))
    return found


def test_cluster_survives_its_workers_and_not_its_scheduler(
    given: tuple[Path, list[dict[str, object]]], shipped_artifact: Path, tmp_path: Path
) -> None:
    folder, rows = given
    model, out = Model(shipped_artifact), tmp_path / "out"
    choose = random.Random(SEED)
    whole = len(rows) * (model.manifest.dimension * 4 + 100)
    with cluster(tmp_path, 2) as (address, scheduler):
        command = embedding(out, folder, shipped_artifact, "--address", address)
        log = tmp_path / "log"
        with started(command, log) as process:
            for target in sorted(whole * choose.uniform(0.05, 0.4) for _ in range(2)):
                until_written(out, target, process)
                assert process.poll() is None, log.read_text()
                until(lambda: worker_processes(tmp_path))
                os.kill(choose.choice(worker_processes(tmp_path)), signal.SIGKILL)
            before = size(out)
            until_written(out, before, process)
            assert process.poll() is None, log.read_text()
            scheduler.kill()
            until(lambda: process.poll() is not None)
        assert "run the same command again" in log.read_text()
        assert not (out / "_manifest.json").exists()
    with cluster(tmp_path, 2) as (address, _):
        said, _ = run(*embedding(out, folder, shipped_artifact, "--address", address)[4:])
        assert f"{len(rows):,} vectors" in said
    check_truth(out, rows, model)


def test_worker_with_another_model_computes_nothing(toy_artifact: Path) -> None:
    # Imported here, for the packages are not everywhere.
    from server.bulk.cluster import Opened
    from server.errors import BadSettings

    with pytest.raises(BadSettings, match="on worker tcp://10.0.0.2:4 is another model"):
        Opened(toy_artifact, "other").setup(SimpleNamespace(address="tcp://10.0.0.2:4"))
