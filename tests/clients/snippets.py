"""The code in docs/en/how-to/clients.md, run as it stands but for the server's address."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from processes import ROOT

DOCUMENT = (ROOT / "docs/en/how-to/clients.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
# The language and the code below each title.
SECTIONS = {
    section.split("\n", 1)[0]: (block[1], block[2])
    for section in DOCUMENT.split("\n## ")[1:]
    for block in BLOCK.finditer(section)
}
ADDRESS = "http://127.0.0.1:8000"
JAVASCRIPT = Path(__file__).parent / "js"
NODE_S = 60.0


def code_of(title: str, url: str) -> str:
    code = SECTIONS[title][1]
    assert ADDRESS in code
    return code.replace(ADDRESS, url)


def run(title: str, url: str) -> dict[str, Any]:
    """The names that the section's code leaves behind."""
    if SECTIONS[title][0] == "js":
        found: dict[str, Any] = node(title, url, "console.log(JSON.stringify({ vectors, query }))")
        return found
    names: dict[str, Any] = {}
    exec(compile(code_of(title, url), f"docs/en/how-to/clients.md, {title}", "exec"), names)
    return names


def node(title: str, url: str, more: str) -> Any:
    """Return what the section's code, with `more` after it, prints as JSON."""
    if shutil.which("node") is None or not (JAVASCRIPT / "node_modules" / "openai").is_dir():
        pytest.skip("node is missing, or `npm ci` has not run in tests/clients/js")
    done = subprocess.run(
        ["node", "--input-type=module", "--eval", f"{code_of(title, url)}\n{more}"],
        cwd=JAVASCRIPT,
        capture_output=True,
        text=True,
        timeout=NODE_S,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
