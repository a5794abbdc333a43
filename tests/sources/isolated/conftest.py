"""Ends the processes that read files, so that none is left when the tests end."""

from collections.abc import Iterator

import pytest

from server.sources.isolated.process import close_all


@pytest.fixture(scope="session", autouse=True)
def processes_end() -> Iterator[None]:
    yield
    close_all()
