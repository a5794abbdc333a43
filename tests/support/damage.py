"""Damage that disks, cables, memory and people do to files."""

import random
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[bytearray, random.Random], bytes | bytearray | None]
PAGE = 4096


def one_bit(content: bytearray, choose: random.Random) -> bytearray:
    return _flipped(content, choose, range(len(content)), 1)


def bits_nearby(content: bytearray, choose: random.Random) -> bytearray:
    begin = choose.randrange(max(1, len(content) - PAGE))
    return _flipped(content, choose, range(begin, min(begin + PAGE, len(content))), 64)


def first_bits(content: bytearray, choose: random.Random) -> bytearray:
    """Flip a bit of the header."""
    return _flipped(content, choose, range(min(128, len(content))), 1)


def _flipped(content: bytearray, choose: random.Random, places: range, number: int) -> bytearray:
    for place in choose.choices(places, k=number) if places else ():
        content[place] ^= 1 << choose.randrange(8)
    return content


def page_of_zeros(content: bytearray, choose: random.Random) -> bytearray:
    begin = choose.randrange(len(content) // PAGE + 1) * PAGE
    content[begin : begin + PAGE] = bytes(len(content[begin : begin + PAGE]))
    return content


def page_elsewhere(content: bytearray, choose: random.Random) -> bytearray:
    """Write a page to the place of another one, as a disk with a wrong address does."""
    pages = range(0, max(1, len(content) - PAGE), PAGE)
    source, target = choose.choice(pages), choose.choice(pages)
    page = bytes(content[source : source + PAGE])
    content[target : target + len(page)] = page
    return content


def truncated(content: bytearray, choose: random.Random) -> bytearray:
    return content[: choose.randrange(max(1, len(content)))]


def truncated_at_a_page(content: bytearray, choose: random.Random) -> bytearray:
    return content[: choose.randrange(len(content) // PAGE + 1) * PAGE]


def more_bytes(content: bytearray, choose: random.Random) -> bytearray:
    return content + choose.randbytes(choose.randint(1, 2 * PAGE))


def emptied(content: bytearray, choose: random.Random) -> bytes:
    return b""


def removed(content: bytearray, choose: random.Random) -> None:
    return None


KINDS: tuple[Damage, ...] = (
    one_bit,
    one_bit,
    bits_nearby,
    first_bits,
    page_of_zeros,
    page_elsewhere,
    truncated,
    truncated_at_a_page,
    more_bytes,
    emptied,
    removed,
)


def damage(path: Path, choose: random.Random) -> str:
    """Damage a file in one way; returns which."""
    kind = choose.choice(KINDS)
    content = kind(bytearray(path.read_bytes()), choose)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    return kind.__name__.replace("_", " ")
