"""The order in which contenders take turns, and the name under which this project is one of them."""

from collections.abc import Sequence
from typing import TypeVar

OURS = "inkwell"
T = TypeVar("T")


def rotated(contenders: Sequence[T], turn: int) -> list[T]:
    """Return the contenders in an order in which another one is first each turn."""
    first = turn % len(contenders)
    return [*contenders[first:], *contenders[:first]]
