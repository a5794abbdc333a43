"""Without a network at all: in a network namespace that has a loopback and no route to anywhere."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.processes import ROOT, environment

pytestmark = [pytest.mark.slow, pytest.mark.stress]
# Map the user, where it may not make a namespace as itself.
WAYS = (["unshare", "--net"], ["unshare", "--net", "--map-root-user"])
UP = 'ip link set lo up && exec "$@"'
# Serving, embedding, documents, searching, the command line, alone and beside a server.
TESTS = (
    "net/test_socket.py",
    "net/test_worker_pool.py",
    "cli/test_remote.py",
    "cli/test_ingest.py",
)
TRY_TO_LEAVE = """
import errno, socket
assert open("/proc/net/route").read().count("\\n") <= 1, "there is a route"
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as leaving:
    assert leaving.connect_ex(("192.0.2.1", 9)) == errno.ENETUNREACH
"""


@pytest.fixture(scope="module")
def isolated() -> list[str]:
    """Return what to put before a command that is to have no network."""
    said = "unshare and ip are needed"
    for way in WAYS:
        prefix = [*way, "sh", "-c", UP, "sh"]
        try:
            done = subprocess.run([*prefix, "true"], capture_output=True, text=True)
        except FileNotFoundError:
            break
        if done.returncode == 0:
            return prefix
        said = done.stderr.strip()
    pytest.skip(f"no network namespace can be made here: {said}")


def run(prefix: Sequence[str], *arguments: str | Path) -> str:
    done = subprocess.run(
        [*prefix, sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_namespace_leads_nowhere(isolated: list[str]) -> None:
    run(isolated, "-c", TRY_TO_LEAVE)


def test_tests_of_the_server_pass_without_a_network(isolated: list[str]) -> None:
    tests = [ROOT / "tests" / name for name in TESTS]
    said = run(isolated, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests)
    assert " passed" in said and "skipped" not in said


def test_shipped_model_indexes_and_finds_without_a_network(
    isolated: list[str], shipped_artifact: Path, tmp_path: Path
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("今天天气很好，适合出去郊游。\n人工智能正在改变世界。\n", encoding="utf-8")
    common = ("--model", shipped_artifact, "--data", tmp_path / "data", "--lanes", "1")
    assert "added 2" in run(isolated, "-m", "server", "index", texts, *common)
    found = run(isolated, "-m", "server", "search", "AI 能做哪些事?", "--top-k", "1", *common)
    assert "人工智能正在改变世界。" in found
