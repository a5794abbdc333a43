"""Facts about the machine, read from folders like the kernel's and from this machine."""

import os
import platform
import socket
import sys
from pathlib import Path

import pytest

from server.system import host
from server.system.cpu import cpu_quota, memory_limit, offline_cores
from server.system.host import Listener, listeners, read_disk, read_machine

GB = 1 << 30


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    return tmp_path / "proc"


# --- memory and cores -----------------------------------------------------------------------------


def test_tightest_memory_limit_on_the_way_up_counts_in_version_2(root: Path, proc: Path) -> None:
    write(root / "memory.max", "max\n")
    write(root / "slice" / "memory.max", f"{GB}\n")
    write(root / "slice" / "unit" / "memory.max", f"{2 * GB}\n")
    write(proc / "self" / "cgroup", "0::/slice/unit\n")
    assert memory_limit(root, proc) == GB


def test_memory_limit_of_version_1_is_that_of_its_own_controller(root: Path, proc: Path) -> None:
    write(root / "memory" / "memory.limit_in_bytes", "9223372036854771712\n")
    write(root / "memory" / "docker" / "memory.limit_in_bytes", f"{GB}\n")
    write(root / "memory" / "other" / "memory.limit_in_bytes", "1024\n")
    write(proc / "self" / "cgroup", "4:memory:/docker\n3:cpu,cpuacct:/other\n")
    assert memory_limit(root, proc) == GB


@pytest.mark.parametrize("text", ["max", "9223372036854771712", "", "nonsense"])
def test_no_memory_limit_is_none(root: Path, proc: Path, text: str) -> None:
    write(root / "memory.max", text)
    assert memory_limit(root, proc) is None


def test_quota_is_read_in_fractions_of_a_core(root: Path, proc: Path) -> None:
    write(root / "cpu.max", "50000 100000")
    assert cpu_quota(root, proc) == 0.5


def test_cores_that_are_switched_off_are_listed(tmp_path: Path) -> None:
    assert offline_cores(tmp_path) == ""
    write(tmp_path / "offline", "2-3\n")
    assert offline_cores(tmp_path) == "2-3"


def test_machine_is_read_from_the_kernels_files(root: Path, proc: Path, tmp_path: Path) -> None:
    write(proc / "cpuinfo", "flags : avx2\n")
    write(proc / "meminfo", "MemTotal:  99 kB\nMemAvailable:   2048 kB\n")
    write(tmp_path / "enabled", "always [madvise] never\n")
    found = read_machine(proc, root, tmp_path, tmp_path / "enabled")
    assert found.features == {"avx2"}
    assert found.memory_available == 2048 * 1024
    assert found.huge_pages == "madvise"
    assert (found.memory_limit, found.quota, found.offline) == (None, None, "")
    assert found.budget == found.cores == len(os.sched_getaffinity(0))
    assert found.python >= (3, 11, 0)
    assert found.day > "2026"


def test_machine_without_the_kernels_files_is_read_too(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    found = read_machine(nowhere, nowhere, nowhere, nowhere)
    assert (found.memory_available, found.huge_pages, found.features) == (None, "", frozenset())


@pytest.mark.parametrize("last", ["0rc1", "3+"])
def test_python_that_is_no_release_is_read(monkeypatch: pytest.MonkeyPatch, last: str) -> None:
    monkeypatch.setattr(platform, "python_version_tuple", lambda: ("3", "14", last))
    assert read_machine().python == sys.version_info[:3]


def test_this_machine_is_read() -> None:
    found = read_machine()
    assert found.memory_available is not None and found.features


# --- disks ----------------------------------------------------------------------------------------


def mounts(proc: Path, *lines: tuple[str, str | Path]) -> None:
    text = "".join(
        f"{place} 1 8:1 / {point} rw,relatime shared:1 - {kind} /dev/x rw\n"
        for place, (kind, point) in enumerate(lines)
    )
    write(proc / "self" / "mountinfo", text)


def test_file_system_is_that_of_the_innermost_mount(tmp_path: Path, proc: Path) -> None:
    mounts(proc, ("nfs4", tmp_path), ("ext4", "/"), ("xfs", f"{tmp_path}-other"))
    assert read_disk(tmp_path, proc).file_system == "nfs4"


def test_later_mount_covers_the_one_before(tmp_path: Path, proc: Path) -> None:
    mounts(proc, ("ext4", "/"), ("overlay", "/"))
    assert read_disk(tmp_path, proc).file_system == "overlay"


def test_mount_point_with_a_blank_is_found(tmp_path: Path, proc: Path) -> None:
    place = tmp_path / "my disk"
    place.mkdir()
    mounts(proc, ("ext4", "/"), ("cifs", str(place).replace(" ", "\\040")))
    assert read_disk(place, proc).file_system == "cifs"


def test_folder_that_is_not_there_has_the_disk_it_would_be_made_on(tmp_path: Path) -> None:
    found = read_disk(tmp_path / "not" / "yet")
    assert found.folder == tmp_path.resolve()
    assert found.writable and not found.read_only and found.free_bytes > 0 and found.file_system
    assert not (tmp_path / "not").exists()


def test_file_in_place_of_the_folder_cannot_be_written_into(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    assert not read_disk(tmp_path / "data").writable


# --- ports ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "family, address", [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_listener_is_found_with_its_process_and_address(
    family: socket.AddressFamily, address: str
) -> None:
    with socket.socket(family) as listening:
        try:
            listening.bind((address, 0))
        except OSError:
            pytest.skip(f"this machine has no {address}")
        listening.listen()
        (found,) = listeners(listening.getsockname()[1])
    assert (found.address, found.pid) == (address, os.getpid())
    assert found.name


def test_free_port_has_no_listener() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert listeners(bound.getsockname()[1]) == []


def test_listener_of_another_user_has_no_name(proc: Path) -> None:
    head = "  sl  local_address rem_address   st\n"
    line = "   0: 00000000:1F40 00000000:0000 {state} 0:0 00:0 0  1000  0 4711 1\n"
    write(proc / "net" / "tcp", head + line.format(state="0A") + line.format(state="01"))
    assert listeners(8000, proc) == [Listener("0.0.0.0", None, "")]
    assert listeners(8001, proc) == []


def test_addresses_of_the_kernel_are_words_in_the_order_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "byteorder", "little")
    assert host._address(bytes.fromhex("0100007F")) == "127.0.0.1"
    assert host._address(bytes.fromhex("00000000000000000000000001000000")) == "::1"
    monkeypatch.setattr(sys, "byteorder", "big")
    assert host._address(bytes.fromhex("7F000001")) == "127.0.0.1"
