"""A second vector index and a second reading of filters: what another store would bring."""

import uuid
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from server.store.filters.instants import instant
from server.store.filters.tree import (
    AllOf,
    AnyOf,
    Begins,
    Compared,
    Contains,
    Exists,
    Filter,
    Instant,
    Not,
    OneOf,
)
from server.store.selection import Selection
from server.store.vector_index import BadSnapshot, Hits, IndexStats
from server.types import Labels, Vectors


class NumpyIndex:
    """A dictionary of rows, compared one and all; its snapshot is what numpy writes."""

    def __init__(self, dimension: int, rows: Mapping[int, Vectors] | None = None) -> None:
        self._dimension = dimension
        self._rows = dict(rows or {})

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def labels(self) -> Labels:
        return np.array(list(self._rows), dtype=np.int64)

    def plus(self, labels: Labels, vectors: Vectors) -> "NumpyIndex":
        if not np.isfinite(vectors).all():
            raise ValueError("a vector has a value that is not finite")
        added = dict(zip(labels.tolist(), vectors, strict=True))
        assert not added.keys() & self._rows.keys()
        return NumpyIndex(self._dimension, {**self._rows, **added})

    def minus(self, labels: Labels) -> "NumpyIndex":
        gone = set(labels.tolist())
        kept = {label: row for label, row in self._rows.items() if label not in gone}
        return NumpyIndex(self._dimension, kept)

    def search(self, vectors: Vectors, k: int, within: Selection | None = None) -> Hits:
        labels = self.labels
        if within is not None:
            labels = labels[within.contains(labels)]
        scores = np.full((len(vectors), k), -np.inf, dtype=np.float32)
        found = np.full((len(vectors), k), -1, dtype=np.int64)
        if len(labels):
            rows = np.stack([self._rows[label] for label in labels.tolist()])
            cosines = _unit(vectors) @ _unit(rows).T  # (Q, N)
            best = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
            scores[:, : best.shape[1]] = np.take_along_axis(cosines, best, 1)
            found[:, : best.shape[1]] = labels[best]
        return Hits(scores, found)

    @property
    def compaction_due(self) -> bool:
        return False

    @property
    def compaction_pays(self) -> bool:
        return False

    def compacted(self, queries: Vectors | None = None) -> "NumpyIndex":
        return self

    def stats(self) -> IndexStats:
        return IndexStats("numpy", len(self), 0, 0, 4 * self._dimension, None, None, None)

    def probed_recall(self, seed: int) -> float | None:
        return None

    def save(self, path: Path, identity: uuid.UUID) -> None:
        rows = np.array(list(self._rows.values()), dtype=np.float32)
        with path.open("wb") as file:
            np.savez(file, identity=np.array(str(identity)), labels=self.labels, rows=rows)

    @classmethod
    def load(cls, path: Path, dimension: int, identity: uuid.UUID) -> "NumpyIndex":
        try:
            with path.open("rb") as file, np.load(file) as saved:
                if str(saved["identity"]) != str(identity):
                    raise BadSnapshot(f"{path} is of another database")
                pairs = zip(saved["labels"].tolist(), saved["rows"], strict=True)
                return cls(dimension, dict(pairs))
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise BadSnapshot(f"{path} cannot be read: {error}") from None


def _unit(rows: Vectors) -> Vectors:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(norms, 1e-12), dtype=np.float32)


def keeps(filter: Filter, metadata: object) -> bool:
    """Return whether a filter keeps a document: the tree read directly, without SQL."""
    match filter:
        case AllOf(conditions):
            return all(keeps(condition, metadata) for condition in conditions)
        case AnyOf(conditions):
            return any(keeps(condition, metadata) for condition in conditions)
        case Not(condition):
            return not keeps(condition, metadata)
        case Exists(key):
            return any(True for _ in reached(metadata, key))
        case OneOf(key, values):
            there = list(reached(metadata, key))
            missing = not there and None in values
            return missing or any(same(one, value) for one in there for value in values)
        case Compared(key, sign, Instant(microseconds)):
            return any(ordered(when(one), sign, microseconds) for one in reached(metadata, key))
        case Compared(key, sign, operand):
            return any(ordered(one, sign, operand) for one in reached(metadata, key))
        case Contains(key, part):
            return any(isinstance(one, str) and part in one[:256] for one in reached(metadata, key))
        case Begins(key, prefix):
            return any(
                isinstance(one, str) and one.startswith(prefix) for one in reached(metadata, key)
            )


def reached(value: object, path: str) -> Iterator[object]:
    """Yield every value under a path of names with dots, through lists; lists and objects included."""
    if isinstance(value, list):
        if not path:
            yield value
        for element in value:
            yield from reached(element, path)
    elif not path:
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name == path:
                yield from reached(inner, "")
            elif path.startswith(f"{name}."):
                yield from reached(inner, path[len(name) + 1 :])


def same(a: object, b: object) -> bool:
    """Return whether two JSON values are equal: true is not 1."""
    if isinstance(b, Instant):
        return when(a) == b.microseconds
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    return bool(a == b)


def when(value: object) -> int | None:
    """Return the instant of a text that is a date."""
    return instant(value) if isinstance(value, str) else None


def ordered(a: object, sign: str, b: object) -> bool:
    """Return whether `a sign b` holds; numbers compare with numbers only, and texts with texts."""
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in (a, b))
    if not numbers and not (isinstance(a, str) and isinstance(b, str)):
        return False
    left: Any = a
    right: Any = b
    if sign == ">":
        return bool(left > right)
    if sign == ">=":
        return bool(left >= right)
    if sign == "<":
        return bool(left < right)
    return bool(left <= right)
