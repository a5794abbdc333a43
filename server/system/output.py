"""Commands whose output goes to a program that may leave early, as `head` does, or to nothing at all."""

import os
import select
import sys
from collections.abc import Callable


def until_reader_leaves(main: Callable[[], int | None]) -> int:
    """Run a command and return its status; 1, without a traceback, if the reader of its output leaves.

    A broken pipe to anything else is raised. What goes to a stream that the caller has closed is lost.
    """
    _open_closed_streams()
    try:
        try:
            return main() or 0
        finally:
            # Here, and not at exit, where Python would print what it ignores.
            sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_has_left():
            raise
        # What Python still holds for the reader goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _open_closed_streams() -> None:
    """Open the null device for each standard stream that is closed, which Python has as None.

    In this order each gets its own number, so that no file that is opened later takes it: a library that
    prints would write into that file.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def _reader_has_left() -> bool:
    """Return whether nothing reads standard output any more."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return bool(poll.poll(0))
