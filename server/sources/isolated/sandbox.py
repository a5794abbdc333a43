"""Limits of the process that reads files: memory, CPU time, and no system calls but those of computing.

A file may be made to take over the library that reads it. What it then has is this process. It reads from one
pipe, writes to another one, and computes. It can open no file, not even to read it, so it finds neither keys nor
stored documents; it cannot connect, start a program or a process, or send a signal. The kernel refuses every call
that is not in a short list (seccomp), where it has such a filter, as every usual Linux does on x86-64 and arm64.
Elsewhere only the limits of `setrlimit` hold.
"""

import contextlib
import ctypes
import errno
import os
import platform
import resource
import struct
from collections.abc import Sequence

NOBODY = 65534
MOST_FILES = 64
# Options of prctl(2).
NO_NEW_PRIVILEGES, SET_FILTER, FILTER = 38, 22, 2
# Of linux/bpf_common.h and linux/seccomp.h.
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16
# A lower priority, so that the server answers at once while files are read.
NICE = 5

# Machine: its number in audit.h; the allowed system calls, frequent ones first; and prlimit64. These are read,
# write, lseek, mmap, munmap, mremap, brk, select, poll, getrusage, futex, close, mprotect, madvise, readv, writev,
# pread64, those of the time, of the process's own ids and signal handlers, getrandom, and the exit.
MACHINES = {
    "x86_64": (
        0xC000003E,
        (
            *(0, 1, 8, 9, 11, 25, 12, 23, 270, 7, 271, 98, 202, 3, 10, 28, 19, 20, 17),
            *(228, 229, 230, 35, 96, 100, 24, 39, 186, 102, 104, 107, 108, 99, 13, 14, 15, 131),
            *(219, 273, 318, 324, 334, 60, 231),
        ),
        302,
    ),
    "aarch64": (
        0xC00000B7,
        (
            *(63, 64, 62, 222, 215, 216, 214, 72, 73, 165, 98, 57, 226, 233, 65, 66, 67),
            *(
                113,
                114,
                115,
                101,
                169,
                153,
                124,
                172,
                178,
                174,
                175,
                176,
                177,
                179,
                134,
                135,
                139,
                132,
            ),
            *(128, 99, 278, 283, 293, 93, 94),
        ),
        261,
    ),
}


def enter(memory_bytes: int) -> None:
    """Give up for good what reading needs not; call it when all modules are imported."""
    for kind, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, MOST_FILES),
    ):
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    # A system-call filter around the server may refuse it; the limits above hold all the same.
    with contextlib.suppress(PermissionError):
        os.nice(NICE)
    os.chdir("/")
    if os.geteuid() == 0:
        _leave_root()
    _filter_calls()


def allow_cpu(seconds: int) -> None:
    """Allow so many more seconds of CPU; the process is ended after them."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(
        resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + seconds + 1, hard)
    )


def _leave_root() -> None:
    """Become nobody, where the container allows it."""
    try:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    except OSError:
        pass  # Some containers have one user only; the filter holds for it as well.


def _filter_calls() -> None:
    """Have the kernel refuse the calls; a kernel that has no filters changes nothing."""
    machine = MACHINES.get(platform.machine())
    if machine is None:
        return
    program = filter_program(*machine)
    code = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0:
        prctl(SET_FILTER, FILTER, ctypes.create_string_buffer(header), 0, 0)


def filter_program(architecture: int, allowed: Sequence[int], limits: int) -> bytes:
    """Return the filter as instructions of classic BPF.

    allowed: numbers of calls. limits: the number of prlimit64, which is for this process only.
    """

    def do(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
        return struct.pack("HBBI", code, then, otherwise, value)

    steps = [
        do(LOAD, ARCHITECTURE),
        do(EQUAL, architecture, 1, 0),
        do(RETURN, KILL),
        do(LOAD, NUMBER),
    ]
    for number in allowed:
        steps += [do(EQUAL, number, 0, 1), do(RETURN, ALLOW)]
    steps += [
        do(EQUAL, limits, 0, 3),
        do(LOAD, FIRST_ARGUMENT),
        do(EQUAL, 0, 0, 1),
        do(RETURN, ALLOW),
        do(RETURN, REFUSE),
    ]
    return b"".join(steps)
