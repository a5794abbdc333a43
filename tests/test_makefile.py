"""What `make` says where a step fails, and what a clone must not have for its steps."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.fakes import PATIENCE_S
from tests.support.processes import ROOT


@pytest.mark.parametrize(
    ("locale", "words"), [("C.UTF-8", "Without a network"), ("zh_CN.UTF-8", "没有网络时")]
)
def test_failed_installation_says_what_to_do_without_a_network(
    tmp_path: Path, locale: str, words: str
) -> None:
    failing = tmp_path / "python"
    failing.write_text("#!/bin/sh\nexit 1\n")
    failing.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    kept.pop("MFLAGS", None)
    done = subprocess.run(
        ["make", "install", f"VENV={tmp_path / 'venv'}", f"RUN={failing}"],
        cwd=ROOT,
        env={**kept, "LC_ALL": locale},
        capture_output=True,
        timeout=PATIENCE_S,
    )
    said = done.stderr.decode()
    assert done.returncode == 2
    assert words in said and "make bundle" in said and "PIP_INDEX_URL" in said
    assert not (tmp_path / "venv").exists()


def test_no_file_of_the_repository_is_a_link() -> None:
    """A link to a folder of one machine leads nowhere in a clone, and `npm ci` would fail at it."""
    listed = subprocess.run(
        ["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert listed and [line for line in listed if line.startswith("120000 ")] == []
