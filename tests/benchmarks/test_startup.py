"""The use of a process is read from the system, and starts are summed up by their medians."""

import os
import subprocess
import sys
import time

import pytest

from benchmarks import usage
from benchmarks.startup import line


def test_memory_and_time_of_this_process_are_read() -> None:
    assert 10 < usage.resident_mb(os.getpid()) < 100_000
    # The kernel counts in ticks, and Python only its own part.
    assert usage.cpu_s(os.getpid()) == pytest.approx(time.process_time(), abs=0.5)


def test_what_a_process_has_started_counts_with_it() -> None:
    work = "while __import__('time').process_time() < 0.4: pass\nprint(flush=True); input()"
    before = usage.family_cpu_s(os.getpid()) - usage.cpu_s(os.getpid())
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", work], stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None and child.stdout.readline()
        during = usage.family_cpu_s(os.getpid()) - usage.cpu_s(os.getpid())
        child.communicate(b"\n")
    assert during - before >= 0.35


def test_a_process_that_has_ended_ends_the_benchmark() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for read in (usage.resident_mb, usage.cpu_s):
        with pytest.raises(SystemExit, match=f"process {ended.pid} has ended"):
            read(ended.pid)


def test_starts_are_summed_up_by_medians_beside_the_slowest() -> None:
    starts = [{"ready_s": ready, "cpu_s": 0.5, "rss_mb": 180.0} for ready in (0.7, 0.6, 1.9)]
    assert line(starts) == {
        "ready_s": 0.7,
        "cpu_s": 0.5,
        "rss_mb": 180,
        "slowest_s": 1.9,
        "starts": 3,
    }
