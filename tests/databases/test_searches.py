"""Searches by meaning, by words and by both find what is there, in the right order."""

from collections.abc import Sequence

import numpy as np
import pytest

from server.databases.database import FoundRow, VectorDatabase
from server.store.filters.tree import parse
from server.store.records import Info
from tests.support.database_model import DatabaseModel
from tests.support.databases import DIMENSION, entry, vector, words_of

TEXTS = [
    "apple banana cherry",
    "apple apple apple",
    "banana date",
    "elderberry fig",
    "苹果和香蕉",
    "苹果是一种水果",
]


@pytest.fixture
def stored(database: VectorDatabase, info: Info) -> DatabaseModel:
    given = [
        entry(10 * at, f"id {at}", text, {"n": at, "even": at % 2 == 0})
        for at, text in enumerate(TEXTS)
    ]
    given.append(entry(100, "long", " ".join(TEXTS), {"n": 100}, ends=(20, 40, 60)))
    model = DatabaseModel()
    model.put(given)
    database.put(info, given)
    return model


def scores(found: Sequence[FoundRow]) -> list[float]:
    return [row.score for row in found]


@pytest.mark.parametrize("filter", [None, {"even": True}, {"n": {"$gte": 3}}, {"n": -1}], ids=str)
@pytest.mark.parametrize("k", [1, 3, 100])
def test_the_nearest_rows_have_the_cosines_of_numpy(
    database: VectorDatabase,
    info: Info,
    stored: DatabaseModel,
    filter: dict[str, object] | None,
    k: int,
) -> None:
    tree = None if filter is None else parse(filter)
    for seed in range(5):
        expected = stored.cosines(vector(seed), tree)
        found = database.nearest(info, vector(seed), k, tree)
        assert len(found) == min(k, len(expected))
        best = sorted(expected.values(), reverse=True)[:k]
        assert scores(found) == pytest.approx(best, abs=1e-5)
        for row in found:
            assert row.score == pytest.approx(expected[row.label], abs=1e-5)


def test_a_found_row_has_its_chunk(
    database: VectorDatabase, info: Info, stored: DatabaseModel
) -> None:
    long = stored.entries()[-1]
    for row in long.rows:
        found = database.nearest(info, row.vector, 1, None)[0]
        assert (found.label, found.chunk.span, found.chunk.whole) == (row.label, row.span, False)
        assert found.chunk.text == long.document.text[slice(*row.span)]
        assert (found.chunk.id, dict(found.chunk.metadata)) == ("long", {"n": 100})


def test_a_vector_of_zeros_breaks_nothing(database: VectorDatabase, info: Info) -> None:
    zeros = np.zeros(DIMENSION, dtype=np.float32)
    given = [entry(1, "zeros", "text", vectors=[zeros]), entry(2, "one", "text")]
    database.put(info, given)
    assert {row.label for row in database.nearest(info, given[1].rows[0].vector, 5, None)} >= {2}
    for row in database.nearest(info, zeros, 5, None):
        assert np.isfinite(row.score)
    assert database.by_both(info, zeros, ["text"], 5, None)


@pytest.mark.parametrize("filter", [None, {"even": True}, {"n": {"$gte": 3}}, {"n": -1}], ids=str)
def test_words_find_exactly_the_rows_that_have_one(
    database: VectorDatabase, info: Info, stored: DatabaseModel, filter: dict[str, object] | None
) -> None:
    tree = None if filter is None else parse(filter)
    for query in ("apple", "banana fig", "苹果", "nothing like this", "水果 apple"):
        words = list(words_of(query))
        found = database.by_words(info, words, 100, tree)
        assert {row.label for row in found} == stored.labels(words, tree), query
        assert scores(found) == sorted(scores(found), reverse=True)
        assert all(score > 0 for score in scores(found))
        few = database.by_words(info, words, 2, tree)
        assert scores(few) == pytest.approx(scores(found)[:2], rel=1e-5)


def test_words_that_are_rare_or_frequent_in_a_text_count_more(
    database: VectorDatabase, info: Info
) -> None:
    common = [entry(at, f"id {at}", f"common filler {at}") for at in range(50)]
    twice = entry(100, "twice", "common rare rare")
    once = entry(101, "once", "common filler rare")
    database.put(info, [*common, once, twice])
    assert [row.label for row in database.by_words(info, ["common", "rare"], 3, None)][:2] == [
        100,
        101,
    ]
    assert database.by_words(info, ["rare"], 5, None)[0].label == 100


def test_no_words_find_nothing(database: VectorDatabase, info: Info, stored: DatabaseModel) -> None:
    assert database.by_words(info, [], 5, None) == []
    assert database.by_words(info, ["\0", "'; --", "不存在的词", "x" * 1_000], 5, None) == []


def test_many_words_are_one_query(
    database: VectorDatabase, info: Info, stored: DatabaseModel
) -> None:
    words = [f"word{at}" for at in range(2_000)] + ["apple"]
    found = database.by_words(info, words, 100, None)
    assert {row.label for row in found} == stored.labels(["apple"], None)


@pytest.mark.parametrize("filter", [None, {"even": True}], ids=str)
def test_both_searches_together_put_what_both_find_first(
    database: VectorDatabase, info: Info, stored: DatabaseModel, filter: dict[str, object] | None
) -> None:
    tree = None if filter is None else parse(filter)
    entries = stored.entries(tree)
    query = entries[0]
    words = list(query.rows[0].words)
    found = database.by_both(info, query.rows[0].vector, words, 4, tree)
    assert found[0].label == query.number
    assert len({row.label for row in found}) == len(found) == min(4, len(found))
    assert {row.label for row in found} <= stored.cosines(vector(0), tree).keys()
    assert scores(found) == sorted(scores(found), reverse=True)


def test_both_searches_need_no_words(
    database: VectorDatabase, info: Info, stored: DatabaseModel
) -> None:
    nearest = [row.label for row in database.nearest(info, vector(3), 4, None)]
    for words in ([], ["不存在的词"]):
        both = [row.label for row in database.by_both(info, vector(3), words, 4, None)]
        assert both == nearest


def test_an_empty_collection_has_no_hits(database: VectorDatabase, info: Info) -> None:
    assert database.nearest(info, vector(1), 5, None) == []
    assert database.by_words(info, ["apple"], 5, None) == []
    assert database.by_both(info, vector(1), ["apple"], 5, None) == []
