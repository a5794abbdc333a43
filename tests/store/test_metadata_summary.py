"""The keys and values of a collection's metadata."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from server.store.documents import Documents
from server.store.metadata_summary import MOST_KEYS, MOST_VALUES, MetadataSummary, metadata_summary
from server.store.records import Document, Info


def summary(path: Path, *metadata: dict[str, Any], whole: int = 1_000) -> MetadataSummary:
    documents = Documents(path / "d.sqlite3", Info("c", "model", 2))
    with documents.transaction():
        given = [Document(str(n), "text", metadata=each) for n, each in enumerate(metadata)]
        documents.add(given, np.ones((len(given), 2), dtype=np.float32))
    try:
        return metadata_summary(documents, whole)
    finally:
        documents.close()


def test_kinds_of_values_are_told_apart(tmp_path: Path) -> None:
    found = summary(
        tmp_path,
        {"n": 1, "flag": True, "day": "2024-05-01", "word": "a", "both": 1, "in": {"side": "x"}},
        {"n": 2.5, "flag": False, "day": "2024-06-01T10:00:00Z", "word": "b", "both": "1"},
        {"n": None, "word": ["a", "b"], "nothing": [], "null": None},
    )
    kinds = {each.key: each.kind for each in found.keys}
    assert kinds == {
        "n": "number",
        "flag": "boolean",
        "day": "date",
        "word": "text",
        "both": "mixed",
        "in.side": "text",
    }
    by_key = {each.key: each for each in found.keys}
    assert (by_key["n"].least, by_key["n"].greatest, by_key["n"].documents) == (1, 2.5, 3)
    assert [(each.value, each.documents) for each in by_key["word"].values] == [("a", 2), ("b", 2)]
    assert {each.value for each in by_key["flag"].values} == {True, False}
    assert found.documents == found.total == 3 and not found.sampled


def test_lists_are_bounded_and_say_so(tmp_path: Path) -> None:
    many = {f"k{n:03}": n for n in range(MOST_KEYS + 5)}
    rare = [{"k000": f"value {n}"} for n in range(MOST_VALUES + 5)]
    found = summary(tmp_path, many, *rare, {"k001": "long" * 100})
    assert len(found.keys) == MOST_KEYS and found.more_keys
    assert len(found.keys[0].values) == MOST_VALUES and not found.keys[0].complete
    assert found.keys[2].complete and not found.keys[1].complete
    assert len(json.dumps([each.key for each in found.keys])) < 2_000


def test_a_large_collection_is_sampled_at_even_distances(tmp_path: Path) -> None:
    given = [{"half": "first" if n < 500 else "second", "n": n} for n in range(1_000)]
    found = summary(tmp_path, *given, whole=100)
    assert found.sampled and found.documents == 100 and found.total == 1_000
    by_key = {each.key: each for each in found.keys}
    counts = Counter({str(each.value): each.documents for each in by_key["half"].values})
    assert set(counts) == {"first", "second"} and abs(counts["first"] - 50) <= 1
    assert not by_key["n"].complete and by_key["n"].documents == 100
