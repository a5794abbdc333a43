"""Acknowledged writes are never lost when the server is killed in the middle of its work.

Writers add, replace and delete documents over HTTP, a few at a time, while others search; the server
gets SIGKILL at a random moment and is started again over the same folder. Each id belongs to one
writer, so its expected state is known: the last acknowledged one, or the one being written.
"""

import http.client
import json
import random
import threading
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Server, serving

WRITERS, IDS_OF_A_WRITER = 3, 12
# Of the text, and of the metadata alone; None: not there.
Version = tuple[int, int] | None


@dataclass
class Writer:
    """One connection and its ids.

    stored: what each id is for certain; pending: what the request under way would make of its ids.
    """

    number: int
    random: random.Random
    stored: dict[str, Version] = field(default_factory=dict)
    pending: dict[str, Version] = field(default_factory=dict)
    version: int = 0
    acknowledged: int = 0

    def __post_init__(self) -> None:
        self.stored = {f"{self.number}-{place}": None for place in range(IDS_OF_A_WRITER)}

    def write(self, server: Server) -> None:
        """Write until the connection breaks."""
        with connected(server) as connection, suppress(OSError, http.client.HTTPException):
            while True:
                self._write_one(connection)

    def _write_one(self, connection: http.client.HTTPConnection) -> None:
        ids = self.random.sample(sorted(self.stored), self.random.randint(1, 4))
        self.version += 1
        kind = self.random.choices(("delete", "change", "lines", "add"), (3, 3, 1, 3))[0]
        if kind == "delete":
            self.pending = dict.fromkeys(ids, None)
            post(connection, "/documents/delete", {"ids": ids})
        elif kind == "change":
            known = {id: version for id in ids if (version := self.stored[id]) is not None}
            self.pending = {id: (version[0], self.version) for id, version in known.items()}
            body = {"ids": list(known), "metadata": {"changed": self.version}}
            post(connection, "/documents", body, method="PATCH")
        else:
            self.pending = dict.fromkeys(ids, (self.version, 0))
            documents = [
                {"id": id, "text": text_of(id, self.version), "metadata": {"v": self.version}}
                for id in ids
            ]
            if kind == "lines":
                post(connection, "/documents", documents, lines=True)
            else:
                post(connection, "/documents", {"documents": documents})
        self.stored |= self.pending
        self.pending = {}
        self.acknowledged += 1


def text_of(id: str, version: int) -> str:
    """Return a text that differs in many characters from every other."""
    drawn = random.Random(f"{id} {version}")
    return f"{id} {version} " + "".join(chr(drawn.randint(0x4E00, 0x9000)) for _ in range(12))


def post(
    connection: http.client.HTTPConnection,
    path: str,
    body: Any,
    method: str = "POST",
    *,
    lines: bool = False,
) -> Any:
    kind = "application/x-ndjson" if lines else "application/json"
    text = "\n".join(map(json.dumps, body)) if lines else json.dumps(body)
    connection.request(method, path, text, {"content-type": kind})
    reply = connection.getresponse()
    answer = json.loads(reply.read())
    assert reply.status == 200, answer
    return answer


def search_until_it_breaks(server: Server) -> None:
    """Check that every hit has the text of its id, at any moment."""
    with connected(server) as connection, suppress(OSError, http.client.HTTPException):
        while True:
            for hit in post(connection, "/search", {"query": "一", "mode": "hybrid"})["hits"]:
                assert hit["text"] == text_of(hit["id"], hit["metadata"]["v"])


def connected(server: Server) -> "closing[http.client.HTTPConnection]":
    return closing(http.client.HTTPConnection(server.host, server.port, timeout=30))


def check(server: Server, writers: list[Writer]) -> None:
    """Check that every document is whole, has its text, and is found by its own vector."""
    with connected(server) as connection:
        check_over(connection, writers)


def version_of(document: Any) -> Version:
    return document["metadata"]["v"], document["metadata"].get("changed", 0)


def check_over(connection: http.client.HTTPConnection, writers: list[Writer]) -> None:
    listed = json.loads(get(connection, "/documents?limit=1000"))["documents"]
    found = {each["id"]: each for each in listed}
    for writer in writers:
        versions = {id: version_of(found[id]) if id in found else None for id in writer.stored}
        applied = writer.pending and all(versions[id] == v for id, v in writer.pending.items())
        expected = writer.stored | (writer.pending if applied else {})
        assert versions == expected, "an acknowledged write is lost, or one is there by half"
        writer.stored, writer.pending = expected, {}
    assert all(each["text"] == text_of(id, each["metadata"]["v"]) for id, each in found.items())
    texts = [each["text"] for each in listed]
    if texts:
        vectors = post(connection, "/embed", {"texts": texts})["vectors"]
        for id, vector in zip(found, vectors, strict=True):
            (hit,) = post(connection, "/search", {"vector": vector, "top_k": 1})["hits"]
            assert (hit["id"], hit["score"]) == (id, pytest.approx(1, abs=1e-3))
    stats = json.loads(get(connection, "/stats"))
    assert (stats["documents"], stats["parts"]) == (len(found), len(found))


def get(connection: http.client.HTTPConnection, path: str) -> bytes:
    connection.request("GET", path)
    return connection.getresponse().read()


def kill_again_and_again(model: Path, folder: Path, times: int) -> int:
    """Return how many writes were acknowledged."""
    chance = random.Random(times)
    writers = [Writer(number, random.Random(number)) for number in range(WRITERS)]
    for _ in range(times):
        with serving(model, folder) as server:
            check(server, writers)
            threads = [threading.Thread(target=each.write, args=[server]) for each in writers]
            searching = threading.Thread(target=search_until_it_breaks, args=[server])
            for thread in (*threads, searching):
                thread.start()
            threads[0].join(chance.uniform(0.02, 0.5))
        for thread in (*threads, searching):
            thread.join()
    with serving(model, folder) as server:
        check(server, writers)
    return sum(writer.acknowledged for writer in writers)


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_killed_server_loses_nothing_it_has_acknowledged(
    toy_artifact: Path, tmp_path: Path
) -> None:
    assert kill_again_and_again(toy_artifact, tmp_path, 5) > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_two_hundred_kills_lose_nothing(shipped_artifact: Path, tmp_path: Path) -> None:
    written = kill_again_and_again(shipped_artifact, tmp_path, 200)
    print(f"200 kills, {written} acknowledged writes, 0 lost")  # noqa: T201
    assert written > 2000
