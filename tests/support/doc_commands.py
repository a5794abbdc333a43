"""The commands that the documents show: found on their pages, parsed, and run as a reader types them.

A page's blocks of shell commands are run one after another in one shell, in a folder that looks like a
clone. A server that a block starts goes on in the background, as in a reader's other terminal, until
the next one is started. What cannot run here says why, in a comment before the block:

    <!-- not run: needs root -->
    <!-- needs: sentence-transformers -->

The second kind runs where a Python that has the package is named by INKWELL_READER_PYTHON.
"""

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import ROOT, environment

BLOCK = re.compile(
    r"(?:<!-- (?P<kind>not run|needs): (?P<why>[^\n]+?) -->\n+)?```sh\n(?P<script>.*?)```",
    re.DOTALL,
)
# Where readers are shown commands to type, one page after another.
FOLDERS = ("docs/en/tutorial", "docs/en/how-to")
READER_PYTHON = "INKWELL_READER_PYTHON"
PORT = "8000"
SERVES = re.compile(
    r"^(?P<command>(?:make serve|\S*python -m server serve|inkwell serve)\b.*)$", re.M
)
SECONDS = 420
# Not copied into the folder of a reader: what a clone does not have, or gets by itself.
NOT_CLONED = {".git", ".venv", ".venv-clients", ".venv-manual", "build", "data", "node_modules"}
# A block that needs a package is run by the Python that has it.
AS_READER = 'python() { "$READER_PYTHON" "$@"; }'
# `make` would install packages again where a lock is newer than the environment.
PRELUDE = """
set -euo pipefail
make() { command make -o .venv/run.done -o .venv/dev.done PORT=@PORT@ "$@"; }
# A refusal ends the page, as a reader would stop there.
curl() { command curl --fail-with-body --silent --show-error "$@"; }
export -f make curl
SERVER=
serve() {
  if [ -n "$SERVER" ]; then kill "$SERVER" 2>/dev/null || true; wait "$SERVER" 2>/dev/null || true; fi
  "$@" & SERVER=$!
  for _ in $(seq 600); do
    if command curl --silent --output /dev/null localhost:@PORT@/health; then return; fi
    kill -0 "$SERVER"
    sleep 0.1
  done
}
"""


@dataclass(frozen=True, slots=True)
class Block:
    """One block of commands. line: of its fence. not_run: why it cannot be run; needs: a package."""

    page: str
    line: int
    script: str
    not_run: str
    needs: str


def pages() -> list[str]:
    """Return the pages with commands for readers, in the order of their names."""
    files = (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.md")))
    return [path.relative_to(ROOT).as_posix() for path in files]


def blocks(page: str) -> list[Block]:
    """Return the page's blocks of shell commands."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, found.start("script")),
            textwrap.dedent(found["script"]),
            found["why"] if found["kind"] == "not run" else "",
            found["why"] if found["kind"] == "needs" else "",
        )
        for found in BLOCK.finditer(text)
    ]


def commands(script: str) -> Iterator[list[str]]:
    """Yield the words of each command of a script; a here-document is left out."""
    plain = re.sub(r"<<'?(\w+)'?([^\n]*)\n.*?^\1$", r"\2", script, flags=re.DOTALL | re.MULTILINE)
    plain = re.sub(r"(^|\s)#.*$", r"\1", plain.replace("\\\n", " "), flags=re.MULTILINE)
    # A text in quotes may have lines of its own; outside of quotes a line's end ends a command.
    lexer = shlex.shlex(plain, posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, ""
    found: list[str] = []
    for word in [*lexer, ";"]:
        if not set(word) <= set("();<>|&\n"):
            found.append(word)
        elif found:
            yield found
            found = []


def arguments_of(command: Sequence[str], module: str) -> list[str] | None:
    """Return what is given to `python -m MODULE`, or None where the command is another."""
    for at, word in enumerate(command):
        if word == "-m" and list(command[at + 1 : at + 2]) == [module] and at:
            return list(command[at + 2 :]) if "python" in command[at - 1] else None
    return None


def run(page: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run the page's commands in a copy of the repository under `folder`; return how they ended."""
    home = _clone(folder)
    port = _free_port()
    reader = os.environ.get(READER_PYTHON, "")
    script = [PRELUDE]
    for block in blocks(page):
        if block.not_run or (block.needs and not reader):
            continue
        # On standard error too, so that a failure shows where it happened.
        script.append(f"echo '### {page}:{block.line}' >&2")
        text = SERVES.sub(r"serve \g<command>", block.script)
        script.append(f"{AS_READER}\n{text}\nunset -f python" if block.needs else text)
    text = "\n".join(script).replace("@PORT@", PORT).replace(PORT, str(port))
    path = os.pathsep.join([str(home / ".venv/bin"), os.environ["PATH"]])
    # A reader has no warnings turned into errors; packages do not ask hubs for a model that is here.
    fixed = {"PYTHONWARNINGS": "", "HF_HUB_OFFLINE": "1"}
    environ = environment(INKWELL_PORT=str(port), PATH=path, READER_PYTHON=reader, **fixed)
    (folder / "page.sh").write_text(text, encoding="utf-8")
    with (folder / "output").open("w+", encoding="utf-8") as output:
        shell = subprocess.Popen(
            ["bash", str(folder / "page.sh")],
            cwd=home,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            status = shell.wait(SECONDS)
        finally:
            # The server in the background too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
        output.seek(0)
        return subprocess.CompletedProcess([page], status, output.read())


def _clone(folder: Path) -> Path:
    """Make a folder that looks like a clone with its environment; its data is its own."""
    home = folder / "inkwell"
    home.mkdir()
    for path in ROOT.iterdir():
        if path.name not in NOT_CLONED | {"models"}:
            (home / path.name).symlink_to(path)
    (home / ".venv").symlink_to(Path(sys.executable).parents[1])
    (home / "models").mkdir()
    for model in (ROOT / "models").iterdir():
        if model.is_dir() and not model.name.startswith("."):
            (home / "models" / model.name).symlink_to(model)
    return home


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
