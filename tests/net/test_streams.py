"""Bodies and replies of any length over a real connection, and clients that leave in the middle."""

import json
import re
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import httpx
import pytest

from server.collections.reading.export import RUNNING
from tests.support.fakes import PATIENCE_S, eventually
from tests.support.processes import Server, serving

MADE = {"name": "own", "embedder": "my-model", "dimension": 4}
PATH = "/collections/own/documents"
HEAD = {"content-type": "application/x-ndjson"}
LONG = 300_000


@pytest.fixture(scope="module")
def server(toy_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ("--max-body-bytes", str(1 << 20), "--send-s", "2")
    with serving(toy_artifact, tmp_path_factory.mktemp("streams"), *flags) as server:
        with server.client() as client:
            assert client.post("/collections", json=MADE).status_code == 201
        yield server
        assert "Traceback" not in server.log.read_text()


def line(n: int, size: int) -> bytes:
    vector = [1 + n % 7, n % 5, n % 3, 1]
    return json.dumps({"id": str(n), "text": "x" * size, "vector": vector}).encode() + b"\n"


def highest_memory(server: Server) -> int:
    """Return the most bytes that the server has had resident."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])


@pytest.mark.slow
def test_a_body_and_an_export_are_larger_than_what_memory_holds(server: Server) -> None:
    sent = 400

    def lines() -> Iterator[bytes]:
        yield from (line(n, LONG) for n in range(sent))

    with server.client() as client:
        client.post(PATH, content=b"".join(line(n, LONG) for n in range(20)), headers=HEAD)
        assert client.post(f"{PATH}/export", json={"include_vectors": True}).is_success
        before = highest_memory(server)
        said = client.post(PATH, content=lines(), headers=HEAD)
        assert (said.json()["lines"], said.json()["lines_left_out"]) == (sent, 0), said.text
        assert said.headers["x-stored-lines"] == str(sent)
        with client.stream("POST", f"{PATH}/export", json={"include_vectors": True}) as reply:
            found = [json.loads(each) for each in reply.iter_lines()]
    assert sorted(int(each["id"]) for each in found) == list(range(sent))
    assert all(len(each["vector"]) == 4 for each in found)
    # Of 120 MB each way.
    assert highest_memory(server) - before < 48 << 20


def test_what_came_before_a_client_left_is_stored(server: Server) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nhost: {server.host}\r\ncontent-type: application/x-ndjson\r\n"
    body = b"".join(line(1000 + n, 10) for n in range(300))
    with socket.create_connection((server.host, server.port)) as client:
        client.sendall(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
        client.sendall(b"%x\r\n%b\r\n" % (len(body), body))
        with server.client() as other:
            eventually(lambda: count(other, 1000) == 256)
    with server.client() as other:
        assert count(other, 1000) == 256
        assert other.get("/health").status_code == 200


def count(client: httpx.Client, first: int) -> int:
    ids = [str(first + n) for n in range(300)]
    return len(client.post(f"{PATH}/get", json={"ids": ids}).json()["documents"])


@pytest.fixture(scope="module")
def filled(server: Server) -> Server:
    """Return the server, with more documents than the buffers of a connection hold."""
    with server.client() as client:
        lines = b"".join(line(n, LONG) for n in range(40))
        assert client.post(PATH, content=lines, headers=HEAD).json()["lines_left_out"] == 0
    return server


def is_dropped(client: socket.socket) -> bool:
    """Return whether the server has closed its end; the kernel may still hold what it wrote."""
    port = f":{client.getsockname()[1]:04X}"
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return all(row[9] == "0" for row in rows if row[2].endswith(port))


def test_clients_that_stop_reading_an_export_are_dropped_and_hold_nothing(filled: Server) -> None:
    server = filled
    body = json.dumps({"include_vectors": True})
    head = (
        f"POST {PATH}/export HTTP/1.1\r\nhost: {server.host}\r\ncontent-type: application/json\r\n"
    )
    with ExitStack() as stack:
        other = stack.enter_context(server.client())
        clients = [stack.enter_context(socket.socket()) for _ in range(RUNNING.most)]
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((server.host, server.port))
            client.sendall(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
            assert client.recv(15) == b"HTTP/1.1 200 OK"
        few = {"filter": {"a": 1}}
        assert other.post(f"{PATH}/export", json=few).status_code == 429
        # Writes wait for no export.
        assert other.post(PATH, content=line(2000, 10), headers=HEAD).status_code == 200
        eventually(lambda: other.post(f"{PATH}/export", json=few).status_code == 200)
        eventually(lambda: all(map(is_dropped, clients)))
        clients[0].settimeout(PATIENCE_S)
        came = b""
        with suppress(ConnectionResetError):
            while piece := clients[0].recv(1 << 20):
                came = came[-100:] + piece
        assert not came.endswith(b"0\r\n\r\n")


def test_an_export_goes_on_while_its_collection_is_removed(server: Server) -> None:
    made = {**MADE, "name": "gone"}
    path = "/collections/gone/documents"
    with server.client() as client, server.client() as other:
        assert client.post("/collections", json=made).status_code == 201
        lines = b"".join(line(n, LONG) for n in range(40))
        assert client.post(path, content=lines, headers=HEAD).json()["stored"] == 40
        with client.stream("POST", f"{path}/export", json={}) as reply:
            assert other.delete("/collections/gone").status_code == 200
            assert sum(1 for _ in reply.iter_lines()) == 40


def test_an_export_that_ends_in_an_error_is_seen_to_be_cut_off(filled: Server) -> None:
    server = filled
    file = server.log.parent / "data" / "collections" / "own" / "documents.sqlite3"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE documents SET text = 'y' WHERE id = '39'")
    came = b""
    with server.client() as client, pytest.raises(httpx.RemoteProtocolError):
        with client.stream("POST", f"{PATH}/export", json={}) as reply:
            for piece in reply.iter_raw():
                came = came[-2000:] + piece
    last = json.loads(came.splitlines()[-1])
    assert last["error"]["code"] == "store_damaged"
