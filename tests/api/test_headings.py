"""Headings above hits: shown where they are asked for, and read by the reranker as they were embedded."""

from typing import Any

import httpx
import numpy as np
import pytest

from server.inference.model import Model
from server.store.passages.reading import readings
from server.store.records import Document, Span
from tests.support.clients import run
from tests.support.scorers import expected_scores

TITLE = "墨池"
TEXT = (
    "# 墨池\n\n风花雪月。\n\n## 天\n\n天气晴。天气雨。\n\n### 地\n\n笔纸砚书。笔纸。\n\n## 日\n\n"
    + "| 鸟 | 鱼 |\n|---|---|\n"
    + ("| 月 | 虫 |\n" * 8)
)
PATHS = {"天气": ["天"], "笔纸": ["天", "地"], "|": ["日"]}


async def filled(client: httpx.AsyncClient) -> None:
    chunks = {"size": 12, "overlap": 0}
    await client.post("/collections", json={"name": "default", "chunks": chunks})
    documents = [
        {"id": "long", "text": TEXT, "title": TITLE, "metadata": {"kind": "x"}},
        {"id": "short", "text": "天气"},
    ]
    reply = await client.post("/documents", json={"documents": documents})
    assert reply.status_code == 200, reply.text


async def searched(client: httpx.AsyncClient, **body: Any) -> Any:
    reply = await client.post("/search", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def expected(begin: int, text: str) -> list[str]:
    # A chunk begins at its own heading, which is part of its text, or below it.
    below = [path for word, path in PATHS.items() if word in text]
    path = below[0] if begin and below else []
    return path[:-1] if text.startswith("#") else path


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_hits_and_parts_tell_the_headings_above_them(toy_model: Model, mode: str) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await filled(client)
        for query in ("天气", "笔纸", "月 虫", "墨池"):
            body: dict[str, Any] = {"query": query, "mode": mode, "parts": 20}
            plain = await searched(client, **body)
            assert "headings" not in str(plain)
            shown = (await searched(client, **body, include_headings=True))["hits"]
            assert shown
            for hit in shown:
                begin = hit["part"]["begin"]
                assert hit["headings"] == expected(begin, hit["text"]), hit
                for part in hit["parts"]:
                    assert part["headings"] == expected(part["begin"], part["text"]), part
        seen = {tuple(part["headings"]) for hit in shown for part in hit["parts"]}
        if mode == "dense":
            assert seen >= {(), ("天",), ("日",)}
        groups = await searched(
            client, query="天气", include_headings=True, group_by={"key": "kind"}
        )
        assert all("headings" in hit for group in groups["groups"] for hit in group["hits"])
        listed = await searched(client, sort={"by": [{"key": "kind"}]}, include_headings=True)
        assert [hit["headings"] for hit in listed["hits"]] == [[], []]
        several = await searched(
            client, query="笔纸", include_headings=True, collections=["default"]
        )
        assert all("headings" in hit for hit in several["hits"])

    run(test, toy_model)


def test_a_reranker_reads_what_was_embedded(toy_model: Model, toy_scorer: Model) -> None:
    document = Document("long", TEXT, TITLE)

    async def test(client: httpx.AsyncClient) -> None:
        await filled(client)
        for query in ("天气", "笔纸", "月 虫"):
            hits = (await searched(client, query=query, mode="lexical", rerank={}))["hits"]
            (hit,) = [each for each in hits if each["id"] == "long"]
            assert "headings" not in hit
            span = Span(hit["part"]["begin"], hit["part"]["end"])
            (read,) = readings(document, [span])
            assert read.startswith(f"{TITLE}\n")
            assert read != f"{TITLE}\n{hit['text']}" or hit["text"].startswith("#")
            ids = toy_scorer.tokenizer.encode_pairs([(query, read)]).ids
            relevance = 1 / (1 + np.exp(-expected_scores(list(ids))[0, 0]))
            assert hit["rerank_score"] == pytest.approx(float(relevance), abs=1e-6)

    run(test, toy_model, others=[toy_scorer])
