"""A server of several real processes: one address, every route on every connection, and its end."""

import asyncio
import json
import os
import random
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from server.config import Config, ModelPlace, ModelPlaces
from server.errors import StartupError
from server.inference.model import Model
from server.net.limits import MAX_PIPELINED
from server.net.worker_pool import LONGEST_PAUSE_S, WorkerPool, pause_s, share_of
from tests.net.test_socket import (
    H2C,
    LONG,
    Replies,
    connect,
    refused_start,
    refuses_connections,
    request,
)
from tests.support.fakes import PATIENCE_S, eventually
from tests.support.processes import Server, serving, without_descriptors

PROCESSES = 3
SEVERAL = ("--workers", str(PROCESSES))
# Connections that go to every process in turn, twice.
ROUND = 2 * PROCESSES


@pytest.fixture(scope="module")
def server(toy_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with two documents, for all tests that leave it running."""
    with serving(toy_artifact, tmp_path_factory.mktemp("workers"), *SEVERAL) as started:
        with started.client() as client:
            documents = [{"id": text, "text": text} for text in ("墨池", "笔")]
            assert client.post("/documents", json={"documents": documents}).status_code == 200
        yield started


@pytest.fixture
def connections(server: Server) -> Iterator[list[socket.socket]]:
    """Connections at each of the processes."""
    with ExitStack() as stack:
        yield [stack.enter_context(connect(server)) for _ in range(ROUND)]


def embedding(text: str, *headers: str) -> bytes:
    return request("/embed", json.dumps({"texts": [text]}).encode(), *headers)


def searching(text: str, *headers: str) -> bytes:
    return request("/search", json.dumps({"query": text}).encode(), *headers)


def workers_of(server: Server) -> list[int]:
    return children_of(server.process.pid)


def children_of(pid: int) -> list[int]:
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


def check_each_process(server: Server, model: Model) -> None:
    """Each of two processes gets two connections, because they take turns."""
    for _ in range(4):
        with connect(server) as connection:
            connection.sendall(embedding("墨池"))
            check_vector(Replies(connection).next(), "墨池", model)


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
    """Return the client connections that a process holds."""
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
    # None stays where it is not served.
    eventually(lambda: not any(sockets_to(server, pid) for pid in workers_of(server)))


def test_requests_sent_at_once_are_answered_in_order_wherever_they_belong(
    server: Server, connections: list[socket.socket], toy_model: Model
) -> None:
    drawn = random.Random(1)
    for connection in connections:
        texts = [chr(0x4E00 + drawn.randrange(500)) for _ in range(MAX_PIPELINED)]
        searches = {drawn.randrange(MAX_PIPELINED) for _ in range(3)}
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


def test_many_short_connections_find_their_route(server: Server, toy_model: Model) -> None:
    for number in range(60):
        with connect(server) as connection:
            replies = Replies(connection)
            if number % 2:
                connection.sendall(embedding("墨"))
                check_vector(replies.next(), "墨", toy_model)
            connection.sendall(searching("墨"))
            check_hits(replies.next())


def test_unread_reply_is_sent_before_the_connection_moves(server: Server) -> None:
    sent = request("/embed", json.dumps({"texts": ["墨池"] * 2000}).encode()) + searching("墨")
    searches = server.metric("searches_total")
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.socket()) for _ in range(PROCESSES)]
        for connection in slow:
            # Room for a small part of the reply.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
            connection.connect((server.host, server.port))
            connection.sendall(sent)
        for connection in slow:
            replies = Replies(connection)
            status, _, content = replies.next()
            assert (status, len(json.loads(content)["vectors"])) == (200, 2000)
            check_hits(replies.next())
        assert server.metric("searches_total") == searches + PROCESSES


@pytest.mark.parametrize(
    "sent, status",
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET   /health HTTP/1.1\r\n\r\n", 200),
        (b"GET http://x:99999/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"POST /embed HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"CONNECT inkwell:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /embed?a=b HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET /documents/" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 413),
        (b"GET http://localhost/health HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"GET /%68ealth HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
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


def test_client_that_leaves_before_its_request_is_whole_harms_no_other(
    server: Server, connections: list[socket.socket]
) -> None:
    for number, connection in enumerate(connections):
        connection.sendall(searching("墨")[: 3 + 9 * number])
        connection.close()
    with server.client() as client:
        assert client.post("/search", json={"query": "墨"}).status_code == 200
    assert "Traceback" not in server.log.read_text()


def test_shipped_model_gives_the_same_vectors_in_every_process(
    shipped_artifact: Path, tmp_path: Path
) -> None:
    texts = ["人工智能正在改变世界。", "深圳是一个高速发展的城市。", "AI"]
    expected = Model(shipped_artifact).embed(texts)
    with serving(shipped_artifact, tmp_path, "--workers", "2") as server:
        for _ in range(4):
            with server.client() as client:
                vectors = client.post("/embed", json={"texts": texts}).json()["vectors"]
                np.testing.assert_allclose(vectors, expected, atol=1e-5)
                assert client.post("/search", json={"query": texts[0]}).json()["hits"] == []
                again = client.post("/embed", json={"texts": texts}).json()["vectors"]
                np.testing.assert_allclose(again, expected, atol=1e-5)


# --- a process ends -------------------------------------------------------------------------------


class Client(threading.Thread):
    """A thread that embeds on one connection until it is stopped.

    broken: what ended the connection before that.
    """

    def __init__(self, server: Server, model: Model) -> None:
        super().__init__()
        self.answered = 0
        self.broken: str | None = None
        self.stopping = threading.Event()
        self._server, self._model = server, model
        self._expected = model.embed(["墨池"])
        self._connection = connect(server)
        self.start()

    def run(self) -> None:
        with self._connection:
            replies = Replies(self._connection)
            while not self.stopping.is_set() and self.broken is None:
                try:
                    self._connection.sendall(embedding("墨池"))
                    check_vector(replies.next(), "墨池", self._model)
                    self.answered += 1
                except (OSError, IndexError) as error:
                    # IndexError: an end instead of a status line.
                    self.broken = repr(error)


def test_killed_worker_comes_back_and_the_others_do_not_notice(
    toy_artifact: Path, tmp_path: Path, toy_model: Model
) -> None:
    with serving(toy_artifact, tmp_path, *SEVERAL) as server:
        clients = [Client(server, toy_model) for _ in range(ROUND)]
        eventually(lambda: all(client.answered for client in clients))
        texts = server.metric("texts_total")
        killed, other = workers_of(server)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: sum(client.broken is not None for client in clients) == 2)
        eventually(lambda: len(set(workers_of(server)) - {killed}) == 2)
        answered = [client.answered for client in clients]
        eventually(
            lambda: all(
                client.answered > before or client.broken
                for client, before in zip(clients, answered, strict=True)
            )
        )
        eventually(lambda: server.metric("lanes") == PROCESSES)
        fresh = [Client(server, toy_model) for _ in range(PROCESSES)]
        eventually(lambda: all(client.answered for client in fresh))
        assert all(sockets_to(server, pid) for pid in workers_of(server))
        # What the killed one had counted is still counted.
        assert server.metric("texts_total") > texts
        for client in (*clients, *fresh):
            client.stopping.set()
            client.join(PATIENCE_S)
        assert sum(client.broken is not None for client in (*clients, *fresh)) == 2
        assert "worker 1 ended with status -9" in server.log.read_text()
        assert "Traceback" not in server.log.read_text()


def test_worker_that_cannot_be_started_is_tried_again(
    toy_artifact: Path, tmp_path: Path, toy_model: Model
) -> None:
    with serving(toy_artifact, tmp_path, "--workers", "2") as server:
        [killed] = workers_of(server)
        with without_descriptors(server):
            os.kill(killed, signal.SIGKILL)
            eventually(lambda: server.log.read_text().count("could not be started") == 2)
            assert workers_of(server) == []
        eventually(lambda: workers_of(server) and server.metric("lanes") == 2)
        check_each_process(server, toy_model)


def test_killed_first_process_takes_all_with_it_and_loses_nothing_acknowledged(
    toy_artifact: Path, tmp_path: Path, toy_model: Model
) -> None:
    with serving(toy_artifact, tmp_path, *SEVERAL) as server:
        clients = [Client(server, toy_model) for _ in range(ROUND)]
        workers = workers_of(server)
        with ExitStack() as stack:
            for number in range(ROUND):
                body = json.dumps({"documents": [{"id": f"{number}", "text": "墨"}]}).encode()
                connection = stack.enter_context(connect(server))
                connection.sendall(embedding("墨") + request("/documents", body))
                replies = Replies(connection)
                assert (replies.next()[0], replies.next()[0]) == (200, 200)
        eventually(lambda: all(client.answered for client in clients))
        server.process.kill()
        server.wait()
        eventually(lambda: not any(map(is_running, workers)))
        eventually(lambda: refuses_connections(server))
        for client in clients:
            client.join(PATIENCE_S)
    with serving(toy_artifact, tmp_path) as server, server.client() as again:
        listed = again.get("/documents").json()["documents"]
        assert {each["id"] for each in listed} == {str(number) for number in range(ROUND)}


# --- the end --------------------------------------------------------------------------------------


# It takes each process some seconds, but less than the time to stop.
LONG_TEXTS = 4000
LONG_BODY = json.dumps({"texts": ["墨池" * 31] * LONG_TEXTS}).encode()


@contextmanager
def long_requests(server: Server) -> Iterator[list[Replies]]:
    """A connection at each process."""
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(server)) for _ in range(PROCESSES)]
        for connection in connections:
            connection.sendall(request("/embed", LONG_BODY))
        eventually(lambda: server.metric("tokenize_seconds_count") == PROCESSES)
        yield [Replies(connection) for connection in connections]


@pytest.mark.parametrize(
    "end", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_signal_to_all_processes_finishes_what_each_has_accepted(
    toy_artifact: Path, tmp_path: Path, end: signal.Signals
) -> None:
    started = serving(toy_artifact, tmp_path, *SEVERAL, *LONG)
    with started as server, long_requests(server) as replies:
        # As a terminal and some supervisors send it: to the whole group.
        os.killpg(server.process.pid, end)
        eventually(lambda: refuses_connections(server))
        for each in replies:
            status, _, body = each.next()
            assert status == 200
            assert len(json.loads(body)["vectors"]) == LONG_TEXTS
            assert each.ended()
        assert server.wait() == 0
        assert "Traceback" not in server.log.read_text()


def test_second_signal_does_not_wait_for_any_process(toy_artifact: Path, tmp_path: Path) -> None:
    started = serving(toy_artifact, tmp_path, *SEVERAL, *LONG, "--shutdown-s", "3600")
    with started as server, long_requests(server) as replies:
        workers = workers_of(server)
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: refuses_connections(server))
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 128 + signal.SIGTERM
        eventually(lambda: not any(map(is_running, workers)))
        assert all(each.ended() for each in replies)


def test_limit_ends_long_requests_of_every_process_with_an_answer(
    toy_artifact: Path, tmp_path: Path
) -> None:
    started = serving(toy_artifact, tmp_path, *SEVERAL, *LONG, "--shutdown-s", "0")
    with started as server, long_requests(server) as replies:
        server.process.send_signal(signal.SIGTERM)
        assert [each.next()[0] for each in replies] == [503] * PROCESSES
        assert server.wait() == 0
        assert "Traceback" not in server.log.read_text()


# --- the start ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_port_in_use_is_named_and_no_worker_stays(toy_artifact: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused_start(
            *("serve", "--port", str(port), "--model", toy_artifact, "--data", tmp_path), *SEVERAL
        )
    assert "address already in use" in said
    assert said.count(f"127.0.0.1:{port}") == 2
    assert said.count("--port") == 2


def test_worker_that_cannot_load_its_model_says_why(tmp_path: Path) -> None:
    config = Config(workers=2, model=ModelPlaces([ModelPlace(tmp_path / "nothing")]))

    async def start() -> None:
        workers = WorkerPool(config)
        try:
            await workers.start(lambda _: None)
        finally:
            await workers.end()

    with pytest.raises(StartupError, match="nothing") as refusal:
        asyncio.run(start())
    assert "nothing" in refusal.value.chinese


def test_cores_are_divided_among_processes_unless_lanes_are_given() -> None:
    assert share_of(Config(), 32) == Config()
    assert share_of(Config(workers=4), 32).lanes == 8
    assert share_of(Config(workers=3), 32).lanes == 11
    assert share_of(Config(workers=4), 2).lanes == 1
    assert share_of(Config(workers=4, lanes=3), 32).lanes == 3


def test_worker_that_always_ends_is_started_less_and_less_often() -> None:
    pauses = [pause_s(failures) for failures in range(1, 40)]
    assert pauses[0] < 1
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_S
