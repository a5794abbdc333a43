"""Limits of the process that reads files: memory, CPU time, no network, no new files, no privileges.

A file may be made to take over the library that reads it. What it then has is this process: it cannot
connect, start a program or a process, write, rename or remove a file, or look into another process.
The kernel refuses these calls by a filter (seccomp) where it has one, which every usual Linux does on
x86-64 and arm64. Elsewhere only the limits of `setrlimit` hold.
"""

import ctypes
import errno
import os
import platform
import resource
import struct

NOBODY = 65534
MOST_FILES = 64
# Options of prctl(2).
NO_NEW_PRIVILEGES, SET_FILTER, FILTER = 38, 22, 2
# Flags of open(2) that write: O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND.
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Of linux/bpf_common.h and linux/seccomp.h.
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
X32 = 0x40000000  # from this number on, calls of another form on x86-64

# Refused system calls by number: socket, socketpair, connect, bind, listen, sendto, sendmsg, clone, fork,
# vfork, execve, kill, ptrace, and the calls on names of files; their newer forms; io_uring, bpf, userfaultfd.
_COMMON = {424, 425, 426, 427, 428, 429, 430, 431, 432, 433, 435, 437, 438, 442}
_X86 = {
    *(41, 53, 42, 49, 50, 44, 46, 307, 56, 57, 58, 59, 322, 62, 101, 310, 311, 321, 323),
    *(76, 82, 83, 84, 85, 86, 87, 88, 90, 92, 94, 132, 133, 161, 165, 166, 188, 189, 197, 198, 235),
    *(258, 259, 260, 261, 263, 264, 265, 266, 268, 280, 316),
}
_ARM = {
    *(198, 199, 203, 200, 201, 206, 211, 269, 220, 221, 281, 129, 117, 270, 271, 280, 282),
    *(5, 6, 14, 15, 33, 34, 35, 36, 37, 38, 39, 40, 45, 51, 53, 54, 88, 276),
}
# Machine: its number in audit.h; the refused calls; the calls that open a file, and which argument has
# their flags.
MACHINES = {
    "x86_64": (0xC000003E, _X86 | _COMMON, {2: 1, 257: 2}),
    "aarch64": (0xC00000B7, _ARM | _COMMON, {56: 2}),
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


def filter_program(architecture: int, refused: set[int], opening: dict[int, int]) -> bytes:
    """Return the filter as instructions of classic BPF."""

    def do(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
        return struct.pack("HBBI", code, then, otherwise, value)

    steps = [
        do(LOAD, ARCHITECTURE),
        do(EQUAL, architecture, 1, 0),
        do(RETURN, KILL),
        do(LOAD, NUMBER),
        do(AT_LEAST, X32, 0, 1),
        do(RETURN, REFUSE),
    ]
    for number in sorted(refused):
        steps += [do(EQUAL, number, 0, 1), do(RETURN, REFUSE)]
    for number, place in sorted(opening.items()):
        steps += [
            do(EQUAL, number, 0, 4),
            do(LOAD, ARGUMENTS + 8 * place),
            do(ANY_BIT, WRITING, 0, 1),
            do(RETURN, REFUSE),
            do(RETURN, ALLOW),
        ]
    return b"".join([*steps, do(RETURN, ALLOW)])
