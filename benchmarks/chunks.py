"""How well are passages of long documents found, by how the documents are cut?

    python -m benchmarks.chunks --laws FILE [--sizes 128,510] [--statutes 60] [--model ARTIFACT]

FILE has articles of laws, one JSON object with title and text a line (or .gz). The articles of each title are
joined to a statute, a line each. Questions: a clause of an article, of which every third pair of characters
is missing, and the statute's name with the number of an article. The answer is the article. A second set is
this project's own manual in docs/en: a question is a heading, and the answer the section below it.

Each document is cut into windows of so many tokens, after sentences alone, and by its outline. The chunks go
into a real collection and are searched by meaning, by words and by both. nDCG@10 counts how early the hits
hold the answer: a hit gains the share of the answer's characters that no hit before it had. One JSON line for
each set, size, way of cutting and mode; then one for the time of cutting a megabyte, without its tokens.
"""

import argparse
import asyncio
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.arguments import parser
from benchmarks.retrieval import in_portions
from benchmarks.workloads import json_lines
from server.collections.chunk_embedding import embed
from server.collections.chunking import Cut, cut, default_overlap
from server.collections.cutting.counting import Count
from server.collections.registry import CollectionRegistry
from server.config import Config
from server.inference.model import Model
from server.inference.registry import ModelRegistry
from server.store.folder import DataFolder
from server.store.passages.outline import Outline
from server.store.passages.reading import read_as
from server.store.records import ChunkRules, Document, Span
from server.store.search import Mode, Query
from server.system.output import until_reader_leaves
from server.telemetry.metrics import Metrics

MODES: tuple[Mode, ...] = ("dense", "lexical", "hybrid")
DEPTH, PORTION, SEED = 10, 1000, 19
DOCS = Path(__file__).parent.parent / "docs"
# Articles of a statute that is used, and questions of each kind.
FEWEST, MOST, QUESTIONS = 20, 150, 400
ARTICLE = re.compile(r"第.{1,9}?条")
# Megabytes whose cutting is timed.
TIMED = 4


@dataclass(frozen=True)
class Question:
    """A question, and the characters of a document that answer it."""

    text: str
    document: int
    answer: Span


@dataclass(frozen=True)
class Chunked:
    """A chunk as it is stored for the test. context: what is read before it."""

    document: int
    span: Span
    context: str


Sets = Mapping[str, tuple[list[Document], list[Question]]]


def main() -> None:
    arguments = _arguments()
    model = Model(arguments.model)
    chance = random.Random(SEED)
    statutes, clauses, numbers = _laws(arguments.laws, arguments.statutes, chance)
    manual, headings = _manual()
    sets: Sets = {
        "laws, clauses": (statutes, clauses),
        "laws, numbers": (statutes, numbers),
        "manual": (manual, headings),
    }

    def show(line: dict[str, Any]) -> None:
        machine.show({"case": "chunks", **line}, arguments)

    asyncio.run(_measure(model, sets, arguments.sizes, show))
    for line in _timed(statutes, manual):
        machine.show({"case": "chunks, time", **line}, arguments)


async def _measure(
    model: Model, sets: Sets, sizes: Sequence[int], show: Callable[[dict[str, Any]], None]
) -> None:
    metrics, config = Metrics(), Config()
    models = ModelRegistry([model], config, metrics, asyncio.get_running_loop())
    engine, number = models.default, 0
    with tempfile.TemporaryDirectory() as scratch:
        registry = CollectionRegistry(DataFolder(Path(scratch)), models, config, metrics)
        for size in sizes:
            vectors: dict[str, np.ndarray[Any, Any]] = {}
            for name, (documents, questions) in sets.items():
                for way, chunks in _ways(documents, size, engine.count_tokens).items():
                    key = f"{len(documents)} {way}"
                    if key not in vectors:
                        texts = [_read(documents, each) for each in chunks]
                        vectors[key] = await embed(texts, engine)
                    for words in (
                        ("chunk", "context") if any(c.context for c in chunks) else ("chunk",)
                    ):
                        stored = [_stored(documents, n, c, words) for n, c in enumerate(chunks)]
                        number += 1
                        live = await registry.create(f"c{number}", None, engine)
                        await live.add_with_vectors(stored, vectors[key])
                        asked = [question.text for question in questions]
                        asked_vectors = np.concatenate(
                            [
                                await live.vectors_of(asked[at : at + PORTION])
                                for at in range(0, len(asked), PORTION)
                            ]
                        )
                        facts: dict[str, Any] = {"set": name, "size": size, "way": way}
                        facts |= {"words": words, "chunks": len(chunks), "questions": len(asked)}
                        for mode in MODES:
                            pairs = zip(asked, asked_vectors, strict=True)
                            queries = [Query(mode, DEPTH, v, t) for t, v in pairs]
                            rows = await in_portions(live.search, queries)
                            facts[f"ndcg_at_10_{mode}"] = round(
                                100
                                * mean(
                                    _gain(question, [chunks[int(hit.id)] for hit in row])
                                    for question, row in zip(questions, rows, strict=True)
                                ),
                                2,
                            )
                        show(facts)
        await registry.close()
    models.close()


