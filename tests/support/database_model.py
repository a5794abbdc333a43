"""What a vector database should answer, from a plain dictionary."""

from collections.abc import Collection, Sequence

from server.databases.database import Entry
from server.store.filters.match import matches
from server.store.filters.tree import ID, TEXT, TITLE, Filter
from server.store.records import Document
from server.types import Vectors


class DatabaseModel:
    """Documents by their id: of two versions of one, that with the greater number counts."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def put(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            kept = self._entries.setdefault(entry.document.id, entry)
            if kept.number <= entry.number:
                self._entries[entry.document.id] = entry

    def delete(self, ids: Collection[str]) -> None:
        for id in ids:
            self._entries.pop(id, None)

    def entries(self, filter: Filter | None = None) -> list[Entry]:
        """Return the documents that a filter keeps, by number."""
        kept = (each for each in self._entries.values() if keeps(filter, each.document))
        return sorted(kept, key=lambda entry: entry.number)

    def page(self, after: int, limit: int, filter: Filter | None) -> list[tuple[int, Document]]:
        found = [
            (each.number, each.document) for each in self.entries(filter) if each.number > after
        ]
        return found[:limit]

    def cosines(self, vector: Vectors, filter: Filter | None) -> dict[int, float]:
        """Return the cosine of each row with a unit vector, by its label."""
        return {
            row.label: float(row.vector.astype(float) @ vector.astype(float))
            for each in self.entries(filter)
            for row in each.rows
        }

    def labels(self, words: Sequence[str], filter: Filter | None) -> set[int]:
        """Return the labels of the rows that have one of the words."""
        return {
            row.label
            for each in self.entries(filter)
            for row in each.rows
            if row.words.keys() & set(words)
        }


def keeps(filter: Filter | None, document: Document) -> bool:
    """Return whether a filter keeps a document, by its metadata and the fields beside it."""
    beside = {ID: document.id, TITLE: document.title, TEXT: document.text}
    return filter is None or bool(matches(filter, document.metadata, beside))
