"""Runs a step of a benchmark in a process of its own, so that what it took is its own."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO


@dataclass(frozen=True, slots=True)
class Took:
    """What a process took: seconds by the clock, CPU seconds on all cores, and its peak of resident memory.

    A mapped file counts while it is in use.
    """

    seconds: float
    cpu_s: float
    peak_mb: int


def run_module(
    command: Sequence[object], *, stdout: int | IO[str] | None = None, limit_s: float | None = None
) -> tuple[str, Took]:
    """Run a module with its arguments; returns what it printed, where stdout is PIPE, and what it took.

    Raises CalledProcessError, also for one that is ended with its children after `limit_s`.
    """
    started = time.monotonic()
    given = [sys.executable, "-m", *map(str, command)]
    timed = limit_s is not None
    # In a session of its own a process and its children are one group.
    with subprocess.Popen(given, stdout=stdout, text=True, start_new_session=timed) as process:
        timer = threading.Timer(limit_s or 0, os.killpg, (process.pid, signal.SIGKILL))
        if timed:
            timer.start()
        printed = "" if process.stdout is None else process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, given)
    return printed, Took(
        round(time.monotonic() - started, 1),
        round(usage.ru_utime + usage.ru_stime, 1),
        round(usage.ru_maxrss / 1024),
    )
