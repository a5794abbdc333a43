"""No memory left: for a request, by RLIMIT_AS, and for the process, by a cgroup whose limit kills."""

import json
import os
import resource
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.support.fakes import PATIENCE_S, eventually
from tests.support.processes import Server, serving

pytestmark = [pytest.mark.slow, pytest.mark.stress]
MEGABYTE = 1 << 20
SPARE, BODY = 16 * MEGABYTE, 24 * MEGABYTE
BROKEN = {"RemoteProtocolError", "ReadError", "WriteError"}
DOCUMENTS = [{"id": str(number), "text": f"墨池 {number}"} for number in range(50)]


def leave_little_memory(server: Server) -> None:
    pid = server.process.pid
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    size = int(fields[0]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (size + SPARE, resource.RLIM_INFINITY))


class Group:
    """A cgroup, of version 1 or 2, for what its members take from now on."""

    def __init__(self, root: Path, limit: str) -> None:
        self._folder = root / f"inkwell-{os.getpid()}"
        self._folder.mkdir()
        (self._folder / limit).write_text(str(SPARE))

    def take(self, pid: int) -> None:
        (self._folder / "cgroup.procs").write_text(str(pid))

    def close(self) -> None:
        eventually(lambda: not (self._folder / "cgroup.procs").read_text())
        self._folder.rmdir()


@pytest.fixture
def group() -> Iterator[Group]:
    for root, limit in (
        (Path("/sys/fs/cgroup"), "memory.max"),
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    ):
        controllers = root / "cgroup.controllers"
        version_2 = controllers.exists() and "memory" in controllers.read_text().split()
        if version_2 if limit == "memory.max" else (root / limit).exists():
            try:
                made = Group(root, limit)
            except OSError as error:
                pytest.skip(f"no cgroup can be made here: {error}")
            yield made
            made.close()
            return
    pytest.skip("there is no cgroup that limits memory here")


def huge_body() -> bytes:
    return json.dumps({"texts": ["墨" * (BODY // 6)]}).encode()


def ask_for_too_much(server: Server) -> int | str:
    """The status, or how the connection ended."""
    headers = {"content-type": "application/json"}
    url, content = f"{server.url}/embed", huge_body()
    try:
        return httpx.post(url, content=content, headers=headers, timeout=PATIENCE_S).status_code
    except httpx.TransportError as error:
        return type(error).__name__


def test_request_that_finds_no_memory_fails_alone(toy_artifact: Path, tmp_path: Path) -> None:
    with serving(toy_artifact, tmp_path) as server, server.client() as client:
        assert client.post("/documents", json={"documents": DOCUMENTS}).status_code == 200
        usual = client.post("/embed", json={"texts": ["墨池"]}).json()["vectors"]
        leave_little_memory(server)
        for _ in range(5):
            with ThreadPoolExecutor(4) as several:
                said = list(several.map(ask_for_too_much, [server] * 4))
            # 400 where the body was still coming, 500 behind that, or a closed connection.
            assert set(said) <= {400, 500, *BROKEN}
            assert client.post("/embed", json={"texts": ["墨池"]}).json()["vectors"] == usual
        assert client.post("/documents/count", json={}).json() == {"count": len(DOCUMENTS)}
        assert server.process.poll() is None

        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, unlimited)
        assert ask_for_too_much(server) == 200


def test_process_that_the_kernel_ends_for_its_memory_has_lost_nothing(
    toy_artifact: Path, tmp_path: Path, group: Group
) -> None:
    with serving(toy_artifact, tmp_path) as server, server.client() as client:
        group.take(server.process.pid)
        assert client.post("/documents", json={"documents": DOCUMENTS}).status_code == 200
        assert ask_for_too_much(server) in BROKEN
        assert server.wait() == -signal.SIGKILL
    with serving(toy_artifact, tmp_path) as server, server.client() as client:
        assert client.post("/documents/count", json={}).json() == {"count": len(DOCUMENTS)}
