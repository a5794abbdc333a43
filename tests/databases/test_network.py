"""A database that is away is said to be away, in time, whatever the network does."""

import time

import pytest

from server.databases.address import opened, parse, variable
from server.errors import DatabaseAway, DatabaseRefused, ServerError
from tests.support.databases import INFO, SECRET, Engine, entry, vector
from tests.support.network_faults import FAULTS, answering, refused

# Of every URI in ENGINES it is 1 s; connecting, sending and reading may each take it.
MOST_S = 8.0


def fails(engine: Engine, host: str, port: int) -> list[ServerError]:
    """Return what calls of a database at this address raise."""
    address = parse("main", engine.elsewhere(host, port), {variable("main"): SECRET})
    found: list[ServerError] = []
    begin = time.monotonic()
    try:
        database = opened(address)
    except ServerError as error:
        assert time.monotonic() - begin < MOST_S
        return [error]
    for call in (
        database.ping,
        lambda: database.create(INFO),
        lambda: database.put(INFO, [entry(1, "a", "text")]),
        lambda: database.nearest(INFO, vector(1), 3, None),
    ):
        begin = time.monotonic()
        with pytest.raises((DatabaseAway, DatabaseRefused)) as raised:
            call()
        assert time.monotonic() - begin < MOST_S
        found.append(raised.value)
    database.close()
    return found


def test_nothing_that_listens_is_a_database_away(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    host, port = refused()
    for error in fails(engine, host, port):
        assert isinstance(error, DatabaseAway) and error.retry_after_s > 0
        assert str(port) in error.message and SECRET not in error.message
    assert SECRET not in caplog.text


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_network_is_a_database_away(
    engine: Engine, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    with answering(FAULTS[fault]) as (host, port):
        for error in fails(engine, host, port):
            assert isinstance(error, DatabaseAway) or fault == "babbles", error
            assert SECRET not in error.message
    assert SECRET not in caplog.text
