"""What does each way to write and to read documents whole cost the server?

    python -m benchmarks.writes [--texts FILE] [--count 2000] [--turns 3]

In turn within one run, each over HTTP on one connection, in requests of 256 documents where they are not one
stream: documents that are embedded, in bodies and as lines of JSON; the same documents with given vectors, as
numbers and in base64, in bodies and as lines; a change of their metadata alone; and reading them back with
their vectors, by ids and as an export. cpu_ms: CPU time of the server, all its threads, for each document, which
other programs on the machine move little. ms: wall time. memory_mb: what the peak of its resident memory grew
by. Medians of the turns. FILE: as of benchmarks.ingest. One JSON line.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import httpx
import numpy as np

from benchmarks import machine, usage
from benchmarks.arguments import parser
from benchmarks.ingest import add_texts, texts_of
from benchmarks.serve import server
from server.api.replies import base64_rows
from server.system.output import until_reader_leaves

PORTION = 256
LINES = {"content-type": "application/x-ndjson"}
Document = dict[str, Any]
# Runs one way to write or read, and returns for how many documents.
Way = Callable[[], int]


class Client:
    """One collection of the server, and how documents reach it."""

    def __init__(self, client: httpx.Client, name: str, model: str) -> None:
        self._client, self._path, self._model = client, f"/collections/{name}/documents", model
        self._ask("POST", "/collections", json={"name": name, "chunks": None})

    def add(self, documents: Sequence[Document], *, named: bool = False) -> int:
        for some in portions(documents):
            body = {"documents": some, **({"embedder": self._model} if named else {})}
            self._ask("POST", self._path, json=body)
        return len(documents)

    def add_lines(self, documents: Sequence[Document], *, named: bool = False) -> int:
        lines = (json.dumps(each).encode() + b"\n" for each in documents)
        query = f"?embedder={self._model}" if named else ""
        said = self._ask("POST", self._path + query, content=lines, headers=LINES)
        assert said["lines_left_out"] == 0, said
        return len(documents)

    def change(self, documents: Sequence[Document], turn: int) -> int:
        for some in portions(documents):
            body = {"ids": [each["id"] for each in some], "metadata": {"turn": turn}}
            assert self._ask("PATCH", self._path, json=body)["changed"] == len(some)
        return len(documents)

    def get(self, documents: Sequence[Document]) -> int:
        for some in portions(documents):
            ids = [each["id"] for each in some]
            body = {"ids": ids, "include_vectors": True, "encoding_format": "base64"}
            assert len(self._ask("POST", f"{self._path}/get", json=body)["documents"]) == len(some)
        return len(documents)

    def export(self) -> int:
        body = {"include_vectors": True, "encoding_format": "base64"}
        with self._client.stream("POST", f"{self._path}/export", json=body) as reply:
            reply.raise_for_status()
            return sum(1 for _ in reply.iter_lines())

    def remove(self) -> None:
        self._ask("DELETE", self._path.removesuffix("/documents"))

    def _ask(self, method: str, path: str, **given: Any) -> Any:
        reply = self._client.request(method, path, **given)
        if reply.is_error:
            raise SystemExit(f"{method} {path}: {reply.status_code} {reply.text}")
        return reply.json()


def main() -> None:
    arguments = _arguments()
    texts = texts_of(arguments.texts, arguments.count)
    documents = [{"id": str(n), "text": text, "metadata": {"n": n}} for n, text in enumerate(texts)]
    rows = []
    with (
        server(arguments.model) as (url, pid, _),
        httpx.Client(base_url=url, timeout=600, trust_env=False) as client,
    ):
        vectors = embedded(client, texts)
        model = client.get("/stats").json()["model"]
        for turn in range(arguments.turns):
            rows.append(measured(client, model, documents, vectors, turn, pid))
    found = machine.medians(rows, list(rows[0]), 4)
    machine.show({"case": "writes", "documents": arguments.count, **found}, arguments)


def measured(
    client: httpx.Client,
    model: str,
    documents: Sequence[Document],
    vectors: Sequence[list[float]],
    turn: int,
    pid: int,
) -> dict[str, float]:
    """Return the figures of one turn by way and kind."""
    packed = base64_rows(np.array(vectors, dtype=np.float32))
    floats = [each | {"vector": row} for each, row in zip(documents, vectors, strict=True)]
    texts = [each | {"vector": row} for each, row in zip(documents, packed, strict=True)]
    found: dict[str, float] = {}

    def measure(name: str, way: Way) -> None:
        usage.forget_peak(pid)
        memory, cpu, began = usage.resident_mb(pid), usage.cpu_s(pid), time.perf_counter()
        number = way()
        found[f"{name}_ms"] = 1000 * (time.perf_counter() - began) / number
        found[f"{name}_cpu_ms"] = 1000 * (usage.cpu_s(pid) - cpu) / number
        found[f"{name}_memory_mb"] = usage.peak_mb(pid) - memory

    for name, add, sent in (
        ("embedded", Client.add, documents),
        ("embedded_lines", Client.add_lines, documents),
        ("given_floats", Client.add, floats),
        ("given_base64", Client.add, texts),
        ("given_lines", Client.add_lines, texts),
    ):
        one = Client(client, "measured", model)
        measure(name, partial(add, one, sent, named=name.startswith("given")))
        if name == "given_lines":
            measure("change", partial(one.change, documents, turn))
            measure("get", partial(one.get, documents))
            measure("export", one.export)
        one.remove()
    return found


def embedded(client: httpx.Client, texts: Sequence[str]) -> list[list[float]]:
    """Return the vectors of the texts, as the model makes them."""
    found: list[list[float]] = []
    for begin in range(0, len(texts), PORTION):
        reply = client.post("/embed", json={"texts": texts[begin : begin + PORTION]})
        found += reply.raise_for_status().json()["vectors"]
    return found


def portions(documents: Sequence[Document]) -> Iterator[Sequence[Document]]:
    return (documents[begin : begin + PORTION] for begin in range(0, len(documents), PORTION))


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, turns=3)
    options.add_argument("--count", type=int, default=2000, help="documents of each turn")
    add_texts(options)
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
