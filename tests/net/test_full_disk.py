"""A disk that fills up, for real: a small file system in memory under the data folder."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import serving

MEGABYTES = 6


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_full_disk_refuses_writes_and_keeps_what_is_stored(
    toy_artifact: Path, tmp_path: Path, small_disk: Path
) -> None:
    data = ("--data", str(small_disk / "data"))
    stored: list[str] = []
    with serving(toy_artifact, tmp_path, *data) as server, server.client() as client:
        for number in range(200):
            documents = [
                {"id": f"{number}-{each}", "text": f"search server {number} {each} " + "墨池" * 400}
                for each in range(50)
            ]
            answer = client.post("/documents", json={"documents": documents})
            if answer.status_code != 200:
                break
            stored += [document["id"] for document in documents]
        assert answer.status_code == 507, answer.text
        error = answer.json()["error"]
        assert error["code"] == "disk_full"
        assert "free some space" in error["message"]
        assert stored

        # Reads and searches go on, of all that was acknowledged and nothing else.
        assert client.post("/documents/count", json={}).json() == {"count": len(stored)}
        assert client.get(f"/documents/{stored[-1]}").status_code == 200
        query = {"query": f"server {stored[0].partition('-')[0]}", "mode": "hybrid"}
        assert client.post("/search", json=query).json()["hits"]
        again = client.post("/documents", json={"documents": documents})
        assert again.status_code == 507

        # Room that is made is used.
        subprocess.run(
            ["mount", "-o", f"remount,size={4 * MEGABYTES}m", str(small_disk)], check=True
        )
        assert client.post("/documents", json={"documents": documents}).status_code == 200
        stored += [document["id"] for document in documents]
    with serving(toy_artifact, tmp_path, *data) as server, server.client() as client:
        assert client.post("/documents/count", json={}).json() == {"count": len(stored)}
