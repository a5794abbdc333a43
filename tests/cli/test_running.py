"""Commands find the server that uses their data folder, and send it nothing that is for another one."""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path

import pytest

from server.cli import running
from server.cli.connection import Server, is_own
from server.cli.running import WAIT_S, find_server
from server.errors import StartupError
from server.messages.terminal import Terminal
from server.store import folder_lock
from server.store.folder import DataFolder
from server.store.folder_lock import LOCK_FILE
from tests.net.test_tls import OPENSSL, certificate, flags_of
from tests.support.commands import Commands, write_lines
from tests.support.processes import Server as Process
from tests.support.processes import serving
from tests.support.toys import write_toy_texts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("running")


@pytest.fixture(scope="module")
def server(folder: Path, toy_artifact: Path) -> Iterator[Process]:
    """A server with a Unix socket, on a port that the kernel chose."""
    with serving(toy_artifact, folder, "--unix-socket", str(folder / "a socket")) as started:
        yield started


def test_every_command_asks_the_server_that_uses_the_folder(
    run: Commands, server: Process, folder: Path, tmp_path: Path
) -> None:
    data, path = ("--data", folder / "data"), write_toy_texts(tmp_path / "texts.txt", 5)
    exported = tmp_path / "out.jsonl"
    for command, shown in (
        (("index", path), "added 5"),
        (("search", "墨"), "1. similarity"),
        (("collections",), "default  5 documents"),
        (("export", exported), ""),
        (("import", exported, "--collection", "copy"), "added 5"),
        (("reindex", "--collection", "copy"), ""),
    ):
        said = run(*command, *data)
        assert shown in said.out
        (line,) = [line for line in said.err.splitlines() if "in use by the server" in line]
        assert "a socket" in line and str(folder / "data") in line
    assert len(exported.read_bytes().splitlines()) == 5
    said = run("search", "墨", *data, locale="zh_CN.UTF-8")
    assert "正由" in said.err and "正由" not in said.out


def test_commands_that_need_the_folder_itself_say_who_uses_it(
    run: Commands, server: Process, folder: Path, tmp_path: Path
) -> None:
    pair = ("--pair", tmp_path / "a.faiss", tmp_path / "a.txt")
    for command in (("check",), ("export", *pair)):
        said = run.refused(*command, "--data", folder / "data")
        assert said.count(str(server.process.pid)) == said.count(server.url) == 2
        assert "--url" not in said


def test_unix_socket_is_an_address_too(run: Commands, server: Process, folder: Path) -> None:
    assert run("collections", "--url", f"unix:{folder / 'a socket'}").err == ""
    said = run.refused("collections", "--url", f"unix:{folder / 'none'}")
    assert said.count("No such file or directory") == said.count("文件或文件夹不存在") == 1


def find(data: Path, key: str | None = None) -> Server | None:
    async def pause(seconds: float) -> None:
        await asyncio.sleep(0)

    return asyncio.run(find_server(data, key, Terminal("en", StringIO(), StringIO()), pause))


class Other(BaseHTTPRequestHandler):
    """Answers 200 to everything, and keeps what it is sent."""

    heads: list[str]

    def do_GET(self) -> None:
        self.heads.append(str(self.headers))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def other() -> Iterator[tuple[str, list[str]]]:
    class Handler(Other):
        heads: list[str] = []

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}", Handler.heads
        finally:
            listening.shutdown()
            thread.join()


@contextlib.contextmanager
def held(data: Path, *addresses: str) -> Iterator[DataFolder]:
    folder = DataFolder(data, addresses[0])
    folder.announce(addresses)
    try:
        yield folder
    finally:
        folder.close()


def test_another_server_at_the_address_gets_neither_key_nor_text(tmp_path: Path) -> None:
    with other() as (url, heads), held(tmp_path, url):
        with pytest.raises(StartupError, match="another server answers") as refusal:
            find(tmp_path, "hidden")
    assert url in refusal.value.english and url in refusal.value.chinese
    assert len(heads) == 1 and "hidden" not in heads[0]


