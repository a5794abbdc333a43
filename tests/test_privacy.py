"""Nothing leaves the machine, and nothing is written outside the data folder, as strace shows."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import pytest

from server.inference.manifest import MANIFEST_FILE
from tests.stress.runs import egress
from tests.stress.runs.egress import STAYS, addresses
from tests.support.postgres import free_port
from tests.support.processes import ROOT, command, environment, serving
from tests.support.toys import toy_texts, write_toy_texts

FILE_CALLS = ("open", "openat", "creat", "mkdir", "mkdirat", "rename", "renameat", "renameat2")
WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND")
PATH = re.compile(r'"((?:[^"\\]|\\.)*)"')


@pytest.fixture(scope="module")
def strace() -> str:
    """Return the path of strace, if it is installed and may trace."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is not installed")
    tried = subprocess.run([found, "-f", "-o", os.devnull, "true"], capture_output=True)
    if tried.returncode:
        pytest.skip(f"strace may not trace here: {tried.stderr.decode().strip()}")
    return found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def environ(home: Path) -> Mapping[str, str]:
    """Return the variables of a user with an empty home, without those that turn telemetry off."""
    kept = {
        name: value
        for name, value in environment(HOME=str(home)).items()
        if not name.startswith(("XDG_", "ORT_", "HF_", "TOKENIZERS_", "DO_NOT_TRACK"))
    }
    return kept


def tracing(strace: str, trace: Path) -> list[str]:
    return egress.tracing(strace, trace, egress.CALLS + FILE_CALLS)


def lines(trace: Path) -> list[str]:
    return trace.read_text(encoding="utf-8", errors="replace").splitlines()


def written(trace: Path) -> set[Path]:
    """Return every path that was opened for writing, made or renamed, also where that failed."""
    paths = set()
    for line in lines(trace):
        call, _, rest = line.split(None, 1)[1].partition("(")
        reads = call in ("open", "openat") and not WRITES.search(rest)
        if call in FILE_CALLS and not reads:
            paths |= {ROOT / path for path in PATH.findall(rest)}
    return paths


def check_private(trace: Path, data: Path, home: Path) -> None:
    assert any(MANIFEST_FILE in line for line in lines(trace)), "nothing was traced"
    for address in addresses(trace):
        assert STAYS.search(address), address
    outside = {
        path
        for path in written(trace)
        if not path.is_relative_to(data) and not path.is_relative_to("/proc")
    }
    assert outside <= {Path(os.devnull)}
    assert list(home.iterdir()) == []


def test_server_keeps_to_itself(
    strace: str, toy_artifact: Path, tmp_path: Path, home: Path, environ: Mapping[str, str]
) -> None:
    trace = tmp_path / "trace"
    prefix = tracing(strace, trace)
    with serving(toy_artifact, tmp_path, prefix=prefix, environ=environ) as server:
        with httpx.Client(base_url=server.url, trust_env=False) as client:
            for path, body in (
                ("/embed", {"texts": toy_texts(50)}),
                ("/embed", {"inputs": "墨池", "prompt_name": "query"}),
                ("/v1/embeddings", {"input": ["see http://192.0.2.1/x"], "user": "a@b.example"}),
                ("/v1/embeddings", {"input": 5}),
            ):
                assert client.post(path, json=body).status_code in (200, 400)
            for path in ("/v1/models", "/info", "/health", "/ready", "/metrics", "/nowhere"):
                assert client.get(path).status_code in (200, 404)
        pid = server.process.pid
        (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        assert server.wait() == 0
    check_private(trace, tmp_path / "data", home)
    # The only address is the server's own.
    assert len(addresses(trace)) == 1


def test_server_asks_the_vector_database_of_its_settings_and_no_other(
    strace: str, toy_artifact: Path, tmp_path: Path, home: Path, environ: Mapping[str, str]
) -> None:
    pytest.importorskip("pg8000", reason="the client of PostgreSQL is not installed")
    trace, port = tmp_path / "trace", free_port()
    uri = f"postgresql://someone@127.0.0.1:{port}/some?sslmode=disable&timeout_s=2"
    flags = ("--vector-database", f"main={uri}")
    with serving(
        toy_artifact, tmp_path, *flags, prefix=tracing(strace, trace), environ=environ
    ) as server:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
            near = client.post("/documents", json={"documents": [{"text": "墨池"}]})
            assert near.status_code == 200
            # Nothing has been asked of the database so far.
            before = {address for address in addresses(trace) if f"({port})" in address}
            body = {"name": "far", "database": "main"}
            assert client.post("/collections", json=body).status_code == 503
        pid = server.process.pid
        (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        assert server.wait() == 0
    check_private(trace, tmp_path / "data", home)
    asked = [address for address in addresses(trace) if f"({port})" in address]
    assert before == set()
    assert len(asked) == 1
    # The other one is the server's own.
    assert len(addresses(trace)) == 2


def run_traced(
    strace: str, trace: Path, arguments: Sequence[str | Path], environ: Mapping[str, str]
) -> str:
    done = subprocess.run(
        [*tracing(strace, trace), *command(*arguments)],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_index_and_search_keep_to_themselves(
    strace: str, toy_artifact: Path, tmp_path: Path, home: Path, environ: Mapping[str, str]
) -> None:
    data, texts = tmp_path / "data", write_toy_texts(tmp_path / "texts.txt", 60)
    common = ("--model", toy_artifact, "--data", data, "--lanes", "1")
    said = run_traced(strace, tmp_path / "index", ("index", texts, *common), environ)
    assert "added 60" in said
    check_private(tmp_path / "index", data, home)
    assert any(path.is_relative_to(data) for path in written(tmp_path / "index"))

    query = toy_texts(60)[7]
    said = run_traced(strace, tmp_path / "search", ("search", query, "--json", *common), environ)
    assert query in said
    check_private(tmp_path / "search", data, home)
    assert addresses(tmp_path / "index") == addresses(tmp_path / "search") == []


def test_checks_above_would_notice(strace: str, tmp_path: Path, home: Path) -> None:
    trace = tmp_path / "trace"
    # Connecting a datagram socket sends nothing, and no machine has this address.
    code = (
        f"import os, socket; open({str(home / 'made')!r}, 'w').close();"
        f"os.mkdir({str(home / 'dir')!r});"
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 9));"
        f"os.rename({str(home / 'made')!r}, {str(home / 'new')!r})"
    )
    subprocess.run([*tracing(strace, trace), sys.executable, "-B", "-c", code], check=True)
    assert {home / "made", home / "dir", home / "new"} <= written(trace)
    (address,) = addresses(trace)
    assert "192.0.2.1" in address and not STAYS.search(address)
