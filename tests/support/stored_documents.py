"""Documents with random vectors, four wide, written into a database without an index."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from server.errors import StoreError
from server.store.documents import Documents
from server.store.filters.tree import Filter, parse
from server.store.records import Change, Document, Info
from server.store.selection import Selection
from server.types import Vectors

INFO = Info("laws", "fingerprint-a", 4)


def vectors(n: int, seed: int = 0) -> Vectors:
    return np.random.default_rng(seed).standard_normal((n, 4), dtype=np.float32)


def add(documents: Documents, *items: Document) -> Change:
    with documents.transaction():
        return documents.add(items, vectors(len(items)))


def delete(documents: Documents, ids: Sequence[str]) -> Change:
    with documents.transaction():
        return documents.delete(ids)


def within(documents: Documents, filter: object) -> Selection | None:
    """Return the labels that a filter keeps, by its SQL; filter: as JSON, or parsed."""
    if not filter:
        return None
    tree = parse(filter) if isinstance(filter, dict) else cast(Filter, filter)
    return Selection.of_labels(documents.labels(tree))


def check_advice(error: StoreError, path: Path, english: str, chinese: str) -> None:
    assert str(path) in error.english and str(path) in error.chinese
    assert english in error.english
    assert chinese in error.chinese
