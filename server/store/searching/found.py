"""The answer to a query with options: its hits, and what else was asked for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from server.store.filters.sql import LONG_TEXT, NULL, TRUE, SqlValue
from server.store.search import Hit

Value = str | int | float | bool | None


def value_of(stored: SqlValue) -> Value:
    """Return a value of metadata as an answer has it; stored: see `filters.sql.attributes`."""
    if isinstance(stored, bytes):
        return None if stored == NULL else stored == TRUE
    # A longer text is stored as its beginning and a digest.
    return stored[:LONG_TEXT] if isinstance(stored, str) else stored


@dataclass(frozen=True, slots=True)
class Facet:
    """How many documents have each value of a key, the most frequent first.

    documents: that have the key. is_complete: there are no other values.
    """

    key: str
    values: Sequence[tuple[Value, int]]
    documents: int
    is_complete: bool


class Found(list[Hit]):
    """The hits of one query, best first, and what else it asked for.

    revision: of the collection that was searched. has_more: there are hits after these, where that was asked.
    groups: value and number of hits of each group, in the order of the hits; None without groups. warnings:
    what was not searched, though it was asked for.
    """

    def __init__(
        self,
        hits: Iterable[Hit] = (),
        revision: str | None = None,
        has_more: bool = False,
        groups: Sequence[tuple[Value, int]] | None = None,
        facets: Sequence[Facet] = (),
        warnings: Sequence[str] = (),
    ) -> None:
        super().__init__(hits)
        self.revision = revision
        self.has_more = has_more
        self.groups = groups
        self.facets = facets
        self.warnings = warnings
