"""A server of several real processes: one address, every route on every connection, and its end."""

import asyncio
import http.client
import json
import os
import random
import re
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest

from server.config import Config, ModelPlace, ModelPlaces
from server.encoder import Model
from server.errors import StartupError
from server.workers import LONGEST_PAUSE_S, Workers, pause_s, share_of
from tests.server.fakes import PATIENCE_S, eventually
from tests.server.processes import Server, serving
from tests.server.test_socket import (
    AS_JSON,
    H2C,
    LONG,
    LONG_BODY,
    LONG_TEXTS,
    Replies,
    connect,
    refused_start,
    refuses_connections,
    request,
)

PROCESSES = 3
SEVERAL = ("--workers", str(PROCESSES))
# Connections that go to every process in turn, twice.
ROUND = 2 * PROCESSES


@pytest.fixture(scope="module")
def server(toy_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests that leave it running; it has a document or two."""
    with serving(toy_artifact, tmp_path_factory.mktemp("workers"), *SEVERAL) as started:
        with started.client() as client:
            documents = [{"id": text, "text": text} for text in ("墨池", "笔")]
            assert client.post("/documents", json={"documents": documents}).status_code == 200
        yield started


@pytest.fixture
def connections(server: Server) -> Iterator[list[socket.socket]]:
    """Some at each of the processes."""
    with ExitStack() as stack:
        yield [stack.enter_context(connect(server)) for _ in range(ROUND)]


def embedding(text: str, *headers: str) -> bytes:
    return request("/embed", json.dumps({"texts": [text]}).encode(), *headers)


def searching(text: str, *headers: str) -> bytes:
    return request("/search", json.dumps({"query": text}).encode(), *headers)


def workers_of(server: Server) -> list[int]:
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def check_vector(reply: tuple[int, dict[str, str], bytes], text: str, model: Model) -> None:
    status, _, body = reply
    assert status == 200, body
    np.testing.assert_allclose(json.loads(body)["vectors"], model.embed([text]), atol=1e-5)


def check_hits(reply: tuple[int, dict[str, str], bytes]) -> None:
    status, _, body = reply
    assert status == 200, body
    assert {hit["id"] for hit in json.loads(body)["hits"]} == {"墨池", "笔"}


# --- every route on every connection --------------------------------------------------------------


def test_every_process_takes_connections_and_they_share_the_requests(
    server: Server, connections: list[socket.socket], toy_model: Model
) -> None:
    assert len(workers_of(server)) == PROCESSES - 1
    before = server.metric("requests_total", route="/embed", status="200")
    for number, connection in enumerate(connections * 3):
        text = chr(0x4E00 + number)
        connection.sendall(embedding(text))
        check_vector(Replies(connection).next(), text, toy_model)
    after = server.metric("requests_total", route="/embed", status="200")
    assert after - before == 3 * ROUND
    assert server.metric("lanes") == PROCESSES
    served = [pid for pid in [server.process.pid, *workers_of(server)] if sockets_to(server, pid)]
    assert len(served) == PROCESSES


def sockets_to(server: Server, pid: int) -> int:
    """Connections of clients that a process holds."""
    table = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    port = f":{server.port:04X}"
    rows = [line.split() for line in table]
    # State 01 is ESTABLISHED.
    inodes = {row[9] for row in rows if row[1].endswith(port) and row[3] == "01"}
    held = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            held |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(entry)))
    return len(inodes & held)


def test_connection_embeds_searches_and_embeds_again(
    server: Server, connections: list[socket.socket], toy_model: Model
) -> None:
    for connection in connections:
        replies = Replies(connection)
        for _ in range(2):
            connection.sendall(embedding("墨池"))
            check_vector(replies.next(), "墨池", toy_model)
            connection.sendall(searching("墨池"))
            check_hits(replies.next())
            connection.sendall(request("/ready"))
            assert replies.next()[0] == 200
    held = [sockets_to(server, pid) for pid in workers_of(server)]
    eventually(lambda: [sockets_to(server, pid) for pid in workers_of(server)] == [0, 0])
    assert held is not None


def test_requests_sent_at_once_are_answered_in_order_wherever_they_belong(
    server: Server, connections: list[socket.socket], toy_model: Model
) -> None:
    drawn = random.Random(1)
    for connection in connections:
        texts = [chr(0x4E00 + drawn.randrange(500)) for _ in range(20)]
        searches = {drawn.randrange(20) for _ in range(3)}
        sent = [
            searching("墨池") if place in searches else embedding(text, *H2C[: 3 * (place % 2)])
            for place, text in enumerate(texts)
        ]
        connection.sendall(b"".join(sent))
        replies = Replies(connection)
        for place, text in enumerate(texts):
            if place in searches:
                check_hits(replies.next())
            else:
                check_vector(replies.next(), text, toy_model)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_requests_in_pieces_are_read_wherever_they_are_cut(
    server: Server, connections: list[socket.socket], toy_model: Model, size: int
) -> None:
    chunked = (
        request("/embed", b"", "Transfer-Encoding: chunked")
        .replace(b"GET", b"POST")
        .replace(b"Content-Length: 0\r\n", b"")
        + b'9\r\n{"texts":\r\n9\r\n ["\xe5\xa2\xa8"]}\r\n0\r\n\r\n'
    )
    sent = b"\r\n\r\n" + chunked + embedding("池") + chunked + searching("墨池") + embedding("笔")
    for connection in connections[:PROCESSES]:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for place in range(0, len(sent), size):
            connection.sendall(sent[place : place + size])
        replies = Replies(connection)
        check_vector(replies.next(), "墨", toy_model)
        check_vector(replies.next(), "池", toy_model)
        check_vector(replies.next(), "墨", toy_model)
        check_hits(replies.next())
        check_vector(replies.next(), "笔", toy_model)


def test_first_request_of_a_connection_may_be_for_a_collection_and_large(
    server: Server, connections: list[socket.socket]
) -> None:
    pair = [{"id": text, "text": text} for text in ("墨池", "笔")]
    body = json.dumps({"documents": pair}).encode() + b" " * (3 << 20)
    for connection in connections:
        connection.sendall(request("/documents", body))
        replies = Replies(connection)
        assert replies.next()[0] == 200
        connection.sendall(searching("墨"))
        check_hits(replies.next())


def test_many_short_connections_find_their_route(server: Server) -> None:
    for number in range(60):
        with server.client() as client:
            if number % 2:
                assert client.get("/documents/count").status_code in (200, 405)
            assert client.post("/search", json={"query": "墨"}).status_code == 200


def test_unread_reply_is_sent_before_the_connection_moves(
    server: Server, connections: list[socket.socket]
) -> None:
    texts = ["墨池"] * 2000
    for connection in connections[:PROCESSES]:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body = json.dumps({"texts": texts}).encode()
        connection.sendall(request("/embed", body) + searching("墨"))
    for connection in connections[:PROCESSES]:
        replies = Replies(connection)
        status, _, content = replies.next()
        assert (status, len(json.loads(content)["vectors"])) == (200, len(texts))
        check_hits(replies.next())


@pytest.mark.parametrize(
    "sent, status",
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET  /health HTTP/1.1\r\n\r\n", 400),
        (b"GET http://x:99999/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"POST /embed HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"CONNECT inkwell:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /embed?a=b HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET /documents/" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://x/health HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /%68ealth HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /health HTTP/1.0\r\n\r\n", 200),
    ],
)
def test_refusals_are_the_same_on_every_connection(
    connections: list[socket.socket], sent: bytes, status: int
) -> None:
    answers = set()
    for connection in connections:
        connection.sendall(sent)
        answer = Replies(connection).next()
        assert answer[0] == status, answer
        answers.add(answer[2])
    assert len(answers) == 1


def test_client_that_leaves_before_its_request_is_whole_harms_nobody(
    server: Server, connections: list[socket.socket]
) -> None:
    for number, connection in enumerate(connections):
        connection.sendall(searching("墨")[: 3 + 9 * number])
        connection.close()
    with server.client() as client:
        assert client.post("/search", json={"query": "墨"}).status_code == 200
    assert "Traceback" not in server.log.read_text()
