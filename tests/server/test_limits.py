"""Connections that ask for too much or never end, on the real server."""

import json
import select
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.server.fakes import PATIENCE_S, eventually
from tests.server.processes import Server, serving
from tests.server.test_socket import Replies, connect, request
from tests.server.test_workers import sockets_to, workers_of

EMBED = b'{"texts": ["a"]}'
QUICK = ("--head-s", "1", "--read-s", "1", "--send-s", "1", "--keep-alive-s", "2")


@pytest.fixture(scope="module", params=[(), ("--workers", "2")], ids=["one", "two"])
def server(
    request: pytest.FixtureRequest, toy_artifact: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    flags = (*QUICK, "--max-head-bytes", "2048", *request.param)
    with serving(toy_artifact, tmp_path_factory.mktemp("limits"), *flags) as started:
        yield started
        assert "Traceback" not in started.log.read_text()


@pytest.fixture
def connections(server: Server) -> Iterator[list[socket.socket]]:
    """One at each of at most two processes."""
    with ExitStack() as stack:
        yield [stack.enter_context(connect(server)) for _ in range(2)]


def message(body: bytes) -> str:
    said = json.loads(body)["error"]["message"]
    assert isinstance(said, str)
    return said


def answered(connections: Sequence[socket.socket], sent: bytes) -> list[Replies]:
    """Send the same on each and read one reply of each."""
    for connection in connections:
        connection.sendall(sent)
    both = [Replies(connection) for connection in connections]
    assert [replies.next()[0] for replies in both] == [200] * len(both)
    return both


def test_silent_connection_is_closed(connections: list[socket.socket]) -> None:
    for connection in connections:
        assert connection.recv(1) == b""


@pytest.mark.parametrize("begin", [b"POST /em", b"POST /embed HTTP/1.1\r\nHost: x\r\nX-A: b"])
def test_head_that_does_not_end_in_time_ends_the_connection(
    connections: list[socket.socket], begin: bytes
) -> None:
    for connection in connections:
        connection.sendall(begin)
    for connection in connections:
        answer = connection.makefile("rb").read()
        assert answer == b"" or b"the head is not whole after 1 s" in answer


def test_head_that_trickles_on_is_not_waited_for(connections: list[socket.socket]) -> None:
    """Whoever sends a header now and then gets no more time by it."""
    connection = connections[0]
    connection.settimeout(0.1)
    connection.sendall(b"POST /embed HTTP/1.1\r\nHost: x\r\n")
    read = b""

    def ended() -> bool:
        nonlocal read
        try:
            connection.sendall(b"X-A: b\r\n")
            part = connection.recv(4096)
        except TimeoutError:
            return False
        except OSError:
            return True
        read += part
        return part == b""

    eventually(ended)
    assert read == b"" or b"not whole after 1 s" in read


def test_empty_lines_keep_no_connection_open(connections: list[socket.socket]) -> None:
    for replies in answered(connections, request("/embed", EMBED) + b"\r\n"):
        assert replies.ended()


def test_second_head_has_its_time_too(connections: list[socket.socket]) -> None:
    both = answered(connections, request("/embed", EMBED))
    for connection in connections:
        connection.sendall(request("/embed", EMBED)[:60])
    for replies in both:
        status, _, body = replies.next()
        assert (status, message(body)) == (400, "the head is not whole after 1 s")
        assert replies.ended()


def test_large_heads_are_refused_by_name_and_limit(server: Server) -> None:
    whole = request("/embed", EMBED, "X-Long: " + "x" * 3000)
    for sent in (whole, request("/embed?" + "x" * 3000, EMBED)):
        with connect(server) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # In pieces, as a network brings it.
            for at in range(0, len(sent), 500):
                connection.sendall(sent[at : at + 500])
            status, _, body = Replies(connection).next()
            assert status == 413 and "at most 2048" in message(body)
    with connect(server) as connection:
        connection.sendall(request("/embed", EMBED, *[f"A{n}: b" for n in range(200)]))
        status, _, body = Replies(connection).next()
        assert status == 413 and "at most 128" in message(body)


def test_head_that_goes_on_and_on_is_refused_by_name_and_limit(
    connections: list[socket.socket],
) -> None:
    for connection in connections:
        connection.sendall(b"POST /embed HTTP/1.1\r\nHost: x\r\nX-Long: ")

        def refused(connection: socket.socket = connection) -> bool:
            connection.sendall(b"x" * 500)
            return bool(select.select([connection], [], [], 0.01)[0])

        eventually(refused)
        status, _, body = Replies(connection).next()
        assert status == 413 and "at most 2048" in message(body)


def test_body_that_stops_coming_ends_the_request(connections: list[socket.socket]) -> None:
    for connection in connections:
        connection.sendall(request("/embed", EMBED)[:-1])
    for connection in connections:
        status, _, body = Replies(connection).next()
        assert status == 400 and "nothing more came for 1 s" in message(body)


def test_connection_that_idles_is_closed(connections: list[socket.socket]) -> None:
    for replies in answered(connections, request("/embed", EMBED)):
        assert replies.ended()


def test_client_that_does_not_take_its_reply_is_dropped(server: Server) -> None:
    body = json.dumps({"texts": ["墨池"] * 2000}).encode()
    for header in ("Connection: keep-alive", "Connection: close"):
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(PATIENCE_S)
            connection.connect((server.host, server.port))
            connection.sendall(request("/embed", body, header))
            eventually(lambda: held(server) == 1)
            # The client itself hears of it when it reads on.
            eventually(lambda: held(server) == 0)


def held(server: Server) -> int:
    """Connections of clients that the server's processes hold."""
    return sum(sockets_to(server, pid) for pid in (server.process.pid, *workers_of(server)))


def test_slow_client_that_goes_on_reading_gets_all_of_its_reply(server: Server) -> None:
    body = json.dumps({"texts": ["墨池"] * 2000}).encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(PATIENCE_S)
        connection.connect((server.host, server.port))
        connection.sendall(request("/embed", body))
        status, _, content = Replies(connection).next()
        assert status == 200 and len(json.loads(content)["vectors"]) == 2000


def test_one_connection_too_many_is_told_so_and_the_others_go_on(
    toy_artifact: Path, tmp_path: Path
) -> None:
    with serving(toy_artifact, tmp_path, "--max-connections", "2") as server:
        with connect(server) as first, connect(server) as second:
            for connection in (first, second):
                connection.sendall(request("/embed", EMBED))
                assert Replies(connection).next()[0] == 200
            with connect(server) as third, connect(server) as silent:
                third.sendall(request("/embed", EMBED))
                replies = Replies(third)
                status, headers, body = replies.next()
                assert status == 429 and "at most 2" in message(body)
                assert headers["retry-after"] == "1"
                assert replies.ended()
                assert silent.recv(1) == b"", "it says nothing, and is closed soon"
            first.sendall(request("/embed", EMBED))
            assert Replies(first).next()[0] == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
