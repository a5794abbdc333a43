"""Lets one export at a time write to a folder."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from server.messages.message import Message

Waiting = Callable[[Message], None]


@contextmanager
def only_one(folder: Path, waiting: Waiting) -> Iterator[None]:
    """Keep other exports from writing to `folder`, where its file system has locks.

    waiting: called where another export holds the folder, before that one is waited for.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting(
                Message(
                    "another export downloads to {folder}; waiting until it ends", folder=folder
                )
            )
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            pass
        yield
    finally:
        os.close(handle)
