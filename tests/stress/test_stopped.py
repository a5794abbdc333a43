"""A process that is stopped in the middle of its work and goes on: SIGSTOP, SIGCONT."""

import os
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from server.net.worker_handle import BUSY_S
from tests.net.test_worker_pool import workers_of
from tests.support.fakes import PATIENCE_S, eventually
from tests.support.processes import Server, serving
from tests.support.toys import toy_texts

pytestmark = [pytest.mark.slow, pytest.mark.stress]
CLIENTS, STOPS = 4, 20


class Asker(threading.Thread):
    """Asks for one text after the other until it is stopped; each answer must be the text's own."""

    def __init__(self, server: Server, usual: dict[str, list[float]]) -> None:
        super().__init__()
        self._server, self._usual = server, usual
        self.ended = threading.Event()
        self.answered = 0

    def run(self) -> None:
        with self._server.client() as client:
            while not self.ended.is_set():
                for text, vector in self._usual.items():
                    answer = client.post("/embed", json={"texts": [text]})
                    assert answer.status_code == 200, answer.text
                    assert answer.json()["vectors"][0] == pytest.approx(vector, abs=1e-5)
                    self.answered += 1


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


class Late(threading.Thread):
    """A client that comes while the server is stopped; the kernel takes its connection."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._url = f"{server.url}/embed"
        self.status = 0

    def run(self) -> None:
        answer = httpx.post(self._url, json={"texts": ["墨池"]}, timeout=PATIENCE_S)
        self.status = answer.status_code


def each_is_answered(askers: list[Asker]) -> None:
    """Wait until every one of them has one answer more."""
    wanted = [asker.answered + 1 for asker in askers]
    for asker, count in zip(askers, wanted, strict=True):
        eventually(lambda asker=asker, count=count: asker.answered >= count)  # type: ignore[misc]


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_stopped_server_answers_everything_when_it_goes_on(
    toy_artifact: Path, tmp_path: Path
) -> None:
    with serving(toy_artifact, tmp_path, "--lanes", "2") as server, server.client() as client:
        texts = toy_texts(10)
        vectors = client.post("/embed", json={"texts": texts}).json()["vectors"]
        askers = [Asker(server, dict(zip(texts, vectors, strict=True))) for _ in range(CLIENTS)]
        for asker in askers:
            asker.start()
        pid = server.process.pid
        for _ in range(STOPS):
            each_is_answered(askers)
            os.kill(pid, signal.SIGSTOP)
            eventually(lambda: state(pid) == "T")
            late = Late(server)
            late.start()
            os.kill(pid, signal.SIGCONT)
            late.join(PATIENCE_S)
            assert late.status == 200
        for asker in askers:
            asker.ended.set()
        for asker in askers:
            asker.join(PATIENCE_S)
        answered = sum(asker.answered for asker in askers) + STOPS + 1
        assert server.metric("requests_total", route="/embed", status="200") == answered


def test_processes_that_are_all_stopped_and_go_on_are_the_same_ones(
    toy_artifact: Path, tmp_path: Path
) -> None:
    """They are stopped for longer than a worker may be silent, after which it would be killed."""
    with serving(toy_artifact, tmp_path, "--workers", "3", "--hang-s", "1") as server:
        processes = (server.process.pid, *workers_of(server))
        os.killpg(server.process.pid, signal.SIGSTOP)
        eventually(lambda: [state(pid) for pid in processes] == ["T"] * 3)
        began = time.monotonic()
        eventually(lambda: time.monotonic() > began + 1 + BUSY_S + 5)
        os.killpg(server.process.pid, signal.SIGCONT)
        for _ in range(6):
            with server.client() as client:
                assert client.post("/embed", json={"texts": ["墨池"]}).status_code == 200
        eventually(lambda: server.metric("lanes") == 3)
        assert (server.process.pid, *workers_of(server)) == processes
        assert "killed" not in server.log.read_text()
