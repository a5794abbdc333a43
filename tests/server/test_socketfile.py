"""The real server on a Unix socket, and the file's beginning and end."""

import os
import signal
import socket
import stat
from pathlib import Path

import httpx
import pytest

from server.errors import BadSettings
from server.socketfile import claim, is_listed
from tests.server.fakes import PATIENCE_S, eventually
from tests.server.processes import Server, serving
from tests.server.test_socket import refused_start


def through(path: Path) -> httpx.Client:
    transport = httpx.HTTPTransport(uds=str(path))
    return httpx.Client(
        transport=transport, base_url="http://inkwell", timeout=PATIENCE_S, trust_env=False
    )


def left_behind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))


def opened(server: Server) -> None:
    """Return when the socket takes connections: the port, which `serving` waits for, is first."""
    eventually(lambda: "listening on" in server.log.read_text())


def check_answers(server: Server, path: Path) -> None:
    for _ in range(3):
        with through(path) as client:
            assert client.post("/embed", json={"texts": ["墨池"]}).status_code == 200
            assert client.post("/search", json={"query": "墨池"}).status_code == 200
            assert client.post("/embed", json={"texts": ["墨池"]}).status_code == 200
    with server.client() as client:
        assert client.get("/ready").status_code == 200


@pytest.mark.parametrize("flags", [(), ("--workers", "3")])
def test_socket_answers_beside_the_port_and_goes_with_the_server(
    toy_artifact: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    path = tmp_path / "inkwell.sock"
    left_behind(path)
    with serving(toy_artifact, tmp_path, "--unix-socket", str(path), *flags) as server:
        opened(server)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        check_answers(server, path)
        said = refused_start(
            *("serve", "--port", "0", "--model", toy_artifact, "--data", tmp_path / "other"),
            *("--unix-socket", path),
        )
        assert "another process listens" in said and "已有其他进程" in said
        check_answers(server, path)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert not path.exists()
        assert "Traceback" not in server.log.read_text()


def test_mode_is_as_given_and_the_file_of_another_is_left(
    toy_artifact: Path, tmp_path: Path
) -> None:
    path = tmp_path / "inkwell.sock"
    flags = ("--unix-socket", str(path), "--unix-socket-mode", "600")
    with serving(toy_artifact, tmp_path, *flags) as server:
        opened(server)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.unlink()
        left_behind(path)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
    assert path.exists()


def test_place_that_cannot_be_had_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, why in (
        (tmp_path / "file", "another kind"),
        (tmp_path / "none" / "s", "no folder"),
        (tmp_path / ("x" * 200), "at most 107"),
    ):
        with pytest.raises(BadSettings, match=why):
            claim(path)
    assert (tmp_path / "file").exists()


def test_listening_process_is_known_by_absolute_and_relative_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    assert not is_listed(path)
    monkeypatch.chdir(tmp_path)
    for name in (str(path), "s"):
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(name)
            listening.listen()
            assert is_listed(path)
        assert not is_listed(path)
        os.unlink(path)
    assert is_listed(path, tmp_path / "no-table"), "to be on the safe side"
