"""`bulk embed` on one machine: nothing connects outwards, and nobody can connect to it, as strace shows."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.stress.runs import egress
from tests.stress.runs.egress import STAYS, addresses
from tests.support.bulk_corpora import bulk, corpus, write_jsonl
from tests.support.processes import ROOT, environment

pytest.importorskip("distributed")
pytestmark = pytest.mark.bulk

LOOPBACK = re.compile(r'inet_addr\("127\.0\.0\.1"\)')


def test_bulk_keeps_to_itself(toy_artifact: Path, tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    trace, out = tmp_path / "trace", tmp_path / "out"
    path = write_jsonl(tmp_path / "a.jsonl", corpus(20))
    # Without the variables that turn off what others send.
    variables = environment(PYTHONWARNINGS="default", HOME=str(tmp_path / "home"))
    kept = {
        name: value for name, value in variables.items() if not name.startswith(("DASK", "DO_NOT"))
    }
    command = bulk("embed", path, "--out", out, "--model", toy_artifact)
    subprocess.run(
        [*egress.tracing(strace, trace, (*egress.CALLS, "listen")), *command],
        cwd=ROOT,
        env=kept,
        check=True,
        timeout=240,
    )
    found = list(addresses(trace))
    assert found
    for address in found:
        assert STAYS.search(address), address
    lines = trace.read_text(errors="replace").splitlines()
    bound = [line for line in lines if " bind(" in line and "AF_INET" in line]
    assert bound, "Dask has opened its ports, or this test sees nothing"
    assert all(LOOPBACK.search(line) for line in bound)
    assert sum(" listen(" in line for line in lines) <= len(bound)
    assert {each.name for each in out.iterdir()} == {
        *("part-00000-of-00001.parquet", "_manifest.json", "_rejects.jsonl", ".lock")
    }
