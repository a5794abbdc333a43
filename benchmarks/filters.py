"""What does a filter cost, by the share of the documents that it keeps?

    python -m benchmarks.filters [--texts FILE.jsonl] [--sizes 20000,120000] [--number 60] [--kept FOLDER]

Collections of these sizes on the disk, searched by one thread: by meaning, by words, and by both, without a
filter and with filters that keep all, half, a twentieth and a thousandth of the documents. `ms` is the
processor time of the search's thread (the median), and `ratio` is that over the time without a filter. "before"
is the same search with its filter evaluated by SQLite, as it was before columns were kept in memory; both take
turns within one run, of large collections for the first questions only. Then the seconds and the bytes of
reading the columns again at start, by key. Vectors are generated in clusters; texts are read from the file,
one JSON object with "text" a line (or .gz), or generated, and further ones are joined from halves of two. One JSON
line per case. A million documents are built in about eight minutes and take 3.5 GB; --kept keeps the
collections in a folder, and uses those that are there.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks import machine, workloads
from benchmarks.arguments import parser
from benchmarks.index_vectors import D, read
from server.store.collection import Collection
from server.store.filters.tree import Filter, parse
from server.store.folder import DataFolder
from server.store.local_index.index import LocalIndex
from server.store.records import Document, Info
from server.store.search import Mode, Query, search
from server.store.selection import Selection
from server.system.output import until_reader_leaves
from server.types import Vectors

BATCH, TEXTS = 1000, 60_000
# A file beside a whole collection.
DONE = "done"
PARTS = 1000
# Questions that SQLite answers too: as many as for a collection of BEFORE documents, but at least some.
BEFORE, LEAST_BEFORE = 120_000, 5
# Parts of PARTS that a filter keeps.
SHARES: Mapping[str, int] = {"100 %": 1000, "50 %": 500, "5 %": 50, "0.1 %": 1}
MODES: tuple[Mode, ...] = ("dense", "lexical", "hybrid")
KEYS = ("part", "kind", "day", "tags", "url")


def main() -> None:
    arguments = _arguments()
    texts = _texts(arguments.texts)
    questions = _questions(texts, arguments.number)
    for size in arguments.sizes:
        with ExitStack() as stack:
            home = arguments.kept and arguments.kept / f"{size}"
            if home is None:
                scratch = tempfile.TemporaryDirectory(dir=arguments.scratch)
                home = Path(stack.enter_context(scratch))
            if not (home / DONE).exists():
                _build(home, texts, size)
            for line in _lines(home, questions):
                machine.show({"documents": size, **line}, arguments)


def _build(home: Path, texts: Sequence[str], size: int) -> None:
    if home.exists() and any(home.iterdir()):
        sys.exit(
            f"{home} has no whole collection of this benchmark; delete it, or choose another folder"
        )
    home.mkdir(parents=True, exist_ok=True)
    with closing(DataFolder(home)) as folder:
        _fill(folder.create(Info("x", "f", D)), texts, size)
    (home / DONE).touch()


def _lines(home: Path, questions: Sequence[tuple[str, Vectors]]) -> Iterator[dict[str, Any]]:
    with closing(DataFolder(home)) as folder:
        collection = folder.collections["x"]
        yield from _start(collection)
        for mode in MODES:
            yield from _shares(collection, mode, questions)


def _start(collection: Collection) -> Iterator[dict[str, Any]]:
    """Yield what it costs to read the columns, each with the first filter on its key."""
    held = 0
    for key in KEYS:
        with collection.reading():
            began = time.thread_time()
            collection.selection(parse({key: {"$exists": True}}))
            seconds = time.thread_time() - began
        total = collection.column_bytes
        yield {
            "case": "column read at start",
            "key": key,
            "cpu_s": round(seconds, 3),
            "bytes": total - held,
            "bytes_in_all": total,
        }
        held = total


def _shares(
    collection: Collection, mode: Mode, questions: Sequence[tuple[str, Vectors]]
) -> Iterator[dict[str, Any]]:
    filters = {share: parse({"part": {"$lt": number}}) for share, number in SHARES.items()}
    plain: list[float] = []
    after: dict[str, list[float]] = {share: [] for share in filters}
    before: dict[str, list[float]] = {share: [] for share in filters}
    number = max(LEAST_BEFORE, len(questions) * BEFORE // max(BEFORE, collection.count))
    for place, (words, vector) in enumerate(questions):

        def timed(filter: Filter | None, words: str = words, vector: Vectors = vector) -> float:
            query = Query(mode, 10, vector, words, filter=filter)
            began = time.thread_time()
            search(collection, [query])
            return 1000 * (time.thread_time() - began)

        # Once before, so that the hits of each are in the cache: reading them costs the same with any filter.
        timed(None)
        for filter in filters.values():
            timed(filter)
        plain.append(timed(None))
        for share, filter in filters.items():
            after[share].append(timed(filter))
        if place >= number:
            continue
        with by_sqlite():
            for share, filter in filters.items():
                before[share].append(timed(filter))
    alone = float(np.median(plain))
    yield {"case": "search", "mode": mode, "share": None, "ms": round(alone, 2)}
    for share in filters:
        ms, was = float(np.median(after[share])), float(np.median(before[share]))
        yield {
            "case": "search",
            "mode": mode,
            "share": share,
            "ms": round(ms, 2),
            "p95_ms": round(float(np.quantile(after[share], 0.95)), 2),
            "ratio": round(ms / alone, 2),
            "before_ms": round(was, 2),
            "before_ratio": round(was / alone, 2),
        }


def by_sqlite() -> ExitStack:
    """Evaluate filters in SQL inside the block, and give the labels as a list."""

    def selection(collection: Collection, filter: Filter) -> Selection:
        return Selection.of_labels(collection.documents.labels(filter))

    def dense(_: Selection) -> None:
        return None

    stack = ExitStack()
    stack.enter_context(patch.object(Collection, "selection", selection))
    stack.enter_context(patch.object(Selection, "dense", dense))
    return stack


def _fill(collection: Collection, texts: Sequence[str], size: int) -> None:
    for begin in range(0, size, BATCH):
        numbers = range(begin, min(begin + BATCH, size))
        documents = [
            Document(f"{number}", _text(texts, number), None, _metadata(number))
            for number in numbers
        ]
        collection.add(documents, read(None, len(documents), begin))
        if collection.index.compaction_due:
            collection.adopt(collection.index.compacted())
    collection.adopt(collection.index.compacted())
    assert isinstance(collection.index, LocalIndex)


def _text(texts: Sequence[str], number: int) -> str:
    """Return a text, or behind the last one the halves of two."""
    if number < len(texts):
        return texts[number]
    random = np.random.default_rng((number, len(texts)))
    first, second = (texts[place] for place in random.integers(len(texts), size=2).tolist())
    return f"{first[: len(first) // 2]}{second[len(second) // 2 :]}"


def _metadata(number: int) -> dict[str, object]:
    random = np.random.default_rng(number)
    return {
        "part": int(random.integers(PARTS)),
        "kind": f"kind {random.integers(20)}",
        "day": f"20{random.integers(10, 26)}-{random.integers(1, 13):02}-{random.integers(1, 29):02}",
        "tags": [f"tag {each}" for each in random.integers(100, size=3)],
        "url": f"https://example.org/documents/{number}",
    }


def _texts(path: Path | None) -> list[str]:
    if path is None:
        return workloads.generate("laws", TEXTS)
    return [row["text"] for row in workloads.json_lines(path)]


def _questions(texts: Sequence[str], number: int) -> list[tuple[str, Vectors]]:
    """Return clauses of texts, each with a vector."""
    random = np.random.default_rng(7)
    chosen = random.choice(len(texts), number, replace=False)
    rows = read(None, number, 1)
    words = []
    for place in chosen:
        begin = int(random.integers(max(1, len(texts[place]) - 30)))
        words.append(texts[place][begin : begin + 20])
    return list(zip(words, rows, strict=True))


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, model=False)
    options.add_argument("--texts", type=Path, help='JSON lines with "text"')
    options.add_argument("--scratch", type=Path, help="folder for the collections")
    options.add_argument("--kept", type=Path, help="folder that keeps collections of these texts")
    options.add_argument("--number", type=int, default=60, help="questions a case")
    options.add_argument(
        "--sizes",
        type=lambda text: [int(each) for each in text.split(",")],
        default=[20_000, 120_000],
        help="documents of the collections, with commas between",
    )
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
