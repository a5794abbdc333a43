"""Searches by the index of vectors, and by words as SQLite ranks them."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from server.databases.database import Entry, Row, VectorDatabase
from server.databases.postgres import searching
from server.databases.postgres.schema import VECTOR_INDEX, quoted
from server.databases.postgres.searching import Scored, fused
from server.store.filters.tree import parse
from server.store.lexical import TOKENIZER
from server.store.records import Document, Info, Span
from server.types import Vectors, unit
from tests.support.databases import DIMENSION, entry, same, vector
from tests.support.fakes import eventually
from tests.support.postgres import ADMIN, PostgresServer

N = 1_500


@pytest.fixture
def by_index(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compare with no row that the index does not propose, in sessions that are opened from here on.

    In a collection as small as those of tests PostgreSQL itself would rather sort all rows.
    """
    monkeypatch.setattr(searching, "EXACT", 0)
    server.sql(f"ALTER ROLE {ADMIN} SET enable_sort = off")
    yield
    server.sql(f"ALTER ROLE {ADMIN} RESET enable_sort")


def clustered(n: int, dimension: int = DIMENSION) -> Vectors:
    """Return unit vectors in 20 groups: float32 (n, D)."""
    drawn = np.random.default_rng(7)
    centres = drawn.standard_normal((20, dimension))
    near = drawn.standard_normal((n, dimension)) * 0.5
    return unit((centres[drawn.integers(0, 20, n)] + near).astype(np.float32))


def stored(database: VectorDatabase, info: Info, vectors: Vectors) -> None:
    """Store a document for each vector, with its place as label."""
    database.put(
        info,
        [
            Entry(Document(f"id {at}", "text", None, {"n": at, "odd": at % 2}), f"{at}", [row])
            for at, each in enumerate(vectors)
            for row in [Row(at, Span(0, 4), each, {"text": 1})]
        ],
    )


def n_scans(server: PostgresServer, info: Info) -> int:
    """Return how often the index of vectors was read; sessions report it when they end."""
    rows = server.sql(
        "SELECT idx_scan FROM pg_stat_user_indexes"
        f" WHERE schemaname = '{info.name}' AND indexrelname = '{VECTOR_INDEX}'"
    )
    return int(rows[0][0])


def test_the_index_finds_what_comparing_all_finds(
    by_index: None, server: PostgresServer, database: VectorDatabase, info: Info
) -> None:
    vectors = clustered(N)
    stored(database, info, vectors)
    found = wanted = 0
    for query in clustered(N)[::100] + np.float32(0.01):
        query = unit(query[None])[0]
        cosines = vectors @ query
        best = np.argsort(-cosines)[:10]
        rows = database.nearest(info, query, 10, None)
        assert [row.score for row in rows] == pytest.approx(
            cosines[[row.label for row in rows]], abs=1e-5
        )
        assert [row.score for row in rows] == sorted((row.score for row in rows), reverse=True)
        found += len({row.label for row in rows} & set(best.tolist()))
        wanted += 10
    assert found / wanted >= 0.98
    database.close()
    eventually(lambda: n_scans(server, info) >= 15)


