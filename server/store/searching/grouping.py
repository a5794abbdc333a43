"""Groups hits by a value of their metadata."""

from collections.abc import Mapping, Sequence

from server.store.filters.sql import CONTAINER, NULL, SqlValue, attributes
from server.store.records import Chunk
from server.store.search import Ranked
from server.store.searching.found import Value, value_of
from server.store.searching.options import Grouping

Group = tuple[Value, list[Ranked]]


def grouped(
    ranking: Sequence[Ranked], chunks: Mapping[int, Chunk], group: Grouping, number: int
) -> list[Group]:
    """Return at most `number` groups, that of the best hit first, each with its best hits.

    A document with several values is in the group of each. One without a value is in the group of None.
    """
    found: dict[SqlValue, Group] = {}
    for each in ranking:
        for stored in _stored(chunks[each[0]].metadata, group.key):
            if stored not in found and len(found) == number:
                continue
            hits = found.setdefault(stored, (value_of(stored), []))[1]
            if len(hits) < group.hits:
                hits.append(each)
    return list(found.values())


def _stored(metadata: Mapping[str, object], key: str) -> list[SqlValue]:
    found = [value for name, value in attributes(metadata) if name == key and value != CONTAINER]
    return found or [NULL]
