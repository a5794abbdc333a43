"""A process at a pseudo-terminal: what is typed there, and what it shows."""

import os
import pty
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.fakes import PATIENCE_S, eventually
from tests.support.processes import ROOT, command, environment

# Types a text, waits until another one is shown, and returns all that was shown meanwhile.
Talk = Callable[[str, str], str]


@contextmanager
def at_a_terminal(*arguments: str | Path, **variables: str) -> Iterator[Talk]:
    """Yield a conversation with a process at a pseudo-terminal: what to type and to wait for."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        env=environment(**variables, TERM="xterm", COLUMNS="80"),
        # Its own terminal, where Ctrl-C is a signal.
        preexec_fn=lambda: os.login_tty(theirs),
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    seen = ""

    def read() -> str:
        nonlocal seen
        try:
            seen += os.read(ours, 65536).decode("utf-8", "replace")
        except OSError:
            time.sleep(0.01)
        return seen

    def talk(typed: str, expected: str) -> str:
        nonlocal seen
        begin = len(seen)
        os.write(ours, typed.encode())
        eventually(lambda: expected in read()[begin:])
        return seen[begin:]

    try:
        yield talk
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
