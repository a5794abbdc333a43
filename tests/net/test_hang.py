"""Processes that hang or are stopped: how it is noticed, what clients see, and how it ends."""

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from server.config import Config, ModelPlace, ModelPlaces
from server.inference.model import Model
from server.net import worker_handle
from server.net.worker_pool import WorkerPool
from tests.net.test_socket import Replies, connect, request
from tests.net.test_worker_pool import (
    check_each_process,
    check_vector,
    children_of,
    embedding,
    is_running,
    sockets_to,
    workers_of,
)
from tests.support.fakes import eventually
from tests.support.hanging import ENDLESS, artifact_that_hangs
from tests.support.processes import Server, environment, serving
from tests.system.test_systemd import received, supervising, until

TWO = ("--workers", "2")
QUICK = ("--hang-s", "1")
IN_A_LANE = request("/embed", json.dumps({"texts": [ENDLESS, ENDLESS * 2]}).encode())
ON_THE_LOOP = request("/embed", json.dumps({"texts": [ENDLESS]}).encode())


@pytest.fixture
def artifact(toy_artifact: Path, tmp_path: Path) -> Path:
    return artifact_that_hangs(toy_artifact, tmp_path)


@contextmanager
def at_worker(server: Server) -> Iterator[socket.socket]:
    """A connection at the only worker: the first new connection goes there."""
    with connect(server) as connection:
        eventually(lambda: sockets_to(server, *workers_of(server)) == 1)
        yield connection


def came_back(server: Server, gone: int) -> bool:
    return workers_of(server) != [gone] and server.metric("lanes") == 2


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


# --- lanes ----------------------------------------------------------------------------------------


def test_supervisor_that_watches_hears_nothing_while_a_lane_hangs(
    artifact: Path, tmp_path: Path
) -> None:
    address = str(tmp_path / "notify")
    environ = environment(NOTIFY_SOCKET=address, WATCHDOG_USEC="1000000")
    with supervising(address) as heard:
        with serving(artifact, tmp_path, *QUICK, environ=environ) as server:
            for _ in range(2):
                until(heard, "WATCHDOG")
            with connect(server) as connection:
                connection.sendall(IN_A_LANE)
                status, _, body = Replies(connection).next()
                assert (status, json.loads(body)["error"]["code"]) == (500, "inference_failed")
            heard.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    received(heard)
            # Four times what passes between two messages.
            heard.settimeout(2)
            with pytest.raises(TimeoutError):
                received(heard)
            with server.client() as client:
                assert client.post("/embed", json={"texts": ["墨池"]}).status_code == 200


def test_worker_with_a_lane_that_hangs_ends_and_comes_back(
    artifact: Path, tmp_path: Path, toy_model: Model
) -> None:
    with serving(artifact, tmp_path, *TWO, *QUICK) as server:
        [worker] = workers_of(server)
        with at_worker(server) as connection:
            connection.sendall(IN_A_LANE)
            status, _, body = Replies(connection).next()
            assert (status, json.loads(body)["error"]["code"]) == (500, "inference_failed")
        eventually(lambda: came_back(server, worker))
        check_each_process(server, toy_model)
        assert "worker 1 ended with status 0" in server.log.read_text()


# --- loops ----------------------------------------------------------------------------------------


# A third of a minute.
@pytest.mark.slow
def test_worker_whose_loop_hangs_is_replaced_and_keeps_no_reload_waiting(
    artifact: Path, tmp_path: Path, toy_model: Model
) -> None:
    with serving(artifact, tmp_path, *TWO, *QUICK) as server:
        [worker] = workers_of(server)
        with at_worker(server) as connection:
            connection.sendall(ON_THE_LOOP)
            server.process.send_signal(signal.SIGHUP)
            eventually(lambda: "settings read again" in server.log.read_text())
            assert Replies(connection).ended()
        assert "worker 1 has said nothing for" in server.log.read_text()
        eventually(lambda: came_back(server, worker))
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: server.log.read_text().count("settings read again") == 2)
        check_each_process(server, toy_model)


# A third of a minute.
@pytest.mark.slow
def test_worker_that_is_stopped_gets_no_more_connections_and_then_another_takes_its_place(
    toy_artifact: Path, tmp_path: Path, toy_model: Model
) -> None:
    with serving(toy_artifact, tmp_path, *TWO, *QUICK) as server:
        [worker] = workers_of(server)
        with at_worker(server) as held:
            os.kill(worker, signal.SIGSTOP)
            waiting = []

            def all_are_served_by_the_first() -> bool:
                """Connections in a row that are answered at once, as many as there are processes."""
                for _ in range(2):
                    waiting.append(connect(server))
                    waiting[-1].settimeout(0.5)
                    try:
                        waiting[-1].sendall(embedding("墨池"))
                        check_vector(Replies(waiting[-1]).next(), "墨池", toy_model)
                    except TimeoutError:
                        return False
                return True

            eventually(all_are_served_by_the_first)
            assert workers_of(server) == [worker], "it may still go on"
            assert Replies(held).ended()
            eventually(lambda: came_back(server, worker))
            for each in waiting:
                each.close()


def test_worker_that_is_stopped_does_not_keep_the_server_from_ending(
    toy_artifact: Path, tmp_path: Path
) -> None:
    with serving(toy_artifact, tmp_path, *TWO, "--shutdown-s", "4") as server:
        [worker] = workers_of(server)
        os.kill(worker, signal.SIGSTOP)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert not is_running(worker)
        assert "has not answered STOP within 2 s" in server.log.read_text()


def test_worker_that_is_starting_does_not_keep_the_server_from_ending(
    toy_artifact: Path, tmp_path: Path
) -> None:
    with serving(toy_artifact, tmp_path, *TWO, "--shutdown-s", "4") as server:
        [worker] = workers_of(server)
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: workers_of(server) not in ([], [worker]))
        [starting] = workers_of(server)
        # Not before it is a program of its own: the server waits for that.
        eventually(lambda: command_line(starting) != command_line(server.process.pid))
        os.kill(starting, signal.SIGSTOP)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert not is_running(starting)
        assert "Traceback" not in server.log.read_text()


def test_worker_that_does_not_come_back_from_reading_its_settings_is_killed(
    toy_artifact: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = Config(workers=2, lanes=1, model=ModelPlaces([ModelPlace(toy_artifact)]))

    async def reload() -> None:
        workers = WorkerPool(config)
        try:
            before = children_of(os.getpid())
            await workers.start(lambda _: None)
            [worker] = set(children_of(os.getpid())) - set(before)
            os.kill(worker, signal.SIGSTOP)
            monkeypatch.setattr(worker_handle, "LOADING_S", 1.0)
            await workers.reload(replace(config, model_alias="other"))
            assert "worker 1 has not answered RELOAD within 1 s" in caplog.text
            assert workers.turn() is None
        finally:
            await workers.end()

    caplog.set_level(logging.ERROR)
    asyncio.run(reload())


# --- the end --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_connections_and_lanes_have_one_time_to_finish(artifact: Path, tmp_path: Path) -> None:
    with serving(artifact, tmp_path, "--shutdown-s", "12", "--hang-s", "3600") as server:
        with connect(server) as connection:
            connection.sendall(IN_A_LANE)
            eventually(lambda: server.metric("lanes_busy") == 1)
            server.process.send_signal(signal.SIGTERM)
            assert Replies(connection).next()[0] == 503
            # The connection had all of it; the lane, which hangs, does not get as much again.
            assert server.process.wait(10) == 0
