"""Connections that ask for too much or never end, on the real server."""

import asyncio
import gc
import json
import re
import signal
import socket
import struct
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from server.config import Config
from server.net.http_protocol import HttpProtocol
from server.net.limits import Limits
from tests.net.test_socket import Replies, connect, request
from tests.net.test_tls import OPENSSL, certificate, flags_of
from tests.net.test_worker_pool import sockets_to, workers_of
from tests.support.fakes import PATIENCE_S, eventually
from tests.support.processes import Server, serving

EMBED = b'{"texts": ["a"]}'
QUICK = ("--head-s", "1", "--read-s", "1", "--send-s", "1", "--keep-alive-s", "2")
# The reply with the toy model's vectors is larger than all buffers of a socket.
LARGE_TEXTS = 20_000
LARGE_BODY = json.dumps({"texts": ["墨池"] * LARGE_TEXTS}).encode()
FEW_BYTES = 4096


def flags(kind: str, folder: Path) -> tuple[str, ...]:
    if kind != "tls":
        return ("--workers", "2") if kind == "two" else ()
    if OPENSSL is None:
        pytest.skip("openssl is not installed")
    return flags_of(certificate(folder, "server"))


@pytest.fixture(scope="module", params=["one", "two", "tls"])
def server(
    request: pytest.FixtureRequest, toy_artifact: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("limits")
    more = (*QUICK, "--max-head-bytes", "2048", "--max-texts", str(LARGE_TEXTS))
    with serving(toy_artifact, folder, *more, *flags(request.param, folder)) as started:
        yield started
        assert "Traceback" not in started.log.read_text()


@pytest.fixture
def connections(server: Server) -> Iterator[list[socket.socket]]:
    """A connection at each of at most two processes."""
    with ExitStack() as stack:
        yield [stack.enter_context(connect(server)) for _ in range(2)]


def message(body: bytes) -> str:
    said = json.loads(body)["error"]["message"]
    assert isinstance(said, str)
    return said


def answered(connections: Sequence[socket.socket], sent: bytes) -> list[Replies]:
    """Send the same on each connection and read one reply from each."""
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
        assert answer == b"" or b"the head is incomplete after 1 s" in answer


def test_head_that_trickles_on_is_not_waited_for(connections: list[socket.socket]) -> None:
    """A client that sends a header now and then gets no more time for it."""
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
    assert read == b"" or b"incomplete after 1 s" in read


def test_empty_lines_keep_no_connection_open(connections: list[socket.socket]) -> None:
    for replies in answered(connections, request("/embed", EMBED) + b"\r\n"):
        assert replies.ended()


def test_second_head_has_its_time_too(connections: list[socket.socket]) -> None:
    both = answered(connections, request("/embed", EMBED))
    for connection in connections:
        connection.sendall(request("/embed", EMBED)[:60])
    for replies in both:
        status, _, body = replies.next()
        assert (status, message(body)) == (400, "the head is incomplete after 1 s")
        assert replies.ended()


def test_large_heads_are_refused_by_name_and_limit(server: Server) -> None:
    before = server.metric("unread_total", reason="head_bytes")
    whole = request("/embed", EMBED, "X-Long: " + "x" * 3000)
    endless = b"POST /embed HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 3000
    for sent in (whole, request("/embed?" + "x" * 3000, EMBED), endless):
        with connect(server) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # In pieces, as a network brings it.
            with suppress(ConnectionError):
                for at in range(0, len(sent), 500):
                    connection.sendall(sent[at : at + 500])
            status, headers, body = Replies(connection).next()
            assert (status, "at most 2048" in message(body)) == (413, True), message(body)
            assert headers["x-request-id"]
    assert server.metric("unread_total", reason="head_bytes") == before + 3
    with connect(server) as connection:
        connection.sendall(request("/embed", EMBED, *[f"A{n}: b" for n in range(200)]))
        status, _, body = Replies(connection).next()
        assert status == 413 and "at most 128" in message(body)


CHUNKED = (
    b"POST /embed HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
)
CHUNKED += b"\r\n%x\r\n%b\r\n0\r\n" % (len(EMBED), EMBED)


def test_trailers_are_no_headers(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(CHUNKED + b"X-Request-Id: trailer\r\n\r\n" + request("/health"))
        replies = Replies(connection)
        status, headers, _ = replies.next()
        assert status == 200 and headers["x-request-id"] != "trailer"
        assert replies.next()[0] == 200


@pytest.mark.parametrize(
    "trailers, said",
    [
        (b"X: " + b"x" * 4000, "at most 2048"),
        (b"A: b\r\n" * 200, "at most 128"),
    ],
    ids=["long", "many"],
)
def test_trailers_have_a_limit(server: Server, trailers: bytes, said: str) -> None:
    with connect(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(CHUNKED)
        with suppress(ConnectionError):
            for at in range(0, len(trailers), 500):
                connection.sendall(trailers[at : at + 500])
                # An answer on another connection: the server has read the part by now.
                assert server.metric("lanes") >= 1
        replies = Replies(connection)
        status, _, body = replies.next()
        assert status == 413 and said in message(body)
        assert replies.ended()


def test_body_in_chunks_of_any_fair_size_is_read_and_in_tiny_ones_refused(server: Server) -> None:
    body = b'{"texts": ["' + b"x" * 200_000 + b'"]}'
    head, _, _ = CHUNKED.partition(b"\r\n\r\n")
    for size, expected in ((16, 200), (1, 413)):
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        content = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        with connect(server) as connection:
            with suppress(ConnectionError):
                connection.sendall(head + b"\r\n\r\n" + content + b"0\r\n\r\n")
            # Of a refusal that comes while the client still sends, the system may lose the text.
            with suppress(*([] if expected == 200 else [ConnectionError])):
                assert Replies(connection).next()[0] == expected


def test_body_that_stops_coming_ends_the_request(connections: list[socket.socket]) -> None:
    for connection in connections:
        connection.sendall(request("/embed", EMBED)[:-1])
    for connection in connections:
        status, _, body = Replies(connection).next()
        assert status == 400 and "must come within 1 s" in message(body)


def test_connection_that_idles_is_closed(connections: list[socket.socket]) -> None:
    for replies in answered(connections, request("/embed", EMBED)):
        assert replies.ended()


@pytest.mark.parametrize("header", ["Connection: keep-alive", "Connection: close"])
def test_client_that_does_not_take_its_reply_is_dropped(server: Server, header: str) -> None:
    with connect(server, FEW_BYTES) as connection:
        connection.sendall(request("/embed", LARGE_BODY, header))
        eventually(lambda: held(server) == 1)
        # The client itself hears of it when it reads on.
        eventually(lambda: held(server) == 0)


def held(server: Server) -> int:
    """Return the client connections that the server's processes hold."""
    return sum(sockets_to(server, pid) for pid in (server.process.pid, *workers_of(server)))


def pause(seconds: float) -> None:
    until = time.monotonic() + seconds
    eventually(lambda: time.monotonic() >= until)


@pytest.mark.parametrize("header", ["Connection: keep-alive", "Connection: close"])
def test_slow_client_that_goes_on_reading_gets_all_of_its_reply(
    server: Server, header: str
) -> None:
    with connect(server, FEW_BYTES) as connection:
        connection.sendall(request("/embed", LARGE_BODY, header))
        read = bytearray()
        # Thrice as long as a client may take nothing.
        for _ in range(10):
            pause(0.3)
            for _ in range(20):
                read += connection.recv(FEW_BYTES)
        head, _, body = bytes(read).partition(b"\r\n\r\n")
        length = int(re.findall(rb"content-length: (\d+)", head)[0])
        while len(body) < length:
            part = connection.recv(1 << 16)
            assert part, f"{len(body)} of {length} bytes came"
            body += part
        assert len(json.loads(body)["vectors"]) == LARGE_TEXTS


def test_next_request_is_read_when_the_reply_before_is_taken(server: Server) -> None:
    with connect(server, FEW_BYTES) as connection:
        connection.sendall(request("/embed", LARGE_BODY))
        read = connection.recv(1)
        before = server.metric("texts_total")
        connection.sendall(request("/embed", EMBED))
        for _ in range(5):
            assert server.metric("texts_total") == before
        replies = Replies(connection)
        status, _, body = replies.next(read)
        assert status == 200 and len(json.loads(body)["vectors"]) == LARGE_TEXTS
        assert replies.next()[0] == 200
    assert server.metric("texts_total") == before + 1


def test_keyless_operation_reads_no_large_body(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nContent-Length: 29000000\r\n\r\n")
        status, _, body = Replies(connection).next()
        assert status == 413 and "at most 65536" in message(body)


def test_one_connection_too_many_is_refused_and_the_others_go_on(
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
                assert headers["retry-after"] == "1" and headers["x-request-id"]
                assert replies.ended()
                assert silent.recv(1) == b"", "it says nothing, and is closed soon"
            first.sendall(request("/embed", EMBED))
            assert Replies(first).next()[0] == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0


def test_connection_that_is_reset_while_idle_leaves_no_memory() -> None:
    made: list[weakref.ref[HttpProtocol]] = []

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def test() -> None:
        settings = uvicorn.Config(app, lifespan="off", log_config=None, timeout_keep_alive=3600)
        loop, state = asyncio.get_running_loop(), ServerState()
        stays = {"models": SimpleNamespace(draining=False)}

        def make() -> HttpProtocol:
            protocol = HttpProtocol(
                Limits.of(Config()), config=settings, server_state=state, app_state=stays
            )
            made.append(weakref.ref(protocol))
            return protocol

        listener = await loop.create_server(make, "127.0.0.1", 0)
        address = listener.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(request("/"))
        assert await reader.readline() == b"HTTP/1.1 204 No Content\r\n"
        # Closing does not wait for anything: the other side gets a reset.
        hard = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, hard)
        writer.transport.abort()
        while state.connections:
            await asyncio.sleep(0)
        listener.close()
        gc.collect()
        assert made[0]() is None

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(test(), PATIENCE_S))
