"""What filters read of a document in Milvus: marks that stand for its values, and bounds that are compared.

How this works. Milvus has no type that holds a number, a text and a list under one path and tells them apart. So
each value becomes a mark, a hash of its path, kind and content, in an array. A condition on equality or existence
asks whether the array has a mark, which an inverted index answers. An array takes 4,096 elements, so there are
several, and a mark itself says in which of them it is (`field`). What has an order is written into texts that
sort as the values do (`bound`), under a hash of its path in one JSON object: of one value the text itself, of
several the least and the greatest. So "some value is greater than x" is "the greatest is greater than x".

Nothing that a caller wrote is ever part of an expression of Milvus: hashes and bounds have letters and digits only.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from server.databases.values import SIGN, ranked, values_of
from server.store.filters.instants import instant
from server.store.filters.sql import LONG_TEXT, SqlValue
from server.store.filters.tree import RESERVED
from server.store.records import Document

# Arrays of marks of a document.
FIELDS = ("marks_0", "marks_1", "marks_2", "marks_3")
# Kinds of values that have an order among themselves, and with no other kind.
Order = Literal["number", "text", "instant"]

# Every text begins and ends with it, and it sorts before every other character of a bound. So a text sorts before
# all that begin with it, and a pattern that begins with it finds beginnings of texts.
EDGE = "!"
# A byte as two characters of different alphabets: they sort as bytes do, and no pattern matches between bytes.
BYTES = tuple(high + low for high in "ghijklmnopqrstuv" for low in "0123456789abcdef")
# Integers of 64 bits are at most 512 away from the float that is nearest to them.
MIDDLE = 1 << 12


@dataclass(frozen=True, slots=True)
class Marks:
    """What is stored of a document's values. marks: of all of them, by field. bounds: those that are compared."""

    marks: dict[str, list[str]]
    bounds: dict[str, str]


def field(mark: str) -> str:
    """Return the array that a mark is in."""
    return FIELDS[int(mark[0], 16) % len(FIELDS)]


def exists(key: str) -> str:
    """Return the mark of a document that has a value under a path."""
    return _mark("exists", key)


def equals(key: str, value: SqlValue) -> str:
    """Return the mark of a document with this value under a path."""
    match value:
        case bytes():
            return _mark("is", key, value)
        case str():
            return _mark("text", key, _utf8(value))
        case _:
            return _mark("number", key, bound(value).encode())


def at_instant(key: str, microseconds: int) -> str:
    """Return the mark of a document with a date of this instant under a path."""
    return _mark("instant", key, str(microseconds).encode())


def single(key: str, order: Order) -> str:
    """Return the mark of a document with exactly one value of this kind under a path."""
    return _mark("one", key, order.encode())


def several(key: str, order: Order) -> str:
    """Return the mark of a document with several values of this kind under a path."""
    return _mark("several", key, order.encode())


def place(key: str, order: Order) -> str:
    """Return the name under which bounds hold the values of this kind of a path.

    With "l" and "h" behind it, the least and the greatest of several.
    """
    return f"{order[0]}{_mark('place', key, order.encode())[:16]}"


def bound(value: int | float) -> str:
    """Return a text that sorts as the number does, among those of all other numbers."""
    rank, rest = ranked(value)
    return f"{rank:016x}{rest + MIDDLE:04x}"


def text_bound(value: str) -> str:
    """Return a text that sorts as this one does by code points, among those of all other texts."""
    return f"{EDGE}{pattern(value[:LONG_TEXT])}{EDGE}" + (
        f"{value[LONG_TEXT:]}{EDGE}" if len(value) > LONG_TEXT else ""
    )


def whole_bound(value: str) -> str:
    """Return the same of a value beside metadata, which is compared whole."""
    return f"{EDGE}{pattern(value)}{EDGE}"


def instant_bound(microseconds: int) -> str:
    """Return a text that sorts as the instant does."""
    return f"{microseconds + SIGN:016x}"


def pattern(part: str) -> str:
    """Return a part of a text as bounds have it."""
    return "".join(map(BYTES.__getitem__, _utf8(part)))


def marks(document: Document) -> Marks:
    """Return what filters read of a document."""
    found: dict[str, None] = {}
    ordered: dict[tuple[str, Order], set[str]] = {}
    for key, value in values_of(document.id, document.title, document.metadata):
        found[exists(key)] = None
        if value != value:
            continue  # Not a number, which is neither equal to anything nor compared.
        found[equals(key, value)] = None
        if isinstance(value, str):
            written = whole_bound(value) if key in RESERVED else text_bound(value)
            ordered.setdefault((key, "text"), set()).add(written)
            when = instant(value)
            if when is not None:
                found[at_instant(key, when)] = None
                ordered.setdefault((key, "instant"), set()).add(instant_bound(when))
        elif isinstance(value, int | float):
            ordered.setdefault((key, "number"), set()).add(bound(value))
    bounds: dict[str, str] = {}
    for (key, order), values in ordered.items():
        name = place(key, order)
        if len(values) == 1:
            found[single(key, order)] = None
            bounds[name] = next(iter(values))
            continue
        found[several(key, order)] = None
        bounds[f"{name}l"], bounds[f"{name}h"] = min(values), max(values)
        if order == "text":
            bounds[name] = "".join(sorted(values))
    arrays: dict[str, list[str]] = {name: [] for name in FIELDS}
    for mark in found:
        arrays[field(mark)].append(mark)
    return Marks(arrays, bounds)


def _mark(kind: str, key: str, content: bytes = b"") -> str:
    name = _utf8(key)
    head = f"{kind} {len(name)} ".encode()
    return hashlib.blake2b(head + name + content, digest_size=16).hexdigest()


def _utf8(text: str) -> bytes:
    # Names and values of metadata may have halves of characters.
    return text.encode("utf-8", "surrogatepass")


def size(bounds: Mapping[str, str]) -> int:
    """Return how many bytes the bounds take as JSON."""
    return sum(len(name) + len(value) + 6 for name, value in bounds.items()) + 2
