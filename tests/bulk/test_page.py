"""The commands of the page on bulk embedding, typed in a folder of a reader, give what it shows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT, environment

pytest.importorskip("distributed")
pytestmark = pytest.mark.bulk

PAGE = (ROOT / "docs/en/how-to/embed-in-bulk.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh)?\n(.*?)```", PAGE, re.DOTALL)


def test_page_shows_what_its_commands_print(shipped_artifact: Path, tmp_path: Path) -> None:
    (place,) = (place for place, (_, text) in enumerate(BLOCKS) if "corpus.jsonl" in text)
    script = BLOCKS[place][1].replace(".venv/bin/python", sys.executable)
    variables = environment(
        PYTHONWARNINGS="default", PYTHONPATH=str(ROOT), INKWELL_MODEL=str(shipped_artifact)
    )
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == BLOCKS[place + 1][1]
    assert "column is named text" in (tmp_path / "vectors" / "_rejects.jsonl").read_text()
