"""The values of a document that filters read, and an order of numbers that any database can compare.

Milvus and Qdrant have no type that holds a number, a text and a list under one path and compares them as
filters are evaluated here. So both keep forms of each value, and these are what the forms begin with.
"""

import struct
from collections.abc import Iterator, Mapping

from server.store.filters.sql import SqlValue, attributes
from server.store.filters.tree import ID, RESERVED, TITLE

SIGN = 1 << 63


def values_of(
    id: str, title: str | None, metadata: Mapping[str, object]
) -> Iterator[tuple[str, SqlValue]]:
    """Yield the fields of a document and their values: the id, the title if it has one, and the metadata."""
    yield ID, id
    if title is not None:
        yield TITLE, title
    # A field of metadata cannot be asked for by the name of one beside it.
    yield from (pair for pair in attributes(metadata) if pair[0] not in RESERVED)


def ranked(number: int | float) -> tuple[int, int]:
    """Return a rank of 64 bits, and what is left of the number: pairs that sort as numbers do.

    The rank is that of the nearest float. Rounding never turns an order, and what it leaves, at most 512 of an integer
    of 64 bits, decides between equals.
    """
    nearest = float(number) + 0.0  # which makes 0.0 of -0.0
    (bits,) = struct.unpack(">Q", struct.pack(">d", nearest))
    # The bits of a float are in order but for the sign; those of negative numbers run backwards.
    rank = bits + SIGN if bits < SIGN else 2 * SIGN - 1 - bits
    return rank, number - int(nearest) if isinstance(number, int) else 0
