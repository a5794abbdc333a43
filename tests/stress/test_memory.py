"""No memory left: RLIMIT_AS of a running server, set a little above what it has."""

import json
import resource
import threading
from pathlib import Path

import httpx
import pytest

from tests.server.fakes import PATIENCE_S
from tests.server.processes import Server, serving

pytestmark = [pytest.mark.slow, pytest.mark.stress]
MEGABYTE = 1 << 20
SPARE, BODY = 16 * MEGABYTE, 24 * MEGABYTE


def leave_little_memory(server: Server) -> None:
    pid = server.process.pid
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    size = int(fields[0]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (size + SPARE, resource.RLIM_INFINITY))


def test_request_that_finds_no_memory_fails_alone(toy_artifact: Path, tmp_path: Path) -> None:
    documents = [{"id": str(number), "text": f"墨池 {number}"} for number in range(50)]
    huge = json.dumps({"texts": ["墨" * (BODY // 6)]}).encode()
    said: list[int | str] = []

    def ask_for_too_much(server: Server) -> None:
        headers = {"content-type": "application/json"}
        try:
            answer = httpx.post(
                f"{server.url}/embed", content=huge, headers=headers, timeout=PATIENCE_S
            )
            said.append(answer.status_code)
        except httpx.TransportError as error:
            said.append(type(error).__name__)

    with serving(toy_artifact, tmp_path) as server, server.client() as client:
        assert client.post("/documents", json={"documents": documents}).status_code == 200
        usual = client.post("/embed", json={"texts": ["墨池"]}).json()["vectors"]
        leave_little_memory(server)
        for _ in range(5):
            several = [threading.Thread(target=ask_for_too_much, args=[server]) for _ in range(4)]
            for one in several:
                one.start()
            for one in several:
                one.join(PATIENCE_S)
            assert client.post("/embed", json={"texts": ["墨池"]}).json()["vectors"] == usual
        # 400 where the body was still coming, 500 behind that, or a closed connection.
        assert len(said) == 20 and set(said) <= {400, 500, "RemoteProtocolError", "WriteError"}
        assert client.post("/documents/count", json={}).json() == {"count": 50}
        assert server.process.poll() is None
        resource.prlimit(
            server.process.pid,
            resource.RLIMIT_AS,
            (resource.RLIM_INFINITY, resource.RLIM_INFINITY),
        )
        said.clear()
        ask_for_too_much(server)
        assert said == [200]
