"""The tables of collections: whose they are, their versions, and what other programs see."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from server.databases.database import VectorDatabase
from server.databases.naming import database_name
from server.databases.postgres import schema, writing
from server.databases.postgres.schema import LONGEST_NAME, MARK, quoted
from server.errors import DatabaseRefused, InvalidRequest
from server.store.records import Info
from tests.support.databases import INFO, entry, same
from tests.support.postgres import PostgresServer


def test_a_schema_of_another_program_is_refused_and_never_removed(
    server: PostgresServer, database: VectorDatabase
) -> None:
    server.sql("CREATE SCHEMA theirs CREATE TABLE documents (a integer)")
    theirs = replace(INFO, name="theirs")
    with pytest.raises(DatabaseRefused, match="no collection of this server"):
        database.create(theirs)
    assert database.info("theirs") is None and "theirs" not in database.names()
    database.drop("theirs")
    with pytest.raises(DatabaseRefused):
        database.put(theirs, [entry(1, "a", "text")])
    assert server.sql("SELECT count(*) FROM theirs.documents") == [[0]]


@pytest.mark.parametrize("name", ["public", "information_schema", "pg_catalog", "pg_mine"])
def test_names_of_postgresql_itself_are_refused(database: VectorDatabase, name: str) -> None:
    with pytest.raises(DatabaseRefused, match=name):
        database.create(replace(INFO, name=name))


def test_a_name_that_postgresql_would_cut_is_refused(database: VectorDatabase) -> None:
    longest = replace(INFO, name="n" * LONGEST_NAME)
    database.create(longest)
    assert database.info(longest.name) == longest
    with pytest.raises(DatabaseRefused, match="choose a shorter prefix"):
        database.create(replace(INFO, name="n" * (LONGEST_NAME + 1)))


@pytest.mark.parametrize(
    "name", ['a"b', "a'b", "A b; DROP SCHEMA public; --", "法律", "{schema}", "$1", ":a"]
)
def test_any_other_name_is_quoted(database: VectorDatabase, name: str) -> None:
    made = replace(INFO, name=name)
    database.create(made)
    given = entry(1, "a", "text", {"n": 1})
    database.put(made, [given])
    assert same(database.entries(made, -1, 1)[0], given)
    assert name in database.names()
    database.drop(name)
    assert database.info(name) is None


def test_many_that_create_at_once_make_one_collection(database: VectorDatabase) -> None:
    made = replace(INFO, name=database_name("at_once_", "x"))
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda _: database.create(made), range(12)))
    assert database.names().count(made.name) == 1


def test_tables_of_a_newer_version_are_refused(
    server: PostgresServer, database: VectorDatabase, info: Info
) -> None:
    server.sql(f"UPDATE {quoted(info.name)}.{MARK} SET version = version + 1")
    with pytest.raises(DatabaseRefused, match="upgrade the server"):
        database.create(info)


def test_tables_of_an_older_version_are_brought_to_this_one(
    server: PostgresServer,
    database: VectorDatabase,
    info: Info,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = entry(1, "a", "text")
    database.put(info, [given])
    steps = [
        "ALTER TABLE {schema}.documents ADD COLUMN first integer",
        "ALTER TABLE {schema}.documents ADD COLUMN second integer; CREATE INDEX ON {schema}.documents (second)",
    ]
    monkeypatch.setattr(schema, "MIGRATIONS", steps)
    monkeypatch.setattr(schema, "VERSION", 3)
    for _ in range(2):
        database.create(info)
    assert server.sql(f"SELECT first, second FROM {quoted(info.name)}.documents") == [[None, None]]
    assert server.sql(f"SELECT version FROM {quoted(info.name)}.{MARK}") == [[3]]
    assert same(database.entries(info, -1, 1)[0], given)


def test_the_first_version_of_the_tables_is_what_it_was() -> None:
    """Collections that are out there have these tables. A change to them is a step of MIGRATIONS."""
    made = hashlib.sha256(schema.tables(INFO).encode()).hexdigest()
    assert (made[:16], schema.VERSION) == ("ad4e4f583c09fe81", 1)


def test_people_can_read_documents_in_sql(
    server: PostgresServer, database: VectorDatabase, info: Info
) -> None:
    database.put(
        info,
        [
            entry(1, "甲", "墨池\n'text'", {"year": 2024}, title="标题"),
            entry(2, "nul", "a\0b", {"a": "\0"}),
        ],
    )
    rows = server.sql(f"SELECT id, title, text FROM {quoted(info.name)}.readable ORDER BY number")
    assert rows == [["甲", "标题", "墨池\n'text'"], ["nul", None, None]]
    found = server.sql(
        f"SELECT metadata::json ->> 'year' FROM {quoted(info.name)}.readable WHERE id = '甲'"
    )
    assert found == [["2024"]]


def test_a_write_of_many_documents_is_several_transactions() -> None:
    small = [entry(at, f"{at}", "text") for at in range(1_300)]
    assert [len(each) for each in writing.batches(small)] == [512, 512, 276]
    large = [entry(at, f"{at}", "x" * 1_500_000) for at in range(5)]
    assert [len(each) for each in writing.batches(large)] == [2, 2, 1]
    cut = [entry(at * 1_000, f"{at}", "x" * 600, ends=range(1, 601)) for at in range(4)]
    assert [len(each) for each in writing.batches(cut)] == [1, 1, 1, 1]
    assert list(writing.batches([])) == []


def test_what_cannot_be_stored_stores_nothing_and_breaks_no_session(
    server: PostgresServer, database: VectorDatabase, info: Info
) -> None:
    database.put(info, [entry(1, "a", "text")])
    pids = "SELECT count(DISTINCT pid) FROM pg_stat_activity WHERE application_name = 'inkwell'"
    before = server.sql(pids)
    with pytest.raises(InvalidRequest, match="lone surrogate"):
        database.put(info, [entry(2, "b", "text"), entry(3, "c", "text", {"a": "\ud800"})])
    with pytest.raises(DatabaseRefused, match="labels of this write are there already"):
        database.put(info, [entry(9, "other", "text"), entry(1, "another", "text")])
    with pytest.raises(DatabaseRefused, match="dimensions"):
        database.put(
            replace(info, dimension=3),
            [entry(20, "d", "text", vectors=[entry(1, "", "x").rows[0].vector[:3]])],
        )
    assert server.sql(pids) == before
    assert [each.document.id for each in database.entries(info, -1, 9)] == ["a"]


def test_every_call_takes_long_names_of_fields(database: VectorDatabase, info: Info) -> None:
    from server.store.filters.tree import parse

    key, twin = "k" * 5_000, "k" * 4_999 + "l"
    database.put(info, [entry(1, "a", "text", {key: 1, "n": {twin: "x" * 5_000}})])
    assert database.count(info, parse({key: 1})) == 1
    assert database.count(info, parse({twin: 1})) == 0
    assert database.count(info, parse({f"n.{twin}": "x" * 5_000})) == 1
    assert database.count(info, parse({f"n.{twin}": "x" * 5_001})) == 0
