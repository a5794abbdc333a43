"""Facts about the machine, as the kernel reports them: memory, disks, listeners, limits and the clock.

Reading them changes nothing. `doctor` judges them; cores and instruction sets are in `cpu`. Every function
that reads the kernel's folders takes them as arguments.
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
# Files that a server has open besides connections: a collection has some five.
OWN_FILES = 1024
# The state of a listening socket in the kernel's tables.
LISTEN = "0A"


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine and this process's limits.

    Memory is in bytes, None where there is no limit or the kernel does not report it. cores: of the affinity
    mask. budget: those that the quota leaves, in whole cores. offline: as the kernel lists them. huge_pages:
    always, madvise or never; empty where the kernel does not report it. open_files: the soft limit and the
    hard one, -1 for none. wall_s: the clock, in seconds since 1970.
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
        """The date by the machine's clock, UTC, as 2026-11-25."""
        return datetime.datetime.fromtimestamp(self.wall_s, datetime.UTC).date().isoformat()


def read_machine(
    proc: Path = PROC, cgroup_root: Path = CGROUPS, cpus: Path = CPUS, huge_pages: Path = HUGE_PAGES
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
        # The version as text may end in letters, for a release candidate.
        python=sys.version_info[:3],
    )


def files_wanted(connections: int) -> int:
    """Return how many open files a process with so many connections should be allowed."""
    return connections + OWN_FILES


def _memory_available(proc: Path) -> int | None:
    found = re.search(r"^MemAvailable: +(\d+) kB$", _text(proc / "meminfo"), re.M)
    return int(found[1]) * 1024 if found else None


def _chosen(path: Path) -> str:
    """Return the word in brackets: the kernel lists all choices."""
    found = re.search(r"\[(\w+)\]", _text(path))
    return found[1] if found else ""


# --- disks --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk of a folder, or of the folder that it would be made in.

    file_system: the kernel's name of its type. writable: by this user.
    """

    folder: Path
    file_system: str
    free_bytes: int
    read_only: bool
    writable: bool


def read_disk(folder: Path, proc: Path = PROC) -> Disk:
    """Return the disk of a folder; raise OSError where it cannot be examined."""
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
    """Return the type of the innermost mount of a path; of two at one point, the later one."""
    best, kind = -1, ""
    for line in _text(proc / "self" / "mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        # Spaces and the like are written as octal numbers.
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split()[4])
        if place.is_relative_to(point) and len(Path(point).parts) >= best:
            best, kind = len(Path(point).parts), after.split()[0]
    return kind


# --- ports --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that listens.

    address: "0.0.0.0" or "::" for all of this machine's. pid: None, and no name, where the process belongs
    to another user.
    """

    address: str
    pid: int | None
    name: str


def listeners(port: int, proc: Path = PROC) -> list[Listener]:
    """Return the sockets that listen on a TCP port of this network namespace, without connecting."""
    sockets = dict(_listening(port, proc))
    if not sockets:
        return []
    owners: dict[str, Path] = {}
    for process in sorted(proc.glob("[0-9]*"), key=lambda each: int(each.name), reverse=True):
        # Of several processes that share a socket the first one counts: it is the parent.
        owners |= dict.fromkeys(_sockets(process / "fd"), process)
    return [_listener(address, owners.get(inode)) for inode, address in sockets.items()]


def _listener(address: str, process: Path | None) -> Listener:
    if process is None:
        return Listener(address, None, "")
    return Listener(address, int(process.name), _text(process / "comm").strip())


def _listening(port: int, proc: Path) -> Iterator[tuple[str, str]]:
    """Yield inodes and addresses of listening sockets."""
    for table in ("tcp", "tcp6"):
        for line in _text(proc / "net" / table).splitlines()[1:]:
            fields = line.split()
            address, _, number = fields[1].partition(":")
            if fields[3] == LISTEN and int(number, 16) == port:
                yield fields[9], _address(bytes.fromhex(address))


def _address(words: bytes) -> str:
    """Return an address as text. The kernel prints 32 bits at a time, in this machine's byte order."""
    starts = range(0, len(words), 4)
    ordered = [words[start : start + 4] for start in starts]
    if sys.byteorder == "little":
        ordered = [word[::-1] for word in ordered]
    return str(ipaddress.ip_address(b"".join(ordered)))


def _sockets(folder: Path) -> Iterator[str]:
    """Yield inodes of a process's sockets; none where it is another user's or has ended."""
    try:
        for link in folder.iterdir():
            yield from re.findall(r"^socket:\[(\d+)\]$", os.readlink(link))
    except OSError:
        return


def _text(path: Path) -> str:
    """Return the text of a file of the kernel, empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
