"""A step in a process of its own: what it prints and takes, and that one that fails or hangs is reported."""

import subprocess

import pytest

from benchmarks.steps import run_module

BUSY = ["timeit", "-n", "1", "-r", "1"]


@pytest.mark.parametrize("limit_s", [None, 60.0])
def test_a_step_is_reported_with_what_it_prints_and_takes(limit_s: float | None) -> None:
    command = [*BUSY, "sum(range(3_000_000))"]
    printed, took = run_module(command, stdout=subprocess.PIPE, limit_s=limit_s)
    assert "1 loop" in printed
    assert took.seconds > 0 and took.cpu_s > 0 and took.peak_mb > 1


def test_a_step_that_fails_or_takes_too_long_is_an_error() -> None:
    with pytest.raises(subprocess.CalledProcessError, match="exit status 1"):
        run_module([*BUSY, "exit(1)"], stdout=subprocess.DEVNULL)
    with pytest.raises(subprocess.CalledProcessError, match="SIGKILL"):
        run_module([*BUSY, "while True: pass"], stdout=subprocess.PIPE, limit_s=0.2)
