"""How well are documents found, by nDCG@10 and recall@100 of search by meaning, by words and by both?

    python -m benchmarks.retrieval --beir FOLDER [--weights 0.7 1 1.5] [--model ARTIFACT] [--float ARTIFACT]

FOLDER is in BEIR's layout: corpus.jsonl, queries.jsonl (or .gz; _id, title, text) and qrels.tsv
(query, document, score, with a heading). Documents go into a real collection in a scratch folder,
one vector per document, and queries through the code that answers POST /search. With --float, a line
shows the result without int8 and without an index: the float32 artifact's vectors, ranked exactly
with numpy. One JSON line per mode as soon as it is known, and one per weight of words in hybrid search
with --weights. `benchmarks.development` makes such folders.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.arguments import parser
from benchmarks.workloads import json_lines
from server.cli.evaluation import metrics as of_ranking
from server.collections.registry import CollectionRegistry
from server.config import Config
from server.inference.model import Model
from server.inference.registry import ModelRegistry
from server.store.folder import DataFolder
from server.store.records import Document
from server.store.search import Hit, Mode, Query
from server.system.output import until_reader_leaves
from server.telemetry.metrics import Metrics

MODES: tuple[Mode, ...] = ("dense", "lexical", "hybrid")
DEPTH, RECALLED = 10, 100
PORTION, SEARCHED = 1000, 16
Relevant = dict[str, dict[str, float]]
# Ids of documents, best first, by the id of the query.
Found = dict[str, list[str]]


def main() -> None:
    arguments = _arguments()
    corpus, queries, relevant = _read(arguments.beir)

    def show(mode: str, found: Found, artifact: Path = arguments.model) -> None:
        line = {
            "case": "retrieval",
            "data": arguments.beir.name,
            "mode": mode,
            "ndcg_at_10": ndcg(found, relevant),
            "recall_at_100": recall(found, relevant),
            "documents": len(corpus),
            "queries": len(queries),
        }
        machine.show(line, arguments, artifact)

    asyncio.run(searched(Model(arguments.model), corpus, queries, show, arguments.weights))
    if arguments.float:
        exact = _exact(Model(arguments.float), corpus, queries)
        show("float32, exact", exact, arguments.float)


async def searched(
    model: Model,
    corpus: Sequence[Document],
    queries: dict[str, str],
    show: Callable[[str, Found], None],
    weights: Sequence[float] = (),
) -> None:
    """Show for each mode every query's hundred best, as POST /search finds them.

    weights: of words, each for another hybrid search.
    """
    metrics, config = Metrics(), Config()
    models = ModelRegistry([model], config, metrics, asyncio.get_running_loop())
    with tempfile.TemporaryDirectory() as scratch:
        collections = CollectionRegistry(DataFolder(Path(scratch)), models, config, metrics)
        live = await collections.create("retrieval", None, models.default)
        await live.add(corpus)
        texts = list(queries.values())
        vectors = np.concatenate(
            [
                await live.vectors_of(texts[begin : begin + PORTION])
                for begin in range(0, len(texts), PORTION)
            ]
        )
        modes: dict[str, Query] = {mode: Query(mode, RECALLED) for mode in MODES}
        modes["hybrid, rrf"] = Query("hybrid", RECALLED, fusion="rrf")
        for weight in weights:
            modes[f"hybrid, 1 and {weight:g}"] = Query("hybrid", RECALLED, weights=(1.0, weight))
        for name, like in modes.items():
            asked = [
                replace(like, vector=vector, words=text)
                for text, vector in zip(texts, vectors, strict=True)
            ]
            hits = await in_portions(live.search, asked)
            show(name, {id: [hit.id for hit in row] for id, row in zip(queries, hits, strict=True)})
        await collections.close()
    models.close()


async def in_portions(
    search: Callable[[Sequence[Query]], Awaitable[list[list[Hit]]]], queries: Sequence[Query]
) -> list[list[Hit]]:
    """Return the hits of many queries, of which each search answers a few.

    A search may take `query_s`, which is too little for thousands of queries, or on a busy machine.
    """
    portions = range(0, len(queries), SEARCHED)
    return [row for at in portions for row in await search(queries[at : at + SEARCHED])]


def _exact(model: Model, corpus: Sequence[Document], queries: dict[str, str]) -> Found:
    def embed(texts: Sequence[str], kind: Any) -> Any:
        ids = model.tokenizer.encode(texts, kind).ids
        return np.concatenate([model.encoder.encode([row]) for row in ids])

    scores = (
        embed(list(queries.values()), "query")
        @ embed([document.text for document in corpus], "document").T
    )
    best = np.argsort(-scores, axis=1, kind="stable")[:, :RECALLED]
    return {id: [corpus[place].id for place in row] for id, row in zip(queries, best, strict=True)}


def ndcg(found: Found, relevant: Relevant) -> float:
    """Return the mean nDCG@10 x 100 over the queries that have a relevant document."""
    values = [of_ranking.ndcg(found[query], judged, DEPTH) for query, judged in relevant.items()]
    return round(float(np.mean(values)) * 100, 2)


def recall(found: Found, relevant: Relevant) -> float:
    """Return the mean part x 100 of relevant documents among the hundred best, of at most a hundred."""
    values = [
        len(judged.keys() & set(found[query][:RECALLED])) / min(len(judged), RECALLED)
        for query, judged in relevant.items()
    ]
    return round(float(np.mean(values)) * 100, 2)


def _read(folder: Path) -> tuple[list[Document], dict[str, str], Relevant]:
    corpus = [
        Document(row["_id"], row["text"], row.get("title") or None)
        for row in _lines(folder / "corpus.jsonl")
    ]
    queries = {row["_id"]: row["text"] for row in _lines(folder / "queries.jsonl")}
    relevant: Relevant = {}
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, score = line.split("\t")
        if float(score) > 0:
            relevant.setdefault(query, {})[document] = float(score)
    return corpus, queries, relevant


def _lines(path: Path) -> list[dict[str, Any]]:
    packed = path.with_name(path.name + ".gz")
    return list(json_lines(packed if packed.exists() else path))


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, float_model=True)
    options.add_argument("--beir", type=Path, required=True, help="folder in BEIR's layout")
    options.add_argument("--weights", type=float, nargs="*", default=[], help="of words, in hybrid")
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
