"""Collections in a database: made, found again, and refused where they are of something else."""

from dataclasses import replace
from pathlib import Path

import pytest

from server.databases.address import opened
from server.databases.database import VectorDatabase
from server.databases.naming import database_name
from server.errors import DatabaseRefused
from server.store.records import ChunkRules, Info
from tests.support.databases import INFO, Engine, entry, same


def test_a_database_tells_what_it_is(database: VectorDatabase) -> None:
    product, version = database.ping().split()[:2]
    assert product and any(digit.isdigit() for digit in version)


@pytest.mark.parametrize(
    "change",
    [
        {"chunks": None},
        {"chunks": ChunkRules(1, 0)},
        {"fingerprint": "embedder:other"},
        {"dimension": 3},
    ],
    ids=str,
)
def test_a_collection_says_what_it_was_made_for(
    database: VectorDatabase, change: dict[str, object]
) -> None:
    made = replace(INFO, name="described", **change)  # type: ignore[arg-type]
    assert database.info(made.name) is None
    database.create(made)
    try:
        database.create(made)
        assert database.info(made.name) == made
        assert made.name in database.names()
    finally:
        database.drop(made.name)
    assert database.info(made.name) is None
    assert made.name not in database.names()
    database.drop(made.name)


@pytest.mark.parametrize(
    "other",
    [
        {"fingerprint": "another"},
        {"dimension": 9},
        {"chunks": None},
        {"chunks": ChunkRules(100, 1)},
    ],
    ids=str,
)
def test_a_collection_of_something_else_is_refused_and_left_alone(
    database: VectorDatabase, info: Info, other: dict[str, object]
) -> None:
    database.put(info, [entry(1, "a", "text")])
    with pytest.raises(DatabaseRefused, match=info.name):
        database.create(replace(info, **other))  # type: ignore[arg-type]
    assert database.info(info.name) == info
    assert database.count(info, None) == 1


def test_collections_do_not_see_each_other(database: VectorDatabase, info: Info) -> None:
    other = replace(info, name=f"{info.name}_other")
    database.create(other)
    try:
        database.put(info, [entry(1, "a", "text")])
        database.put(other, [entry(1, "a", "another"), entry(2, "b", "text")])
        database.delete(other, ["a"])
        assert (database.count(info, None), database.count(other, None)) == (1, 1)
    finally:
        database.drop(other.name)
    assert database.documents(info, ["a"])["a"].text == "text"


def test_a_dropped_collection_comes_back_empty(database: VectorDatabase, info: Info) -> None:
    database.put(info, [entry(1, "a", "text")])
    database.drop(info.name)
    database.create(info)
    assert database.count(info, None) == 0
    assert database.entries(info, -1, 10) == []


def test_a_collection_that_is_not_there_is_refused(database: VectorDatabase) -> None:
    absent = replace(INFO, name="never_made")
    with pytest.raises(DatabaseRefused):
        database.count(absent, None)
    with pytest.raises(DatabaseRefused):
        database.put(absent, [entry(1, "a", "text")])


@pytest.mark.parametrize(
    "name", ["x" * 48, "select", "order", "a__b_", "法律", "A b/c", "collection_"]
)
def test_names_made_here_are_taken(database: VectorDatabase, name: str) -> None:
    made = replace(INFO, name=database_name("prefix_", name))
    database.create(made)
    try:
        assert database.info(made.name) == made
        assert made.name in database.names()
    finally:
        database.drop(made.name)


def test_what_was_put_is_there_after_a_new_start(engine: Engine, folder: Path) -> None:
    given = [entry(1, "a", "first text", {"n": 1}, ends=(5, 10)), entry(3, "b", "second text")]
    with engine.running(folder / f"{engine.name}-restarted") as address:
        before = opened(address)
        before.create(INFO)
        before.put(INFO, given)
        before.delete(INFO, ["b"])
        before.close()
        after = opened(address)
        try:
            assert after.names() == [INFO.name]
            assert after.info(INFO.name) == INFO
            (found,) = after.entries(INFO, -1, 10)
            assert same(found, given[0])
            words = list(given[0].rows[0].words)
            assert [row.label for row in after.by_words(INFO, words, 5, None)][:1] == [1]
        finally:
            after.close()
