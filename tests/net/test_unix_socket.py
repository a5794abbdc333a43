"""The real server on a Unix socket, and how the socket's file is made and removed."""

import asyncio
import os
import signal
import socket
import stat
import subprocess
from pathlib import Path

import httpx
import pytest

from server.errors import BadSettings
from server.net.unix_socket import UnixSocket, check_path
from tests.net.test_hang import command_line
from tests.net.test_socket import refused_start
from tests.net.test_worker_pool import children_of
from tests.support.fakes import PATIENCE_S, eventually
from tests.support.processes import ROOT, Server, command, environment, serving


def through(path: Path) -> httpx.Client:
    transport = httpx.HTTPTransport(uds=str(path))
    return httpx.Client(
        transport=transport, base_url="http://inkwell", timeout=PATIENCE_S, trust_env=False
    )


def left_behind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))


def opened(server: Server) -> None:
    """Return when the socket accepts connections; `serving` waits only for the port, which opens first."""
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


def test_path_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, why in (
        (tmp_path / "file", "another kind"),
        (tmp_path / "none" / "s", "folder .* does not exist"),
        (tmp_path / ("x" * 200), "at most 107"),
    ):
        with pytest.raises(BadSettings, match=why):
            check_path(path)
    assert (tmp_path / "file").exists()


def test_listening_process_is_known_by_whatever_name_it_has_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    monkeypatch.chdir(tmp_path)
    for name in (str(path), "s", "../" + tmp_path.name + "/s"):
        assert check_path(path) == path
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(name)
            assert check_path(path) == path, "no process listens yet"
            listening.listen(0)
            for _ in range(3):
                # More than fit into its queue.
                with pytest.raises(BadSettings, match="another process listens"):
                    check_path(path)
        assert check_path(path) == path and path.exists(), "it is replaced when it is opened"
        path.unlink()


def test_path_that_another_process_took_meanwhile_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "s"
    unix_socket = UnixSocket(path, "600")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(BadSettings, match="another process listens"):
            asyncio.run(unix_socket.open(asyncio.Protocol, 1))
        unix_socket.close()
        assert path.exists()
    unix_socket = UnixSocket(path, "600")
    path.unlink()
    path.mkdir()
    with pytest.raises(BadSettings, match="another kind") as refusal:
        asyncio.run(unix_socket.open(asyncio.Protocol, 1))
    assert str(path) in refusal.value.chinese


def test_folder_that_was_removed_meanwhile_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    unix_socket = UnixSocket(folder / "s", "600")
    folder.rmdir()
    with pytest.raises(BadSettings, match="folder .* does not exist"):
        asyncio.run(unix_socket.open(asyncio.Protocol, 1))


def test_mask_of_the_process_stays_as_it_is(tmp_path: Path) -> None:
    """Files that other threads make meanwhile keep their usual mode."""
    path = tmp_path / "s"

    async def opened() -> None:
        before = os.umask(0o027)
        server = await UnixSocket(path, "606").open(asyncio.Protocol, 1)
        assert os.umask(before) == 0o027
        assert stat.S_IMODE(path.stat().st_mode) == 0o606
        server.close()
        await server.wait_closed()

    asyncio.run(opened())


def test_socket_that_is_taken_while_workers_load_ends_the_start(
    toy_artifact: Path, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    arguments = ("--model", toy_artifact, "--data", tmp_path / "data", "--unix-socket", path)
    process = subprocess.Popen(
        command("serve", "--port", "0", "--workers", "2", *arguments),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with process, socket.socket(socket.AF_UNIX) as other:
        try:
            # The first process has found that no process listens, before it starts another.
            eventually(lambda: children_of(process.pid) or process.poll() is not None)
            [worker] = children_of(process.pid)
            eventually(lambda: command_line(worker) != command_line(process.pid))
            os.kill(worker, signal.SIGSTOP)
            other.bind(str(path))
            other.listen()
            os.kill(worker, signal.SIGCONT)
            said, _ = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
        assert process.returncode == 1
        assert "another process listens" in said.decode() and "Traceback" not in said.decode()
        assert path.exists()