def _ways(documents: Sequence[Document], size: int, count: Count) -> dict[str, list[Chunked]]:
    """Return the chunks of documents, by the way of cutting them."""
    found: dict[str, list[Chunked]] = {"windows": [], "sentences": [], "outline": []}
    for number, document in enumerate(documents):
        room = max(size - count([document.title or ""])[0], size // 2)
        rules = ChunkRules(room, default_overlap(size))
        text = document.text
        cuts = {
            "windows": _windows(text, rules, count),
            "sentences": cut(text, rules, count, document.title, Outline(text)),
            "outline": cut(text, rules, count, document.title),
        }
        for way, (spans, contexts, _) in cuts.items():
            found[way] += map(Chunked, [number] * len(spans), spans, contexts)
    return found


def _windows(text: str, rules: ChunkRules, count: Count) -> Cut:
    """Return windows of the same number of tokens, wherever words and sentences end."""
    found, begin = Cut([], []), 0
    while begin < len(text):
        low, high = begin + 1, min(len(text), begin + 6 * rules.size)
        while low < high:
            middle = (low + high + 1) // 2
            fits = count([text[begin:middle]])[0] <= rules.size
            low, high = (middle, high) if fits else (low, middle - 1)
        found.spans.append(Span(begin, low))
        found.contexts.append("")
        share = rules.overlap / rules.size
        begin = low if low == len(text) else max(begin + 1, low - int(share * (low - begin)))
    return found


def _read(documents: Sequence[Document], chunk: Chunked) -> str:
    document = documents[chunk.document]
    return read_as(document.title, chunk.context, document.text[slice(*chunk.span)])


def _stored(documents: Sequence[Document], number: int, chunk: Chunked, words: str) -> Document:
    document = documents[chunk.document]
    context = chunk.context if words == "context" else ""
    return replace(document, id=str(number), text=context + document.text[slice(*chunk.span)])


def _gain(question: Question, hits: Sequence[Chunked]) -> float:
    """Return the discounted sum of the shares of the answer that each hit adds; 1 at best."""
    begin, end = question.answer
    missing = np.ones(end - begin, dtype=bool)
    total = 0.0
    for rank, hit in enumerate(hits):
        if hit.document == question.document:
            first, last = max(hit.span.begin, begin) - begin, min(hit.span.end, end) - begin
            if last > first:
                total += missing[first:last].sum() / len(missing) / np.log2(rank + 2)
                missing[first:last] = False
    return float(total)


# --- sets ---------------------------------------------------------------------------------------------


def _laws(
    path: Path, number: int, chance: random.Random
) -> tuple[list[Document], list[Question], list[Question]]:
    """Return statutes, and questions by clauses and by numbers of articles."""
    articles: dict[str, list[str]] = {}
    for row in json_lines(path):
        articles.setdefault(row["title"], []).append(row["text"])
    usable = [
        (title, texts)
        for title, texts in articles.items()
        if FEWEST <= len(texts) <= MOST
        and sum(ARTICLE.match(text) is not None for text in texts) > 0.9 * len(texts)
    ]
    statutes, clauses, numbers = list[Document](), list[Question](), list[Question]()
    for title, texts in chance.sample(usable, min(number, len(usable))):
        begin = 0
        for text in texts:
            answer = Span(begin, begin + len(text))
            begin += len(text) + 1
            if (mark := ARTICLE.match(text)) is None:
                continue
            place = len(statutes)
            numbers.append(Question(f"{title}{mark.group()}", place, answer))
            parts = [
                part for part in re.split("[，。；：、]", text[mark.end() :]) if len(part) >= 12
            ]
            if parts:
                clauses.append(Question(_masked(chance.choice(parts).strip()), place, answer))
        statutes.append(Document(title, "\n".join(texts), title))
    some = [chance.sample(each, min(QUESTIONS, len(each))) for each in (clauses, numbers)]
    return statutes, some[0], some[1]


def _masked(clause: str) -> str:
    """Return a clause without every third pair of characters."""
    return "".join(clause[at : at + 4] for at in range(0, len(clause), 6))


def _manual() -> tuple[list[Document], list[Question]]:
    """Return the pages of this project's manual, and its headings with their sections."""
    pages, questions = list[Document](), list[Question]()
    for path in sorted((DOCS / "en").rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        marks = list(_headings(text))
        if not marks:
            continue
        title = marks[0].group(2)
        ends = [*(mark.start() for mark in marks[1:]), len(text)]
        for mark, end in zip(marks[1:], ends[1:], strict=True):
            if end - mark.end() > 200:
                asked = f"{title} {mark.group(2).strip('`')}"
                questions.append(Question(asked, len(pages), Span(mark.end() + 1, end)))
        pages.append(Document(str(path.relative_to(DOCS)), text, title))
    return pages, questions


def _headings(text: str) -> Iterator[re.Match[str]]:
    fenced = False
    for line in re.finditer(r"^(#{1,6})[ \t]+(.+)$|^```", text, re.MULTILINE):
        if line.group(1) is None:
            fenced = not fenced
        elif not fenced:
            yield line


# --- time ---------------------------------------------------------------------------------------------


def _timed(*sets: Sequence[Document]) -> Iterator[dict[str, Any]]:
    """Yield the CPU seconds of cutting a megabyte of characters; counting characters costs nearly nothing."""

    def characters(texts: Sequence[str]) -> list[int]:
        return list(map(len, texts))

    for name, documents in zip(("laws", "manual"), sets, strict=True):
        whole = "\n\n".join(document.text for document in documents)
        text = (whole * (1 + TIMED * 1_000_000 // len(whole)))[: TIMED * 1_000_000]
        rules = ChunkRules(700, 60)
        for way, outline in (("sentences", Outline(text)), ("outline", None)):
            before = time.thread_time()
            spans, *_ = cut(text, rules, characters, None, outline)
            seconds = (time.thread_time() - before) / TIMED
            yield {"set": name, "way": way, "cpu_s_per_mb": round(seconds, 3), "chunks": len(spans)}


def _arguments() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--laws", type=Path, required=True, help="articles of laws, JSON lines")
    options.add_argument("--statutes", type=int, default=60, help="how many")
    options.add_argument(
        "--sizes", type=lambda text: [int(each) for each in text.split(",")], default=[128, 510]
    )
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
