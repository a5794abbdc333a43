"""A piece of a text, which stays together while chunks are packed."""

from typing import NamedTuple

# Strengths of cuts besides those of an outline: after a heading none, and noise always parts chunks.
KEPT, NOISE = -1, 9


class Piece(NamedTuple):
    """A span that stays together, without white space at its ends.

    strength: how firmly the text may be cut after it; KEPT where it may not, after a heading.
    """

    begin: int
    end: int
    strength: int
