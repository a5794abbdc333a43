"""Groups hits by a value of their metadata."""

from collections.abc import Mapping, Sequence

from server.store.filters.sql import CONTAINER, NULL, TRUE, attributes
from server.store.records import Chunk
from server.store.search import Ranked
from server.store.searching.found import Value
from server.store.searching.options import Grouping

Group = tuple[Value, list[Ranked]]


def grouped(
    ranking: Sequence[Ranked], chunks: Mapping[int, Chunk], group: Grouping, number: int
) -> list[Group]:
    """Return at most `number` groups, that of the best hit first, each with its best hits.

    A document with several values is in the group of each. One without a value is in the group of None.
    """
    found: dict[tuple[type, Value], Group] = {}
    for each in ranking:
        for value in _values(chunks[each[0]].metadata, group.key):
            # subtle: 1 and True are one key of a dict.
            key = type(value) if isinstance(value, bool | None) else object, value
            if key not in found and len(found) == number:
                continue
            hits = found.setdefault(key, (value, []))[1]
            if len(hits) < group.hits:
                hits.append(each)
    return list(found.values())


def _values(metadata: Mapping[str, object], key: str) -> list[Value]:
    stored = [value for name, value in attributes(metadata) if name == key and value != CONTAINER]
    values: list[Value] = []
    for value in stored:
        if isinstance(value, bytes):
            values.append(None if value == NULL else value == TRUE)
        else:
            values.append(value)
    return values or [None]
