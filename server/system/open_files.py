"""Open files: how many this process may have, and how many are left."""

import os
import resource
from pathlib import Path

DESCRIPTORS = Path("/proc/self/fd")
# The kernel's own bound where a process has none.
NO_LIMIT = 1 << 20


def allow_all() -> None:
    """Raise this process's limit to the highest that the system permits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = NO_LIMIT if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def allowed() -> int:
    """Return how many files this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return NO_LIMIT if soft == resource.RLIM_INFINITY else soft


def left() -> int:
    """Return how many more files this process may open; 0 where it cannot open one to find out."""
    try:
        return allowed() - len(os.listdir(DESCRIPTORS))
    except OSError:
        return 0


def can_open(number: int) -> bool:
    """Return whether so many more files can be opened, by trying it."""
    opened: list[int] = []
    try:
        for _ in range(number):
            opened.append(os.open(os.sep, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    finally:
        for each in opened:
            os.close(each)
    return True
