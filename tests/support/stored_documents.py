"""Documents with random vectors, four wide, written into a database without an index."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from server.errors import StoreError
from server.store.documents import Documents
from server.store.records import Change, Document, Info
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


def check_advice(error: StoreError, path: Path, english: str, chinese: str) -> None:
    assert str(path) in error.english and str(path) in error.chinese
    assert english in error.english
    assert chinese in error.chinese
