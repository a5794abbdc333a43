"""Memory and CPU time of a running process, read from /proc."""

import os
import sys
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Return its resident memory in MiB."""
    return _status_mb(pid, "VmRSS")


def peak_mb(pid: int) -> float:
    """Return its peak of resident memory since its start, or since `forget_peak`, in MiB."""
    return _status_mb(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Begin a new peak at the memory it holds now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def _status_mb(pid: int, name: str) -> float:
    for line in _read(pid, "status").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    sys.exit(f"process {pid} has ended")


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of all its threads since its start, user mode and kernel."""
    # subtle: the second field is the name in brackets, which may contain spaces.
    fields = _read(pid, "stat").rpartition(")")[2].split()
    user, system = fields[11:13]
    return (int(user) + int(system)) / TICKS


def family_cpu_s(pid: int) -> float:
    """Return `cpu_s` of a process and of its running children, theirs included."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    started = [int(child) for each in children for child in each.read_text().split()]
    return cpu_s(pid) + sum(map(family_cpu_s, started))


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8")
    except FileNotFoundError:
        sys.exit(f"process {pid} has ended")
