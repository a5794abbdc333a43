"""A turn to do work that several threads need once: the others do without it and do not wait."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turn:
    """A turn that one thread has at a time."""

    __slots__ = ("_turn",)

    def __init__(self) -> None:
        # subtle: to pop and to append are one step each for all threads.
        self._turn = deque(["the turn"])

    @property
    def is_taken(self) -> bool:
        return not self._turn

    @contextmanager
    def tried(self) -> Iterator[bool]:
        """Take the turn for the block; yields False where another thread has it."""
        try:
            turn = self._turn.pop()
        except IndexError:
            yield False
            return
        try:
            yield True
        finally:
            self._turn.append(turn)
