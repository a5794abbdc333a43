"""Divides what a call of a database is given into what one request, statement or transaction takes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def portions(values: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    """Yield values in portions of at most so many."""
    for begin in range(0, len(values), most):
        yield values[begin : begin + most]


def batches(
    items: Iterable[T], n_bytes: Callable[[T], int], most: int, most_bytes: int
) -> Iterator[list[T]]:
    """Yield items in portions of at most so many and so many bytes; a larger item is one by itself."""
    batch: list[T] = []
    total = 0
    for each in items:
        size = n_bytes(each)
        if batch and (len(batch) == most or total + size > most_bytes):
            yield batch
            batch, total = [], 0
        batch.append(each)
        total += size
    if batch:
        yield batch
