"""A disk that refuses to read, for a while: the reply names the disk, and nothing is called damaged."""

import subprocess
from pathlib import Path

import pytest

from server.store.collection import DATABASE_FILE
from tests.support.processes import environment, serving

pytestmark = [pytest.mark.slow, pytest.mark.stress]
SOURCE = Path(__file__).with_name("eio.c")
# 24 MB, more than SQLite's cache holds.
DOCUMENTS, CHARACTERS = 80, 100_000


def test_disk_that_refuses_to_read_is_named_and_its_documents_are_there_later(
    toy_artifact: Path, tmp_path: Path
) -> None:
    library, switch = tmp_path / "eio.so", tmp_path / "refuse"
    command = ["cc", "-O2", "-shared", "-fPIC", str(SOURCE), "-o", str(library), "-ldl"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no C compiler: cc is not installed")
    environ = environment(LD_PRELOAD=str(library), EIO_FILES=DATABASE_FILE, EIO_SWITCH=str(switch))
    whole = {"name": "whole", "chunks": None}
    documents = [{"id": str(n), "text": "墨" * CHARACTERS} for n in range(DOCUMENTS)]
    with serving(toy_artifact, tmp_path, environ=environ) as server:
        with server.client() as client:
            assert client.post("/collections", json=whole).status_code == 201
            for begin in range(0, DOCUMENTS, 20):
                body = {"documents": documents[begin : begin + 20]}
                stored = client.post("/collections/whole/documents", json=body)
                assert stored.status_code == 200, stored.text
        server.process.terminate()
        assert server.wait() == 0
    with serving(toy_artifact, tmp_path, environ=environ) as server:
        with server.client() as client:
            switch.touch()
            for number in range(0, DOCUMENTS, 20):
                reply = client.get(f"/collections/whole/documents/{number}")
                assert reply.status_code == 500
                error = reply.json()["error"]
                assert error["code"] == "store_error", error
                assert "the disk failed: try again" in error["message"]
                assert "damaged" not in error["message"]
            switch.unlink()
            for number in range(DOCUMENTS):
                reply = client.get(f"/collections/whole/documents/{number}")
                assert reply.status_code == 200
                assert reply.json()["text"] == "墨" * CHARACTERS