@pytest.mark.parametrize(
    ("filter", "kept"),
    [({"n": {"$lt": 3}}, 3), ({"odd": 1}, N // 2), ({"n": {"$gte": 10}}, N - 10), ({"n": -1}, 0)],
    ids=str,
)
def test_a_filter_never_leaves_too_few(
    by_index: None, database: VectorDatabase, info: Info, filter: dict[str, object], kept: int
) -> None:
    stored(database, info, clustered(N))
    for k in (1, 20, 300):
        for seed in range(3):
            found = database.nearest(info, vector(seed), k, parse(filter))
            assert len({row.label for row in found}) == len(found) == min(k, kept)
            numbers = [row.chunk.metadata["n"] for row in found]
            assert len(database.by_both(info, vector(seed), ["text"], k, parse(filter))) == min(
                k, kept
            )
            assert all(
                database.count(info, parse({"$and": [filter, {"n": n}]})) for n in numbers[:3]
            )


def test_vectors_of_zeros_are_found_by_the_index_too(
    by_index: None, database: VectorDatabase, info: Info
) -> None:
    vectors = np.stack([np.zeros(DIMENSION, dtype=np.float32), vector(1), -vector(1)])
    stored(database, info, vectors)
    found = database.nearest(info, vector(1), 3, None)
    assert [row.label for row in found] == [1, 0, 2]
    assert [row.score for row in found] == pytest.approx([1, 0, -1], abs=1e-5)


@pytest.mark.parametrize("dimension", [1, 2_500, 4_500])
def test_vectors_may_be_short_or_long(
    by_index: None, database: VectorDatabase, info: Info, dimension: int
) -> None:
    made = replace(info, name=f"{info.name}_{dimension}", dimension=dimension)
    database.create(made)
    vectors = clustered(20, dimension)
    stored(database, made, vectors)
    for at, query in enumerate(vectors[:5]):
        best = database.nearest(made, query, 1, None)[0]
        assert best.score == pytest.approx(1, abs=1e-5)
        assert dimension == 1 or best.label == at
    assert all(
        np.array_equal(e.rows[0].vector, v)
        for e, v in zip(database.entries(made, -1, 99), vectors, strict=True)
    )


@pytest.mark.parametrize("length", [1e-30, 0.5, 3.0, 1e30])
def test_vectors_of_any_length_come_back_and_are_compared_by_direction(
    by_index: None, database: VectorDatabase, info: Info, length: float
) -> None:
    given = entry(1, "a", "text", vectors=[vector(1) * np.float32(length)])
    database.put(info, [given, entry(2, "b", "text", vectors=[vector(2)])])
    assert same(database.entries(info, -1, 1)[0], given)
    found = database.nearest(info, vector(1), 2, None)
    assert [row.label for row in found] == [1, 2]
    assert [row.score for row in found] == pytest.approx(
        [1, float(vector(1) @ vector(2))], abs=1e-5
    )


def test_words_are_ranked_as_sqlite_ranks_them(database: VectorDatabase, info: Info) -> None:
    drawn = np.random.default_rng(3)
    texts = [
        " ".join(f"w{n}" for n in drawn.zipf(1.5, size) % 200)
        for size in drawn.integers(1, 60, 200)
    ]
    database.put(info, [entry(at + 1, f"id {at}", text) for at, text in enumerate(texts)])
    for at in range(50):
        database.delete(info, [f"id {at * 4}"])
    database.put(info, [entry(1_000, "id 1", texts[1] + " w1 w2")])
    with sqlite3.connect(":memory:") as own:
        own.execute(f"CREATE VIRTUAL TABLE words USING fts5 (terms, tokenize = '{TOKENIZER}')")
        for each in database.entries(info, -1, 1_000):
            (row,) = each.rows
            terms = " ".join(term for term, n in row.words.items() for _ in range(n))
            own.execute("INSERT INTO words (rowid, terms) VALUES (?, ?)", (row.label, terms))
        for words in (["w1"], ["w7", "w3"], ["w1", "w2", "w40", "absent"], ["w150"], ["w1", "w1"]):
            asked = " OR ".join(dict.fromkeys(words))
            expected = dict(
                own.execute("SELECT rowid, -rank FROM words WHERE words MATCH ?", (asked,))
            )
            found = {row.label: row.score for row in database.by_words(info, words, 500, None)}
            assert found == pytest.approx(expected, rel=1e-9)
    own.close()


def test_filters_do_not_change_scores_of_words(database: VectorDatabase, info: Info) -> None:
    database.put(
        info, [entry(at + 1, f"id {at}", f"apple {'pear ' * at}", {"n": at}) for at in range(9)]
    )
    every = {row.label: row.score for row in database.by_words(info, ["pear"], 9, None)}
    some = database.by_words(info, ["pear"], 2, parse({"n": {"$in": [2, 5]}}))
    assert {row.label: row.score for row in some} == {label: every[label] for label in (3, 6)}


def test_reciprocal_ranks_are_added() -> None:
    rankings = [[Scored(1, 9.0), Scored(2, 8.0)], [Scored(2, 0.5), Scored(3, 0.4)], []]
    expected = [(2, 1 / 62 + 1 / 61), (1, 1 / 61), (3, 1 / 62)]
    assert fused(rankings, 9) == [Scored(*each) for each in expected]
    assert fused(rankings, 1) == [Scored(*expected[0])]


def test_statistics_of_tables_are_not_needed(
    by_index: None, server: PostgresServer, database: VectorDatabase, info: Info
) -> None:
    """What the planner knows decides how fast a search is, and never what it finds."""
    stored(database, info, clustered(N))
    before = [row.label for row in database.nearest(info, vector(4), 10, parse({"odd": 1}))]
    for table in ("chunks", "documents", "attributes"):
        server.sql(f"ANALYZE {quoted(info.name)}.{table}")
    assert [row.label for row in database.nearest(info, vector(4), 10, parse({"odd": 1}))] == before
