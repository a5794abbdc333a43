"""What does each option of a search cost, in processor time of the thread that answers?

    python -m benchmarks.search_options [--documents 60000] [--dimension 512] [--repeat 15]

Documents of random words and random unit vectors go into a real collection in a scratch folder, with metadata.
Each option is then asked beside the plain search of its mode, in turns, within one run. One JSON line a case:
median ms of the thread's processor time, and how many times that of the plain search it is.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.arguments import parser
from server.store.collection import Collection
from server.store.folder import DataFolder
from server.store.records import Document, Info
from server.store.search import Query
from server.store.searching.answers import search
from server.store.searching.options import (
    PLAIN,
    Diversity,
    Grouping,
    Like,
    Options,
    Sorting,
    SortKey,
)
from server.system.output import until_reader_leaves
from server.types import unit

WORDS, LENGTH, AT_ONCE = 5_000, 60, 5_000
# Vectors near to one of so many centres, so that neighbours exist.
CENTRES = 200
YEAR = SortKey("year", True)
LIKE = Like(("7", "70"), ("700",))
CASES: Mapping[str, Options] = {
    "explain": Options(explain=True),
    "parts": Options(parts=3),
    "document": Options(document=True),
    "vectors": Options(vectors=True),
    "offset 990": Options(offset=990),
    "offset 9,990": Options(offset=9_990),
    "cursor at 50,000": Options(offset=50_000, look_ahead=True),
    "groups": Options(group=Grouping("kind", 3)),
    "sort of 100": Options(sort=Sorting((YEAR,), 100)),
    "sort of 1,000": Options(sort=Sorting((YEAR,), 1_000)),
    "diversity of 50": Options(diversity=Diversity(0.5, 50)),
    "diversity of 1,000": Options(diversity=Diversity(0.5, 1_000)),
    "facet of 8 values": Options(facets=("kind",)),
    "facet of every value": Options(facets=("number",)),
}
# Without a question.
OTHERS: Mapping[str, Options] = {
    "like": Options(like=LIKE),
    "list by a key": Options(sort=Sorting((YEAR,), 1)),
    "list by two keys": Options(sort=Sorting((SortKey("kind"), YEAR), 1)),
    "list by a key, offset 9,990": Options(sort=Sorting((YEAR,), 1), offset=9_990),
}


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as scratch:
        data = DataFolder(Path(scratch))
        collection = data.create(Info("options", "model", arguments.dimension, None))
        random = np.random.default_rng(0)
        _fill(collection, arguments.documents, random)
        queries = _queries(collection, arguments.dimension, random)
        for mode, query in queries.items():
            for name, options in CASES.items():
                rich = replace(query, options=options)
                _show(mode, name, _ratio(collection, query, rich, arguments.repeat), arguments)
        plain = queries["dense"]
        for name, options in OTHERS.items():
            rich = Query("dense", plain.top_k, options=options)
            _show("dense", name, _ratio(collection, plain, rich, arguments.repeat), arguments)
        data.close()


def _fill(collection: Collection, number: int, random: np.random.Generator) -> None:
    centres = _rows(CENTRES, collection.info.dimension, random)
    words = np.array([f"w{n}" for n in range(WORDS)])
    for begin in range(0, number, AT_ONCE):
        ids = range(begin, min(begin + AT_ONCE, number))
        texts = words[random.zipf(1.3, (len(ids), LENGTH)) % WORDS]
        documents = [
            Document(str(n), " ".join(row), metadata=_metadata(n))
            for n, row in zip(ids, texts, strict=True)
        ]
        near = centres[random.integers(CENTRES, size=len(ids))]
        collection.add(documents, unit(near + 0.7 * _rows(len(ids), near.shape[1], random)))
    collection.adopt(collection.index.compacted())


def _metadata(n: int) -> dict[str, Any]:
    return {"number": n, "kind": f"kind {n * 7919 % 8}", "year": 1990 + n * 31 % 36, "odd": n % 2}


def _rows(number: int, dimension: int, random: np.random.Generator) -> Any:
    return unit(random.standard_normal((number, dimension), dtype=np.float32))


def _queries(
    collection: Collection, dimension: int, random: np.random.Generator
) -> dict[str, Query]:
    vector = _rows(1, dimension, random)[0]
    return {
        "dense": Query("dense", 10, vector),
        "lexical": Query("lexical", 10, words="w40 w300 w2000"),
        "hybrid": Query("hybrid", 10, vector, "w40 w300 w2000"),
    }


def _ratio(
    collection: Collection, plain: Query, rich: Query, repeat: int
) -> tuple[float, float, float]:
    """Return median ms of the plain search and of the other, and the median of their ratios."""
    assert plain.options is PLAIN
    rows = []
    for _ in range(repeat + 1):
        rows.append([_spent(partial(search, collection, [query])) for query in (plain, rich)])
    # The first round fills caches.
    ratios = [other / first for first, other in rows[1:]]
    columns: Sequence[Sequence[float]] = list(zip(*rows[1:], strict=True))
    before, after = (1000 * statistics.median(column) for column in columns)
    return before, after, statistics.median(ratios)


def _spent(call: Callable[[], object]) -> float:
    started = time.thread_time()
    call()
    return time.thread_time() - started


def _show(
    mode: str, name: str, found: tuple[float, float, float], arguments: argparse.Namespace
) -> None:
    plain, rich, ratio = found
    line = {
        "case": "search options",
        "mode": mode,
        "option": name,
        "plain_cpu_ms": round(plain, 3),
        "cpu_ms": round(rich, 3),
        "times": round(ratio, 2),
    }
    machine.show(line, arguments)


def _arguments() -> argparse.Namespace:
    found = parser(__doc__, model=False)
    found.add_argument("--documents", type=int, default=60_000)
    found.add_argument("--dimension", type=int, default=512)
    found.add_argument("--repeat", type=int, default=15)
    return found.parse_args()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
