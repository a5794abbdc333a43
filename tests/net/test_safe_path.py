"""Modules in the working directory with the names of real ones: no process imports them."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from server.net.worker_handle import command as worker_command
from tests.net.test_socket import connect, request
from tests.net.test_worker_pool import ROUND, SEVERAL, workers_of
from tests.support.processes import ROOT, command, environment, serving

PLANTED = ("argparse", "faiss", "json", "secrets", "signal", "tokenizers", "uvicorn")
# What `python -m` itself imports or runs from the working directory, before any code of a package: only -P
# and the installed command `inkwell` are safe from it.
PLANTED_FOR_PYTHON = ("types", "server/__init__", "export/__init__")
TEXT = "墨池"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder on the import path that has the packages, as an installation has them."""
    folder = tmp_path / "installed"
    folder.mkdir()
    for name in ("server", "export"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A working directory whose modules end the process that imports them."""
    folder = tmp_path / "trap"
    folder.mkdir()
    for name in PLANTED:
        (folder / f"{name}.py").write_text(ending(name))
    return folder


def ending(name: str) -> str:
    return f"import os\nos.write(2, b'imported the wrong {name}')\nos._exit(3)\n"


@pytest.fixture
def trap_for_python(trap: Path) -> Path:
    for name in PLANTED_FOR_PYTHON:
        (trap / name).parent.mkdir(exist_ok=True)
        (trap / f"{name}.py").write_text(ending(name))
    return trap


def run(arguments: Sequence[str], cwd: Path, path: Path | None) -> str:
    """Run to a good end, and return standard output."""
    variables = {} if path is None else {"PYTHONPATH": str(path)}
    ended = subprocess.run(
        arguments,
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_trap_catches_a_process_that_looks_there_first(trap: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import faiss"], cwd=trap, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (3, "imported the wrong faiss")


def test_commands_import_nothing_from_the_working_directory(
    toy_artifact: Path, installed: Path, trap: Path, tmp_path: Path
) -> None:
    (tmp_path / "texts.txt").write_text(f"{TEXT}\n", encoding="utf-8")
    own = ("--model", str(toy_artifact), "--data", str(tmp_path / "data"))
    run(command("index", str(tmp_path / "texts.txt"), *own), trap, installed)
    assert TEXT in run(command("search", TEXT, "--json", *own), trap, installed)


def test_export_imports_nothing_from_the_working_directory(installed: Path, trap: Path) -> None:
    (trap / "server").mkdir()
    (trap / "server" / "__init__.py").write_text(ending("server"))
    assert "--precision" in run([sys.executable, "-m", "export", "--help"], trap, installed)


def test_with_a_safe_path_a_folder_named_like_the_package_is_not_it(
    installed: Path, trap_for_python: Path
) -> None:
    for package in ("server", "export"):
        assert "usage" in run(
            [sys.executable, "-P", "-m", package, "--help"], trap_for_python, installed
        )


def test_a_clone_that_is_not_installed_runs_from_its_own_folder(tmp_path: Path) -> None:
    for name in ("server", "export"):
        (tmp_path / name).symlink_to(ROOT / name)
    assert "port = 8000" in run(command("config"), tmp_path, None)
    assert "--precision" in run([sys.executable, "-m", "export", "--help"], tmp_path, None)


def test_a_server_with_workers_serves_in_such_a_folder(
    toy_artifact: Path, installed: Path, trap_for_python: Path, tmp_path: Path
) -> None:
    variables = environment(PYTHONPATH=str(installed))
    with serving(
        toy_artifact, tmp_path, *SEVERAL, environ=variables, python=("-P",), cwd=trap_for_python
    ) as server:
        for _ in range(ROUND):
            with connect(server) as connection:
                connection.sendall(request("/embed", json.dumps({"texts": [TEXT]}).encode()))
                assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        assert len(workers_of(server)) == len(SEVERAL)
        assert "wrong" not in server.log.read_text()


def test_a_worker_imports_the_package_of_its_parent(trap_for_python: Path) -> None:
    """It ends at once with status 1, because its channel is closed; the trap would give 3."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one.close()
    with other:
        started = worker_command(other.fileno())
        assert started[1] == "-P" and str(ROOT) in started
        done = subprocess.run(
            started, cwd=trap_for_python, pass_fds=[other.fileno()], capture_output=True, timeout=60
        )
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_worker_gets_no_path_that_depends_on_the_working_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the package's own folder where only such an entry has led to it."""
    kept = [each for each in sys.path if os.path.isabs(each) and each != str(ROOT)]
    monkeypatch.setattr(sys, "path", ["", "relative", *kept])
    assert worker_command(7)[3:] == ["7", str(ROOT), *kept]
