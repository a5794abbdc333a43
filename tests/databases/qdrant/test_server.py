"""The adapter against a server: requests of the sizes it takes, indexes, and pages that fit."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from server.databases.address import opened, parse, variable
from server.databases.database import Entry, Row, VectorDatabase
from server.errors import DatabaseAway, DatabaseRefused
from server.store.filters.tree import parse as filter_of
from server.store.records import Document, Span
from tests.support.databases import INFO, SECRET, entry, same, vector
from tests.support.qdrant_server import QdrantServer, running

pytest.importorskip("qdrant_client")


@pytest.fixture
def server(folder: Path, request: pytest.FixtureRequest) -> Iterator[QdrantServer]:
    with running(str(folder / request.node.name), SECRET) as found:
        yield found


@pytest.fixture
def database(server: QdrantServer) -> Iterator[VectorDatabase]:
    found = opened(parse("main", uri(server), {variable("main"): SECRET}))
    found.create(INFO)
    yield found
    found.close()


def uri(server: QdrantServer) -> str:
    return f"qdrant+http://127.0.0.1:{server.server_address[1]}?timeout_s=60"


def test_every_field_that_is_selected_by_has_an_index(
    server: QdrantServer, database: VectorDatabase
) -> None:
    database.create(INFO)
    assert server.indexes[INFO.name] == {
        **{"doc": "keyword", "number": "integer", "first": "bool", "facts": "keyword"},
        **{"order[].k": "keyword", "texts[].k": "keyword"},
    }


def test_a_write_larger_than_a_request_is_split(database: VectorDatabase) -> None:
    """Six bytes of JSON for each character."""
    text = "\0" * 700_000
    given = [
        Entry(Document(f"id {at}", text), "d", [Row(at, Span(0, len(text)), vector(at), {})])
        for at in range(9)
    ]
    database.put(INFO, given)
    assert len(database.documents(INFO, [each.document.id for each in given])) == 9
    (found,) = database.entries(INFO, 7, 10)
    assert same(found, given[-1])


def test_a_page_larger_than_an_answer_is_read_in_parts(
    database: VectorDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [entry(at, f"id {at}", "x" * 50_000) for at in range(9)]
    database.put(INFO, given)
    monkeypatch.setattr("server.databases.qdrant.transport.MAX_ANSWER", 160_000)
    assert [number for number, _ in database.page(INFO, -1, 100, None)] == list(range(9))
    monkeypatch.setattr("server.databases.qdrant.transport.MAX_ANSWER", 40_000)
    with pytest.raises(DatabaseRefused, match="the answer has more than"):
        database.page(INFO, -1, 100, None)


def test_calls_from_several_threads_see_what_was_written_before(database: VectorDatabase) -> None:
    def write_and_read(at: int) -> bool:
        given = entry(at, f"id {at}", f"text {at}", {"n": at})
        database.put(INFO, [given])
        kept = database.page(INFO, -1, 10, filter_of({"n": at}))
        return [document.id for _, document in kept] == [given.document.id]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(write_and_read, range(24)))
    assert database.count(INFO, None) == 24


def test_a_wrong_key_is_refused(server: QdrantServer) -> None:
    wrong = opened(parse("main", uri(server), {variable("main"): "another"}))
    with pytest.raises(DatabaseRefused, match="is its API key the secret"):
        wrong.count(INFO, None)


def test_a_collection_of_another_program_is_left_alone(
    server: QdrantServer, database: VectorDatabase
) -> None:
    from qdrant_client import models

    params = models.VectorParams(size=INFO.dimension, distance=models.Distance.COSINE)
    server.client.create_collection("of_others", params, metadata={"inkwell": {"dimension": True}})
    assert database.names() == [INFO.name]
    assert database.info("of_others") is None
    other = type(INFO)("of_others", INFO.fingerprint, INFO.dimension, INFO.chunks)
    with pytest.raises(DatabaseRefused, match="made for something else"):
        database.create(other)


# The client leaves the file open that it could not lock.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_folder_that_another_process_has_is_away(folder: Path) -> None:
    address = parse("main", f"qdrant:{folder}/shared", {})
    first = opened(address)
    with pytest.raises(DatabaseAway, match="already accessed"):
        opened(address)
    first.close()
    opened(address).close()