@pytest.mark.parametrize(
    "url", ["http://192.0.2.1:8000", "http://localhost:8000", "http://evil.example", "nonsense"]
)
def test_an_address_elsewhere_is_not_asked(tmp_path: Path, url: str) -> None:
    with held(tmp_path, url), pytest.raises(StartupError, match="no address of this machine"):
        find(tmp_path)


def test_own_addresses_are_those_of_this_machine() -> None:
    assert is_own("http://127.0.0.1:1") and is_own("https://[::1]:1") and is_own("unix:/a")
    assert not is_own("http://192.0.2.1:1") and not is_own("http://[2001:db8::1]:1")


def test_key_is_not_sent_where_another_user_may_have_written_the_lock(
    server: Process, folder: Path
) -> None:
    lock = folder / "data" / LOCK_FILE
    mode = lock.stat().st_mode
    lock.chmod(0o666)
    try:
        assert find(folder / "data") is not None
        with pytest.raises(StartupError, match="the key is not sent"):
            find(folder / "data", "hidden")
    finally:
        lock.chmod(mode)
    assert find(folder / "data", "hidden") is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_key_is_not_sent_where_the_lock_is_another_users(tmp_path: Path) -> None:
    with held(tmp_path, "http://127.0.0.1:1"):
        os.chown(tmp_path / LOCK_FILE, 65534, -1)
        with pytest.raises(StartupError, match="the key is not sent"):
            running._check_owner(tmp_path, Server("http://127.0.0.1:1"))


def test_server_that_starts_is_waited_for(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path, "http://127.0.0.1:0")
    turns = 0

    async def pause(seconds: float) -> None:
        nonlocal turns
        turns += 1
        if turns == 3:
            folder.close()

    found = find_server(tmp_path, None, Terminal("en", StringIO(), StringIO()), pause)
    assert asyncio.run(found) is None, "it has stopped, so the command does the work itself"
    assert turns == 3


def test_server_that_takes_the_folder_from_a_command_that_starts_is_asked(
    run: Commands, server: Process, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder_of, looks = folder_lock.holder_of, list[Path]()

    def free_at_first(data: Path) -> str | None:
        looks.append(data)
        return holder_of(data) if len(looks) > 1 else None

    monkeypatch.setattr(folder_lock, "holder_of", free_at_first)
    said = run("documents", "list", "--data", folder / "data", "--limit", "1")
    assert len(looks) == 2 and "in use by the server" in said.err


def test_wait_is_bounded_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter(range(0, 1000, 5))
    monkeypatch.setattr(running, "now", lambda: float(next(moments)))
    err = StringIO()
    terminal = Terminal("en", StringIO(), err)

    async def pause(seconds: float) -> None: ...

    # A server that is killed leaves no lock; this one is stuck, and no process listens there.
    with held(tmp_path, "http://127.0.0.1:9"), pytest.raises(StartupError) as refusal:
        asyncio.run(find_server(tmp_path, None, terminal, pause))
    assert f"{WAIT_S:.0f} s (http://127.0.0.1:9 cannot be reached" in refusal.value.english
    assert err.getvalue().count("waiting for the server") == 1


def test_process_that_is_no_server_is_named(run: Commands) -> None:
    folder = DataFolder(run.data)
    try:
        assert f"in use by process {os.getpid()};" in run("collections", status=1).err
    finally:
        folder.close()


@pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")
def test_server_with_keys_and_encryption_is_found(
    run: Commands, toy_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert = certificate(tmp_path, "elsewhere")
    secret = run("key", "new", "a", "--scopes", "search,write", "--keys", tmp_path / "keys").out
    flags = ("--keys", str(tmp_path / "keys"), *flags_of(cert))
    path = write_lines(tmp_path / "docs.txt", ["墨池"])
    with serving(toy_artifact, tmp_path, *flags) as server:
        assert server.url.startswith("https://")
        data = ("--data", tmp_path / "data")
        said = run.refused("index", path, *data)
        assert said.count("INKWELL_API_KEY") == said.count("--key-file") == 2
        monkeypatch.setenv("INKWELL_API_KEY", secret.strip())
        assert "added 1" in run("index", path, *data).out
        os.kill(server.process.pid, signal.SIGTERM)
        assert server.wait() == 0
        assert "added 0, unchanged 1" in run("index", path, *data).out
