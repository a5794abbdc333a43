"""How much disk does a document take, table by table?

    python -m benchmarks.disk [--texts FILE] [--count 20000] [--dimension 512]

Stores texts with random vectors, which compress as badly as a model's, so no model is needed; arranges
the index, shortens the log and closes the collection as the server does. Prints one JSON line: bytes a
document of every table and of the files, and of the texts themselves. FILE: JSON lines with "text", also
.gz, or a JSON list; without it, texts with the lengths of law articles.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from benchmarks import machine
from benchmarks.arguments import parser
from benchmarks.ingest import add_texts, texts_of
from server.store.collection import DATABASE_FILE, SNAPSHOT_FILE, Collection
from server.store.documents import Documents
from server.store.local_index.index import LocalIndex
from server.store.records import Document, Info
from server.system.output import until_reader_leaves
from server.types import Vectors

AT_ONCE = 1000
TABLES = "SELECT name, sum(pgsize) FROM dbstat GROUP BY name ORDER BY 2 DESC"


def main() -> None:
    arguments = _arguments()
    texts = texts_of(arguments.texts, arguments.count)
    with tempfile.TemporaryDirectory() as scratch:
        line = _measured(Path(scratch), texts, arguments.dimension)
    machine.show({"case": "disk", **line}, arguments)


def _measured(home: Path, texts: Sequence[str], dimension: int) -> machine.Line:
    Documents(home / DATABASE_FILE, Info("disk", "random", dimension)).close()
    random = np.random.default_rng(0)
    with closing(Collection(home, LocalIndex)) as collection:
        begun = time.thread_time()
        for start in range(0, len(texts), AT_ONCE):
            some = texts[start : start + AT_ONCE]
            documents = [Document(str(start + n), text) for n, text in enumerate(some)]
            collection.add(documents, _vectors(random, len(some), dimension))
        stored_s = time.thread_time() - begun
        collection.adopt(collection.index.compacted())
        collection.documents.database.shorten_log()
        tables = collection.documents.database.rows(TABLES)
    n = len(texts)
    database, snapshot = ((home / name).stat().st_size for name in (DATABASE_FILE, SNAPSHOT_FILE))
    return {
        "documents": n,
        "dimension": dimension,
        "text_bytes": round(sum(len(text.encode()) for text in texts) / n),
        "database_bytes": round(database / n),
        "index_bytes": round(snapshot / n),
        "bytes_per_document": round((database + snapshot) / n),
        "stored_ms_each": round(1000 * stored_s / n, 3),
        "tables": {name: round(size / n) for name, size in tables if size >= n},
    }


def _vectors(random: np.random.Generator, count: int, dimension: int) -> Vectors:
    return random.standard_normal((count, dimension), dtype=np.float32)


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, model=False)
    add_texts(options)
    options.add_argument("--count", type=int, default=20_000, help="documents")
    options.add_argument("--dimension", type=int, default=512, help="numbers of a vector")
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
