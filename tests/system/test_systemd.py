"""Messages to the supervisor: the real server, and a socket in place of systemd's."""

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from server.system.systemd import Supervisor
from tests.support.fakes import PATIENCE_S, eventually
from tests.support.processes import environment, serving, without_descriptors


@contextmanager
def supervising(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0{address[1:]}" if address[0] == "@" else address)
        heard.settimeout(PATIENCE_S)
        yield heard


def received(heard: socket.socket) -> dict[str, str]:
    lines = heard.recv(4096).decode().splitlines()
    return dict(line.split("=", 1) for line in lines)


def until(heard: socket.socket, name: str) -> dict[str, str]:
    """Return the next message with `name`, among the next hundred."""
    return next(found for _ in range(100) if name in (found := received(heard)))


@pytest.mark.parametrize("abstract", [False, True])
def test_messages_arrive_at_paths_and_at_names(tmp_path: Path, abstract: bool) -> None:
    address = f"@inkwell{tmp_path}" if abstract else str(tmp_path / "notify")
    with supervising(address) as heard, closing(Supervisor(address)) as supervisor:
        assert supervisor.notify("READY=1", "STATUS=well 好")
        assert received(heard) == {"READY": "1", "STATUS": "well 好"}


def test_without_a_supervisor_nothing_is_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Supervisor()) as supervisor:
        assert supervisor.notify("READY=1")
    assert caplog.text == ""
    with closing(Supervisor(str(tmp_path / "gone"))) as supervisor:
        assert supervisor.notify("READY=1"), "it will not come"
    assert "did not receive READY=1" in caplog.text


def test_message_to_a_supervisor_that_does_not_read_can_be_sent_again(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with supervising(address) as heard, closing(Supervisor(address)) as supervisor:
        sent = 0
        while supervisor.notify("WATCHDOG=1"):
            sent += 1
        for _ in range(sent):
            assert received(heard) == {"WATCHDOG": "1"}
        assert supervisor.notify("READY=1")
        assert received(heard) == {"READY": "1"}


def test_variables_that_are_invalid_or_meant_for_another_process_are_ignored() -> None:
    def followed(variables: dict[str, str], pid: int) -> tuple[str, float | None]:
        with closing(Supervisor.of(variables, pid)) as supervisor:
            return supervisor.address, supervisor.watchdog_s

    given = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "7"}
    assert followed(given, 7) == ("/run/notify", 2.0)
    assert followed(given, 8) == ("/run/notify", None)
    assert followed({**given, "WATCHDOG_USEC": "soon"}, 7) == ("/run/notify", None)
    assert followed({**given, "NOTIFY_SOCKET": "vsock:2:3"}, 7) == ("", None)
    assert followed({}, 7) == ("", None)


@pytest.mark.parametrize("flags", [(), ("--workers", "2")])
def test_supervisor_hears_of_start_reload_and_end(
    toy_artifact: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    address = str(tmp_path / "notify")
    with supervising(address) as heard:
        environ = environment(NOTIFY_SOCKET=address, WATCHDOG_USEC="1000000")
        with serving(toy_artifact, tmp_path, *flags, environ=environ) as server:
            assert "STATUS" in received(heard)
            assert "toy" in until(heard, "READY")["STATUS"]
            for _ in range(3):
                assert until(heard, "WATCHDOG")["WATCHDOG"] == "1"
            before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            server.process.send_signal(signal.SIGHUP)
            moment = int(until(heard, "RELOADING")["MONOTONIC_USEC"])
            assert before <= moment <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            assert until(heard, "READY")["READY"] == "1"
            eventually(lambda: "settings read again" in server.log.read_text())
            server.process.send_signal(signal.SIGTERM)
            assert until(heard, "STOPPING")["STOPPING"] == "1"
            assert server.wait() == 0
            assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("flags", [(), ("--workers", "2")])
def test_server_with_too_many_open_files_says_that_it_lives_and_reads_its_settings(
    toy_artifact: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    address = str(tmp_path / "notify")
    environ = environment(NOTIFY_SOCKET=address, WATCHDOG_USEC="1000000")
    with supervising(address) as heard:
        with serving(toy_artifact, tmp_path, *flags, environ=environ) as server:
            until(heard, "READY")
            with without_descriptors(server):
                server.process.send_signal(signal.SIGHUP)
                until(heard, "RELOADING")
                # Without free descriptors the old settings stay, and the log says so.
                until(heard, "READY")
                for _ in range(2):
                    until(heard, "WATCHDOG")
            server.process.send_signal(signal.SIGHUP)
            until(heard, "RELOADING")
            until(heard, "READY")
            with without_descriptors(server):
                server.process.send_signal(signal.SIGTERM)
                until(heard, "STOPPING")
            assert server.wait() == 0


def test_supervisor_that_was_busy_hears_that_the_server_is_ready(
    toy_artifact: Path, tmp_path: Path
) -> None:
    address = str(tmp_path / "notify")
    with supervising(address) as heard, closing(Supervisor(address)) as another:
        while another.notify("STATUS=noise"):
            continue
        with serving(toy_artifact, tmp_path, environ=environment(NOTIFY_SOCKET=address)) as server:
            eventually(lambda: "did not receive READY=1" in server.log.read_text())
            assert "toy" in until(heard, "READY")["STATUS"]
