"""The cores, memory and instruction sets of the process, read from folders like the kernel's."""

import os
from pathlib import Path

import pytest

from server.system.cpu import (
    EXACT_INT8_FEATURES,
    INT8_FEATURES,
    cpu_budget,
    cpu_features,
    int8_instruction_set,
)

CORES = 8


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set an affinity mask of eight cores, on any machine."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(CORES)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    return tmp_path / "proc"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def belongs_to(proc: Path, *lines: str) -> None:
    write(proc / "self" / "cgroup", "".join(f"{line}\n" for line in lines))


def v1(folder: Path, quota: int, period: int = 100_000) -> None:
    write(folder / "cpu.cfs_quota_us", f"{quota}\n")
    write(folder / "cpu.cfs_period_us", f"{period}\n")


def test_without_cgroups_the_affinity_mask_counts(root: Path, proc: Path) -> None:
    assert cpu_budget(root, proc) == CORES


def test_affinity_mask_of_the_process_is_asked(
    root: Path, proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert cpu_budget(root, proc) == 2


@pytest.mark.parametrize(
    "quota, cores",
    [
        ("300000 100000", 3),
        ("150000 100000", 2),
        ("100000 100000", 1),
        ("20000 100000", 1),
        ("25000 50000", 1),
        ("9900000 100000", CORES),
        ("max 100000", CORES),
    ],
)
def test_quota_of_version_2_is_rounded_up_and_never_more_than_the_mask(
    root: Path, proc: Path, quota: str, cores: int
) -> None:
    write(root / "cpu.max", quota + "\n")
    belongs_to(proc, "0::/")
    assert cpu_budget(root, proc) == cores


@pytest.mark.parametrize(
    "quota, cores", [(300_000, 3), (150_000, 2), (10_000, 1), (5_000_000, CORES), (-1, CORES)]
)
def test_quota_of_version_1(root: Path, proc: Path, quota: int, cores: int) -> None:
    v1(root / "cpu", quota)
    belongs_to(proc, "4:memory:/", "3:cpu,cpuacct:/", "1:name=systemd:/")
    assert cpu_budget(root, proc) == cores


def test_tightest_quota_on_the_way_up_counts_in_version_2(root: Path, proc: Path) -> None:
    write(root / "cpu.max", "max 100000")
    write(root / "machine.slice" / "cpu.max", "200000 100000")
    write(root / "machine.slice" / "pod" / "cpu.max", "400000 100000")
    belongs_to(proc, "0::/machine.slice/pod")
    assert cpu_budget(root, proc) == 2


def test_tightest_quota_on_the_way_up_counts_in_version_1(root: Path, proc: Path) -> None:
    v1(root / "cpu", -1)
    v1(root / "cpu" / "docker", 500_000)
    v1(root / "cpu" / "docker" / "abc", 250_000)
    belongs_to(proc, "7:cpu,cpuacct:/docker/abc", "0::/elsewhere")
    assert cpu_budget(root, proc) == 3


def test_quota_of_another_controller_or_group_is_not_ours(root: Path, proc: Path) -> None:
    write(root / "neighbour" / "cpu.max", "100000 100000")
    v1(root / "cpu" / "memory-group", 100_000)
    belongs_to(proc, "0::/mine", "5:memory:/memory-group", "6:cpuset:/memory-group")
    assert cpu_budget(root, proc) == CORES


def test_inside_a_container_the_root_is_our_group_though_the_name_is_the_hosts(
    root: Path, proc: Path
) -> None:
    write(root / "cpu.max", "200000 100000")
    belongs_to(proc, "0::/../../kubepods/pod7")
    assert cpu_budget(root, proc) == 2


@pytest.mark.parametrize("text", ["", "nonsense", "100000", "a b", "100000 0", "1 2 3"])
def test_unreadable_quota_is_no_limit(root: Path, proc: Path, text: str) -> None:
    write(root / "cpu.max", text)
    belongs_to(proc, "0::/")
    assert cpu_budget(root, proc) == CORES


def test_real_machine_gives_at_least_one_core() -> None:
    assert 1 <= cpu_budget() <= CORES


def test_features_of_x86_are_read(proc: Path) -> None:
    write(
        proc / "cpuinfo",
        "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 avx512_vnni\nbogomips: 1\n\n"
        "processor\t: 1\nflags\t\t: fpu\n",
    )
    assert cpu_features(proc) == {"fpu", "avx2", "avx512_vnni"}


def test_features_of_arm_are_read(proc: Path) -> None:
    write(proc / "cpuinfo", "processor\t: 0\nFeatures\t: fp asimd asimddp\n")
    assert cpu_features(proc) == {"fp", "asimd", "asimddp"}


@pytest.mark.parametrize("text", [None, "", "processor : 0\n", "flagship : avx2\n"])
def test_machine_that_lists_no_features_has_none(proc: Path, text: str | None) -> None:
    if text is not None:
        write(proc / "cpuinfo", text)
    assert cpu_features(proc) == frozenset()


def test_widest_instruction_set_is_named() -> None:
    assert int8_instruction_set({"avx2", "avx512bw", "avx512_vnni", "sse2"}) == "avx512_vnni"
    assert int8_instruction_set({"avx2", "sse2"}) == "avx2"
    assert int8_instruction_set({"asimd", "asimddp"}) == "asimddp"
    assert int8_instruction_set({"sse2"}) == "baseline"
    for place, name in enumerate(INT8_FEATURES):
        assert int8_instruction_set(frozenset(INT8_FEATURES[place:])) == name


def test_exact_instruction_sets_are_among_the_known_ones() -> None:
    assert EXACT_INT8_FEATURES < set(INT8_FEATURES)
    assert "avx2" not in EXACT_INT8_FEATURES
