"""Commands whose output goes to a program that leaves."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMPORT = "from server.system.output import until_reader_leaves as run; import os, socket, sys\n"
PRINTS = f"{IMPORT}sys.exit(run(lambda: print('x' * 100)))"
FAILS = (
    IMPORT
    + """
def main():
    one, other = socket.socketpair()
    other.close()
    one.send(b"x")
run(main)
"""
)


def run(*arguments: str, closed: bool) -> tuple[int, str]:
    """Run Python; closed: nothing reads what it prints. Return its status and its errors."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    if closed:
        process.stdout.close()
        process.stdout = None
    _, errors = process.communicate()
    return process.returncode, errors


@pytest.mark.parametrize(
    "command", [["-c", PRINTS], ["-m", "benchmarks.capacity", "--documents", "1000"]]
)
def test_reader_that_leaves_ends_a_command_quietly(command: list[str]) -> None:
    assert run(*command, closed=True) == (1, "")
    assert run(*command, closed=False) == (0, "")


def test_other_broken_pipes_are_raised() -> None:
    status, errors = run("-c", FAILS, closed=False)
    assert status == 1 and "BrokenPipeError" in errors


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(closed: str) -> None:
    """Nor does a file that is opened later stand where a library prints."""
    script = (
        f"{IMPORT}assert sys.stdout is None\n"
        "def main():\n"
        "    print('x', file=sys.stdout, flush=True)\n"
        "    with open(os.devnull) as later: assert later.fileno() > 2 and sys.stdin is not None\n"
        "sys.exit(run(main))"
    )
    shell = f'exec "$@" {closed}'
    assert run_shell(shell, "-c", script) == (0, "")
    assert run_shell(shell, "-m", "server", "--version") == (0, "")


def run_shell(shell: str, *arguments: str) -> tuple[int, str]:
    found = subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-W", "error", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    return found.returncode, found.stderr


def test_every_benchmark_ends_quietly() -> None:
    # Contenders and measuring.py speak to the process that started them.
    scripts = [
        path
        for path in (ROOT / "benchmarks").rglob("*.py")
        if "contenders" not in path.parts and path.name != "measuring.py"
    ]
    ends = {
        path.name: re.findall(r"\nif __name__ == .*\n(.*)", path.read_text()) for path in scripts
    }
    wanted = ["    sys.exit(until_reader_leaves(main))"]
    assert [name for name, end in ends.items() if end not in ([], wanted)] == []
