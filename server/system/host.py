"""What the kernel tells about the machine: memory, disks, listeners, limits and the clock.

Nothing is changed by asking. What the facts mean is said in `doctor`; cores and instruction sets are in
`cpu`. Every function that reads the kernel's folders takes them as arguments.
"""

import datetime
import ipaddress
import os
import platform
import re
import resource
import sys
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from server.system.cpu import (
    CGROUPS,
    CPUS,
    PROC,
    cpu_budget,
    cpu_features,
    cpu_quota,
    memory_limit,
    offline_cores,
)

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# Files that a server has open besides connections: collections have some five each.
OWN_FILES = 1024
# The state of a listening socket in the kernel's tables.
LISTEN = "0A"


@dataclass(frozen=True, slots=True)
class Machine:
    """Memory in bytes, None where there is no limit or the kernel does not tell.

    cores: of the affinity mask. budget: what of them the quota leaves, in whole cores. offline: as
    the kernel lists them. huge_pages: always, madvise or never; empty where it does not tell.
    open_files: the soft limit and the hard one, -1 for none. wall_s: its clock, in seconds since 1970.
    """

    architecture: str
    features: Set[str]
    cores: int
    budget: int
    quota: float | None
    offline: str
    memory_available: int | None
    memory_limit: int | None
    huge_pages: str
    open_files: tuple[int, int]
    wall_s: float
    python: tuple[int, int, int]

    @property
    def day(self) -> str:
        """By its clock, UTC, as 2026-11-25."""
        return datetime.datetime.fromtimestamp(self.wall_s, datetime.UTC).date().isoformat()


def read_machine(
    proc: Path = PROC,
    cgroup_root: Path = CGROUPS,
    cpus: Path = CPUS,
    huge_pages: Path = HUGE_PAGES,
) -> Machine:
    return Machine(
        architecture=platform.machine(),
        features=cpu_features(proc),
        cores=len(os.sched_getaffinity(0)),
        budget=cpu_budget(cgroup_root, proc),
        quota=cpu_quota(cgroup_root, proc),
        offline=offline_cores(cpus),
        memory_available=_memory_available(proc),
        memory_limit=memory_limit(cgroup_root, proc),
        huge_pages=_chosen(huge_pages),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE),
        wall_s=datetime.datetime.now(datetime.UTC).timestamp(),
        # As text a release candidate's last part is no number.
        python=sys.version_info[:3],
    )


def files_wanted(connections: int) -> int:
    """How many open files a process should be allowed that serves so many connections."""
    return connections + OWN_FILES


def _memory_available(proc: Path) -> int | None:
    found = re.search(r"^MemAvailable: +(\d+) kB$", _text(proc / "meminfo"), re.M)
    return int(found[1]) * 1024 if found else None


def _chosen(path: Path) -> str:
    """The word in brackets: the kernel lists all choices."""
    found = re.search(r"\[(\w+)\]", _text(path))
    return found[1] if found else ""


# --- disks --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Disk:
    """Under a folder, or where it is not yet there, under the one that it would be made in.

    file_system: the kernel's name of its kind. writable: by this user.
    """

    folder: Path
    file_system: str
    free_bytes: int
    read_only: bool
    writable: bool


def read_disk(folder: Path, proc: Path = PROC) -> Disk:
    """Raises OSError where the folder cannot be looked at."""
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    found = os.statvfs(place)
    return Disk(
        folder=place,
        file_system=_file_system(place, proc),
        free_bytes=found.f_bavail * found.f_frsize,
        read_only=bool(found.f_flag & os.ST_RDONLY),
        writable=place.is_dir() and os.access(place, os.W_OK | os.X_OK),
    )


def _file_system(place: Path, proc: Path) -> str:
    """Of the innermost mount that holds the path; of two on one place the later covers the other."""
    best, kind = -1, ""
    for line in _text(proc / "self" / "mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        # Blanks and the like stand there as octal numbers.
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split()[4])
        if place.is_relative_to(point) and len(Path(point).parts) >= best:
            best, kind = len(Path(point).parts), after.split()[0]
    return kind


# --- ports --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that listens; pid None and no name where the process belongs to somebody else.

    address: "0.0.0.0" or "::" for all of this machine's.
    """

    address: str
    pid: int | None
    name: str


def listeners(port: int, proc: Path = PROC) -> list[Listener]:
    """Who listens on a TCP port of this network namespace; nobody connects to find out."""
    sockets = dict(_listening(port, proc))
    if not sockets:
        return []
    owners: dict[str, Path] = {}
    for process in sorted(proc.glob("[0-9]*"), key=lambda each: int(each.name), reverse=True):
        # Of several that share a socket the first process counts: it is the parent.
        owners |= dict.fromkeys(_sockets(process / "fd"), process)
    return [_listener(address, owners.get(inode)) for inode, address in sockets.items()]


def _listener(address: str, process: Path | None) -> Listener:
    if process is None:
        return Listener(address, None, "")
    return Listener(address, int(process.name), _text(process / "comm").strip())


def _listening(port: int, proc: Path) -> Iterator[tuple[str, str]]:
    """Inodes and addresses of listening sockets."""
    for table in ("tcp", "tcp6"):
        for line in _text(proc / "net" / table).splitlines()[1:]:
            fields = line.split()
            address, _, number = fields[1].partition(":")
            if fields[3] == LISTEN and int(number, 16) == port:
                yield fields[9], _address(bytes.fromhex(address))


def _address(words: bytes) -> str:
    """Of what the kernel prints: 32 bits at a time, each in this machine's order of bytes."""
    starts = range(0, len(words), 4)
    ordered = [words[start : start + 4] for start in starts]
    if sys.byteorder == "little":
        ordered = [word[::-1] for word in ordered]
    return str(ipaddress.ip_address(b"".join(ordered)))


def _sockets(folder: Path) -> Iterator[str]:
    """Inodes of a process's sockets, none where it belongs to somebody else or has ended."""
    try:
        for link in folder.iterdir():
            yield from re.findall(r"^socket:\[(\d+)\]$", os.readlink(link))
    except OSError:
        return


def _text(path: Path) -> str:
    """Of a file of the kernel's, empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
