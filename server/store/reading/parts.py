"""The chunks of documents with their vectors, as stored."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from server.store.documents import Documents
from server.store.records import Span
from server.store.sqlite.read_limit import spend
from server.store.vector_blob import rounded
from server.types import Vectors


@dataclass(frozen=True, slots=True)
class Parts:
    """The chunks of one document.

    spans: places in its text. vectors: float32 (B, D), one for each span, as stored.
    """

    spans: tuple[Span, ...]
    vectors: Vectors

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Parts):
            return NotImplemented
        same = self.spans == other.spans
        return same and np.array_equal(self.vectors, other.vectors)

    __hash__ = None  # type: ignore[assignment]

    def as_stored(self) -> "Parts":
        """Return these chunks with their vectors as they will be read again."""
        return Parts(self.spans, rounded(self.vectors))


def parts_of(documents: Documents, ids: Sequence[str], number_bytes: int = 0) -> dict[str, Parts]:
    """Return the chunks of the documents of these ids that exist, by id.

    number_bytes: what each number of a vector counts for, where a limit on what is read applies.
    """
    with documents.snapshot():
        id_of = {number: id for id, number in documents.numbers(ids).items()}
        rows: list[tuple[Any, ...]] = documents.database.rows_of(
            "SELECT document, label, begin, end FROM parts WHERE document IN", list(id_of)
        )
        spend(number_bytes * documents.info.dimension * len(rows))
        rows.sort()
        labels = np.array([label for _, label, _, _ in rows], dtype=np.int64)
        vectors = documents.vectors(labels)
    spans: dict[int, list[Span]] = {}
    places: dict[int, list[int]] = {}
    for place, (number, _, begin, end) in enumerate(rows):
        spans.setdefault(number, []).append(Span(begin, end))
        places.setdefault(number, []).append(place)
    return {
        id_of[number]: Parts(tuple(found), vectors[places[number]])
        for number, found in spans.items()
    }
