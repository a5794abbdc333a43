"""Draining: after SIGTERM a server is not ready, answers everything for a while, and then ends."""

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from server.net.backlog import Backlog
from tests.net.test_socket import Replies, connect, refuses_connections, request
from tests.net.test_tls import certificate, flags_of
from tests.net.test_worker_pool import sockets_to, workers_of
from tests.support.fakes import eventually
from tests.support.processes import TRUSTING, Server, serving

EMBED = json.dumps({"texts": ["墨池"]}).encode()


def is_draining(server: Server) -> bool:
    with server.client() as client:
        return client.get("/ready").status_code == 503


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_draining_server_answers_and_closes_each_connection(
    toy_artifact: Path, tmp_path: Path, workers: str
) -> None:
    flags = ("--drain-s", "5", "--workers", workers)
    with serving(toy_artifact, tmp_path, *flags) as server:
        old = [connect(server) for _ in range(2)]
        for each in old:
            each.sendall(request("/embed", EMBED))
            status, headers, _ = Replies(each).next()
            assert status == 200 and "connection" not in headers
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: is_draining(server))
        with server.client() as client:
            refused = client.get("/ready")
            assert refused.json()["error"]["code"] == "shutting_down"
            assert refused.headers["retry-after"] == "5"
            assert client.get("/health").status_code == 200
        for each in (*old, connect(server), connect(server)):
            with each:
                replies = Replies(each)
                each.sendall(request("/embed", EMBED))
                status, headers, _ = replies.next()
                assert (status, headers["connection"]) == (200, "close")
                assert replies.ended()
        assert server.wait() == 0
        assert refuses_connections(server)


def test_a_second_signal_does_not_wait(toy_artifact: Path, tmp_path: Path) -> None:
    with serving(toy_artifact, tmp_path, "--drain-s", "3600") as server:
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: is_draining(server))
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 128 + signal.SIGTERM


def test_a_worker_that_starts_again_meanwhile_drains_too(
    toy_artifact: Path, tmp_path: Path
) -> None:
    flags = ("--drain-s", "3600", "--workers", "2")
    with serving(toy_artifact, tmp_path, *flags) as server:
        (old,) = workers_of(server)
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: is_draining(server))
        os.kill(old, signal.SIGKILL)
        eventually(lambda: any(pid != old and serves(server, pid) for pid in workers_of(server)))
        for _ in range(4):
            with connect(server) as connection:
                connection.sendall(request("/embed", EMBED))
                status, headers, _ = Replies(connection).next()
                assert (status, headers.get("connection")) == (200, "close")
        server.process.send_signal(signal.SIGTERM)
        server.wait()


def serves(server: Server, pid: int) -> bool:
    """Return whether a process has its turn at new connections."""
    with connect(server), connect(server):
        return sockets_to(server, pid) > 0


def test_connections_that_come_while_those_that_wait_are_taken_do_not_keep_a_server_from_its_end() -> (
    None
):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        clients = [socket.create_connection(address) for _ in range(5)]
        backlog = Backlog(listening.fileno())
        taken = []
        for connection in backlog.take(3):
            taken.append(connection)
            clients.append(socket.create_connection(address))
        assert len(taken) == 3
        for each in (*taken, *clients):
            each.close()


@pytest.mark.parametrize(("encrypted", "clients"), [(False, 20), (True, 1)], ids=["plain", "tls"])
def test_connections_that_wait_when_the_port_closes_are_answered(
    toy_artifact: Path, tmp_path: Path, encrypted: bool, clients: int
) -> None:
    tls = flags_of(certificate(tmp_path, "server")) if encrypted else ()
    with serving(toy_artifact, tmp_path, "--drain-s", "1", *tls) as server:
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: is_draining(server))
        # While it is stopped the kernel takes connections for it. When it goes on, its drain is over.
        server.process.send_signal(signal.SIGSTOP)
        over = time.monotonic() + 1
        waiting = [socket.create_connection((server.host, server.port)) for _ in range(clients)]
        if not encrypted:
            for each in waiting:
                each.sendall(request("/embed", EMBED))
        eventually(lambda: time.monotonic() > over)
        server.process.send_signal(signal.SIGCONT)
        for each in waiting:
            with TRUSTING.wrap_socket(each) if encrypted else each as connection:
                if encrypted:
                    connection.sendall(request("/embed", EMBED))
                status, headers, _ = Replies(connection).next()
                assert (status, headers["connection"]) == (200, "close")
        assert server.wait() == 0
