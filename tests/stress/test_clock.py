"""A date that is set while the server works: years on, years back, and again."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import environment, serving

pytestmark = [pytest.mark.slow, pytest.mark.stress]
SOURCE = Path(__file__).with_name("clock.c")
YEAR_S = 365 * 86_400
JUMPS_S = (YEAR_S, -30 * YEAR_S, 0, 40 * YEAR_S, -1, 3600)


class Clock:
    """The wall clock of the processes that are started with `environ`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "offset"
        self._file.write_bytes(bytes(8))
        library = folder / "clock.so"
        command = ["cc", "-O2", "-shared", "-fPIC", str(SOURCE), "-o", str(library), "-ldl"]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("no C compiler: cc is not installed")
        assert done.returncode == 0, done.stderr
        self.environ = environment(LD_PRELOAD=str(library), CLOCK_OFFSET=str(self._file))

    def set(self, offset_s: int) -> None:
        # subtle: in place, because the server has mapped this very file.
        with self._file.open("r+b") as file:
            file.write(offset_s.to_bytes(8, "little", signed=True))


def test_date_that_jumps_changes_no_answer_and_nothing_stored(
    toy_artifact: Path, tmp_path: Path
) -> None:
    clock, audit = Clock(tmp_path), tmp_path / "audit"
    query = {"query": "墨池 7", "top_k": 3}
    with (
        serving(toy_artifact, tmp_path, "--audit", str(audit), environ=clock.environ) as server,
        server.client() as client,
    ):
        first = [{"id": str(number), "text": f"墨池 {number}"} for number in range(20)]
        assert client.post("/documents", json={"documents": first}).status_code == 200
        usual = client.post("/search", json=query).json()["hits"]
        vectors = client.post("/embed", json={"texts": ["墨池"] * 3}).json()["vectors"]
        for number, jump_s in enumerate(JUMPS_S):
            clock.set(jump_s)
            again = client.post("/embed", json={"texts": ["墨池"] * 3})
            assert again.json()["vectors"] == vectors
            assert client.post("/search", json=query).json()["hits"] == usual
            more = [{"id": f"more {number}", "text": "书画"}]
            assert client.post("/documents", json={"documents": more}).status_code == 200
            # No patience has ended early or become endless.
            assert client.get("/ready").status_code == 200
        count = {"count": len(first) + len(JUMPS_S)}
        assert client.post("/documents/count", json={}).json() == count
        server.process.terminate()
        assert server.wait() == 0
    times = [json.loads(line)["time"] for line in audit.read_text().splitlines()]
    here = min(time[:4] for time in times[:3])
    assert {time[:4] for time in times} >= {str(int(here) + years) for years in (1, -30, 40)}
    with (
        serving(toy_artifact, tmp_path, environ=environment()) as server,
        server.client() as client,
    ):
        assert client.post("/documents/count", json={}).json() == count
        assert client.post("/search", json=query).json()["hits"] == usual
