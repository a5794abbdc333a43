"""The cores, memory and instruction sets that this process may use."""

import math
import os
from collections.abc import Set
from pathlib import Path

# From the widest to the narrowest int8 arithmetic that onnxruntime's kernels choose from.
INT8_FEATURES = ("amx_int8", "avx512_vnni", "avx_vnni", "avx512bw", "avx2", "asimddp")
# Without one of these, int8 products are added in pairs with saturation and vectors differ a little.
EXACT_INT8_FEATURES = frozenset({"amx_int8", "avx512_vnni", "avx_vnni", "asimddp"})


CGROUPS, PROC, CPUS = Path("/sys/fs/cgroup"), Path("/proc"), Path("/sys/devices/system/cpu")
# cgroup v1 writes "no limit" as the largest number of whole pages.
NO_LIMIT = 1 << 60


def cpu_budget(cgroup_root: Path = CGROUPS, proc: Path = PROC) -> int:
    """Return the whole cores this process may keep busy: affinity mask and cgroup quota (v1, v2)."""
    quota = cpu_quota(cgroup_root, proc)
    cores = len(os.sched_getaffinity(0))
    # A quota of 1.5 cores keeps two lanes busy most of the time; below 1 there is still one.
    return cores if quota is None else min(cores, max(1, math.ceil(quota)))


def cpu_quota(cgroup_root: Path = CGROUPS, proc: Path = PROC) -> float | None:
    """Return the cores that the tightest cgroup allows, None where none sets a limit."""
    folders = _cgroup_folders("cpu", cgroup_root, proc)
    return min((quota for each in folders if (quota := _quota(each)) is not None), default=None)


def memory_limit(cgroup_root: Path = CGROUPS, proc: Path = PROC) -> int | None:
    """Return the bytes that the tightest cgroup allows, None where none sets a limit."""
    folders = _cgroup_folders("memory", cgroup_root, proc)
    return min((limit for each in folders if (limit := _limit(each)) is not None), default=None)


def offline_cores(cpus: Path = CPUS) -> str:
    """Return the cores that are switched off, as the kernel lists them ("2-3"); empty for none."""
    try:
        return (cpus / "offline").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _cgroup_folders(controller: str, root: Path, proc: Path) -> list[Path]:
    """Return every folder from this process's cgroup up to the root: each may set a limit."""
    folders = [root, root / controller]
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return folders
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controller if controllers else root
        folder = base / path.lstrip("/")
        folders += [folder, *(p for p in folder.parents if p.is_relative_to(base))]
    return folders


def _quota(folder: Path) -> float | None:
    """Return the cores that one cgroup folder allows, None where it sets no limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _limit(folder: Path) -> int | None:
    """Return the bytes that one cgroup folder allows, None where it sets no limit."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            limit = int((folder / name).read_text())
        except (OSError, ValueError):
            continue
        return limit if limit < NO_LIMIT else None
    return None


def cpu_features(proc: Path = PROC) -> Set[str]:
    """Return the kernel's names of this CPU's instruction sets, empty where it lists none."""
    try:
        text = (proc / "cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def int8_instruction_set(features: Set[str]) -> str:
    """Return the best int8 instruction set of `features`, "baseline" where there is none."""
    return next((name for name in INT8_FEATURES if name in features), "baseline")
