"""Functions of filters that SQLite lacks."""

from collections.abc import Callable, Mapping

from server.store.filters.instants import instant
from server.store.sqlite.stored_text import unpacked


def has_part(kept: str | bytes, part: str, most: int) -> bool:
    """Return whether a stored text has this part among its first `most` characters; 0 for all of them."""
    text = unpacked(kept)
    return part in (text[:most] if most else text)


def begins(kept: str | bytes, prefix: str) -> bool:
    """Return whether a stored text begins like this."""
    return unpacked(kept).startswith(prefix)


# By name: how many arguments each has, and what SQLite calls. They depend on their arguments alone.
FUNCTIONS: Mapping[str, tuple[int, Callable[..., bool | int | None]]] = {
    "instant": (1, instant),
    "has_part": (3, has_part),
    "begins": (2, begins),
}
