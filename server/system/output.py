"""Commands whose output goes to a program that may leave early, as `head` does."""

import os
import select
import sys
from collections.abc import Callable


def until_reader_leaves(main: Callable[[], int | None]) -> int:
    """Run a command and return its status; 1, without a traceback, if the reader of its output leaves.

    A broken pipe to anything else is raised.
    """
    try:
        try:
            return main() or 0
        finally:
            # Here, and not at exit, where Python would print what it ignores. None: it is closed.
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_has_left():
            raise
        # What Python still holds for the reader goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _reader_has_left() -> bool:
    """Return whether nothing reads standard output any more."""
    if sys.stdout is None:
        return False
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return bool(poll.poll(0))
