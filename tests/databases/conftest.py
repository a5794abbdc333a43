"""Every database that can run here, each started once."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from server.databases.address import opened
from server.databases.database import VectorDatabase
from server.store.records import Info
from tests.support.databases import ENGINES, INFO, Engine

NUMBERS = count()
# Some databases wait for the disk after every row, up to 50 ms each: no test is about that.
MEMORY = "/dev/shm"


def parameter(engine: Engine) -> ParameterSet:
    """Return an engine; one that is another in a slower form is among the slow tests."""
    return pytest.param(engine, id=engine.name, marks=[pytest.mark.slow] if engine.slow else [])


@pytest.fixture(scope="session", params=[parameter(engine) for engine in ENGINES])
def engine(request: pytest.FixtureRequest) -> Engine:
    """A kind of database; tests are skipped where its packages are missing."""
    found: Engine = request.param
    if found.missing:
        pytest.skip(found.missing)
    return found


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A folder in memory, where there is one; tests make folders of their own below it."""
    place = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="databases-", dir=place) as found:
        yield Path(found)


@pytest.fixture(scope="session")
def database(engine: Engine, folder: Path) -> Iterator[VectorDatabase]:
    """A running database that all tests share, each with a collection of its own."""
    with ExitStack() as stack:
        address = stack.enter_context(engine.running(folder / engine.name))
        found = opened(address)
        stack.callback(found.close)
        yield found


@pytest.fixture
def info(database: VectorDatabase) -> Iterator[Info]:
    """An empty collection, dropped after the test."""
    made = replace(INFO, name=f"{INFO.name}_{next(NUMBERS)}")
    database.create(made)
    yield made
    database.drop(made.name)
