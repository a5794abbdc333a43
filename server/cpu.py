"""What this process may use of the machine: cores by affinity and cgroup quota, instruction sets."""

import math
import os
from collections.abc import Set
from pathlib import Path

# From the widest to the narrowest int8 arithmetic that onnxruntime's kernels choose from.
INT8_FEATURES = ("amx_int8", "avx512_vnni", "avx_vnni", "avx512bw", "avx2", "asimddp")
# Without one of these, int8 products are added in pairs with saturation and vectors differ a little.
EXACT_INT8_FEATURES = frozenset({"amx_int8", "avx512_vnni", "avx_vnni", "asimddp"})


def cpu_budget(cgroup_root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> int:
    """Whole cores this process may keep busy: the affinity mask, cut by the cgroup quota (v1, v2)."""
    quotas = [
        # A quota of 1.5 cores keeps two lanes busy most of the time; below 1 there is still one.
        max(1, math.ceil(quota))
        for folder in _cgroup_folders(cgroup_root, proc)
        if (quota := _quota(folder)) is not None
    ]
    return min([len(os.sched_getaffinity(0)), *quotas])


def _cgroup_folders(root: Path, proc: Path) -> list[Path]:
    """Every folder from this process's cgroup up to the root: each may hold a quota."""
    folders = [root, root / "cpu"]
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return folders
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "cpu" if controllers else root
        folder = base / path.lstrip("/")
        folders += [folder, *(p for p in folder.parents if p.is_relative_to(base))]
    return folders


def _quota(folder: Path) -> float | None:
    """Cores allowed by one cgroup folder, None where it sets no limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def cpu_features(proc: Path = Path("/proc")) -> Set[str]:
    """The kernel's names of this CPU's instruction sets, empty where it does not tell."""
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
    """The best int8 instruction set of `features`, "baseline" where there is none."""
    return next((name for name in INT8_FEATURES if name in features), "baseline")
