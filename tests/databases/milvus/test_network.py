"""A server of Milvus that is away, refuses, hangs or comes back, and what else the client might reach."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("milvus_lite")

from server.databases.address import Address
from server.databases.milvus.database import MilvusDatabase
from server.errors import DatabaseAway, DatabaseRefused
from server.store.filters.tree import parse
from server.store.records import Info
from tests.support.databases import INFO, SECRET, entry, same
from tests.support.milvus_server import ANY, HANG, Server, serving

TIMEOUT_S = 1.0
# A call is tried again within its timeout, and the last try may begin at the end of it.
LONGEST_S = 4 * TIMEOUT_S


def remote(url: str, timeout_s: float = TIMEOUT_S, **options: str) -> MilvusDatabase:
    return MilvusDatabase(Address("milvus", url, SECRET, options, timeout_s))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "server.db") as found:
        yield found


@pytest.fixture
def database(server: Server) -> Iterator[MilvusDatabase]:
    found = remote(server.url)
    found.create(INFO)
    yield found
    found.close()


def reset(connection: socket.socket) -> None:
    connection.recv(100)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def answering(status: str) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.recv(1_000)
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        connection.close()

    return answer


@contextmanager
def listening(behave: Callable[[socket.socket], object]) -> Iterator[tuple[int, list[object]]]:
    """Yield the port of a server of something else, and its connections."""
    held: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                    held.append(connection)
                    behave(connection)
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], held
        listener.shutdown(socket.SHUT_RDWR)
    for each in held:
        assert isinstance(each, socket.socket)
        each.close()


@pytest.mark.parametrize(
    "behave",
    [lambda connection: None, reset, answering("500 Oh"), answering("404 No")],
    ids=["hangs", "resets", "500", "404"],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_is_no_milvus_is_away_in_time(
    behave: Callable[[socket.socket], object], scheme: str
) -> None:
    with listening(behave) as (port, _):
        database = remote(f"{scheme}://127.0.0.1:{port}")
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(DatabaseAway, match=f"127.0.0.1:{port} does not answer") as caught:
                database.ping()
            assert time.monotonic() - began < LONGEST_S
            assert SECRET not in str(caught.value)
        database.close()


def test_a_closed_port_and_an_unknown_host_are_away() -> None:
    for url in ("http://127.0.0.1:1", "http://no-such-host.invalid:19530"):
        database = remote(url)
        with pytest.raises(DatabaseAway, match="does not answer"):
            database.count(INFO, None)
        database.close()


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("UNAVAILABLE", DatabaseAway),
        ("DEADLINE_EXCEEDED", DatabaseAway),
        ("INTERNAL", DatabaseAway),
        (HANG, DatabaseAway),
        ("UNAUTHENTICATED", DatabaseRefused),
        ("PERMISSION_DENIED", DatabaseRefused),
        ("INVALID_ARGUMENT", DatabaseRefused),
        ("UNIMPLEMENTED", DatabaseRefused),
        ("RESOURCE_EXHAUSTED", DatabaseRefused),
    ],
)
@pytest.mark.parametrize("call", ["Query", "Search", "Upsert", "Delete"])
def test_statuses_say_whether_to_try_again(
    server: Server, database: MilvusDatabase, call: str, fault: str, expected: type[Exception]
) -> None:
    calls: dict[str, Callable[[], object]] = {
        "Query": lambda: database.count(INFO, None),
        "Search": lambda: database.nearest(INFO, entry(1, "a", "").rows[0].vector, 1, None),
        "Upsert": lambda: database.put(INFO, [entry(1, "a", "text")]),
        "Delete": lambda: database.delete(INFO, ["a"]),
    }
    if call == "Delete":
        calls["Upsert"]()
    server.faults.planned = {call: fault}
    began = time.monotonic()
    with pytest.raises(expected, match=server.url):
        calls[call]()
    assert time.monotonic() - began < LONGEST_S
    server.faults.planned = {}
    calls[call]()


@pytest.mark.parametrize("fault", ["UNAUTHENTICATED", "UNIMPLEMENTED"])
def test_a_server_that_lets_nobody_in_refuses(server: Server, fault: str) -> None:
    server.faults.planned = {ANY: fault}
    database = remote(server.url)
    with pytest.raises(DatabaseRefused, match=f"{fault}!"):
        database.ping()
    database.close()


def test_a_server_that_comes_back_is_found_at_once(tmp_path: Path) -> None:
    given = entry(1, "a", "text")
    with serving(tmp_path / "server.db") as server:
        database = remote(server.url)
        database.create(INFO)
        database.put(INFO, [given])
    with pytest.raises(DatabaseAway):
        database.count(INFO, None)
    with serving(tmp_path / "server.db", server.port):
        (found,) = database.entries(INFO, -1, 5)
        assert same(found, given)
    database.close()


def test_nothing_is_asked_before_the_first_call_or_after_the_last(server: Server) -> None:
    database = remote(server.url)
    assert server.faults.calls == []
    database.ping()
    made = len(server.faults.calls)
    database.close()
    with pytest.raises(DatabaseAway, match="is closed"):
        database.ping()
    assert len(server.faults.calls) == made


def test_only_the_configured_host_is_reached(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(reset) as (port, connections):
        for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "MILVUS_URI"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        database = remote(server.url)
        assert database.ping().startswith("milvus-lite")
        database.close()
        assert connections == []
    database = remote("http://in-global-cluster.invalid:19530")
    with pytest.raises(DatabaseRefused, match="of several clusters"):
        database.ping()
    database.close()


def test_a_database_of_the_cluster_and_the_secret_are_sent_with_every_call(server: Server) -> None:
    remote(server.url, database="apart").close()
    database = remote(server.url, database="apart")
    with pytest.raises(DatabaseRefused, match="apart"):
        database.create(INFO)
    calls = [metadata for name, metadata in server.faults.calls if name != "Connect"]
    assert calls
    assert all(each["dbname"] == "apart" and each["authorization"] for each in calls)
    database.close()


def test_collections_of_a_cluster_work_as_those_of_a_file(database: MilvusDatabase) -> None:
    given = [entry(1, "a", "first text", {"n": 1}, ends=(5, 10)), entry(3, "b", "second")]
    database.put(INFO, given)
    database.create(INFO)
    assert database.names() == [INFO.name]
    assert all(map(same, database.entries(INFO, -1, 5), given))
    found = database.by_both(INFO, given[0].rows[0].vector, ["first"], 5, parse({"n": {"$gt": 0}}))
    assert [row.label for row in found][0] == 1
    database.delete(INFO, ["a"])
    assert database.count(INFO, None) == 1


def test_a_collection_of_another_program_is_left_alone(
    server: Server, database: MilvusDatabase
) -> None:
    other = Info("of_another", "f", 8)
    database._call("create_collection", other.name, dimension=8)
    assert database.info(other.name) is None
    with pytest.raises(DatabaseRefused, match="another program"):
        database.create(other)
    database.drop(other.name)
    assert database._call("has_collection", other.name)
    assert database.names() == [INFO.name]


@pytest.mark.slow
def test_more_rows_than_one_answer_holds_are_read_in_order(database: MilvusDatabase) -> None:
    """A document of 20,000 chunks, and a search for more hits than Milvus gives."""
    text = "x" * 20_000
    given = entry(1, "long", text, ends=range(1, len(text) + 1))
    slow = MilvusDatabase(replace(database._address, timeout_s=60))
    slow.put(INFO, [given])
    (found,) = slow.entries(INFO, -1, 5)
    assert same(found, given)
    with pytest.raises(DatabaseRefused, match="at most 16384 chunks in one search, not 16385"):
        slow.nearest(INFO, given.rows[0].vector, 16_385, None)
    slow.put(INFO, [entry(30_000, "long", "short")])
    assert [each.number for each in slow.entries(INFO, -1, 5)] == [30_000]
    slow.close()
