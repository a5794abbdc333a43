"""What a search with options must answer, found by a plain reading of all documents.

The scores of all documents are those of searches without options. Everything else follows from them by loops
and no cleverness.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from server.inference.model import Model
from server.store.passages.reading import readings
from server.store.records import Document as Stored
from server.store.records import Span
from tests.support.scorers import expected_scores
from tests.support.search_requests import FILTERS, Body, Document, listed


@dataclass
class Oracle:
    """One collection as plain searches show it."""

    client: httpx.AsyncClient
    path: str
    documents: Mapping[str, Document]
    scorer: Model
    vectors: dict[tuple[str, int], Any] = field(default_factory=dict)
    known: dict[str, list[Body]] = field(default_factory=dict)

    async def read(self) -> None:
        ids = list(self.documents)
        reply = await self.client.post(
            f"{self.path}/documents/get", json={"ids": ids, "include_vectors": True}
        )
        for each in reply.json()["documents"]:
            rows = each.get("vectors") or [each["vector"]]
            spans = each.get("parts") or [[0, len(each["text"])]]
            for (begin, _), row in zip(spans, rows, strict=True):
                vector = np.array(row)
                self.vectors[each["id"], begin] = vector / np.linalg.norm(vector)

    async def ranked(self, plain: Body) -> list[Body]:
        """Return every hit of a search without options."""
        key = repr(plain)
        if key not in self.known:
            self.known[key] = (await searched(self.client, self.path, plain | {"top_k": 1000}))[
                "hits"
            ]
        return self.known[key]


async def searched(client: httpx.AsyncClient, path: str, body: Body) -> Any:
    reply = await client.post(f"{path}/search", json=body)
    assert reply.status_code == 200, (body, reply.text)
    return reply.json()


def value_order(value: Any) -> tuple[int, Any]:
    return (
        (2, value)
        if isinstance(value, bool)
        else (1, value)
        if isinstance(value, str)
        else (0, value)
    )


def values_of(document: Document, key: str) -> list[Any]:
    value: Any = document["metadata"]
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return [each for each in listed(value) if each is not None and not isinstance(each, dict)]


def in_order(oracle: Oracle, hits: list[Body], keys: Sequence[Body]) -> list[Body]:
    for key in reversed(keys):
        is_descending = key.get("order") == "desc"
        valued, without = list[tuple[tuple[int, Any], Body]](), list[Body]()
        for hit in hits:
            if found := values_of(oracle.documents[hit["id"]], key["key"]):
                best = max if is_descending else min
                valued.append((best(map(value_order, found)), hit))
            else:
                without.append(hit)
        valued.sort(key=lambda each: each[0], reverse=is_descending)
        hits = [hit for _, hit in valued] + without
    return hits


def direction(oracle: Oracle, like: Body) -> Any:
    def mean(ids: Sequence[str]) -> Any:
        rows = []
        for id in ids:
            row = np.mean([v for (of, _), v in oracle.vectors.items() if of == id], axis=0)
            rows.append(row / np.linalg.norm(row))
        return np.mean(rows, axis=0)

    towards = mean(like["ids"])
    return 2 * towards - mean(like["unlike"]) if like["unlike"] else towards


def kept(oracle: Oracle, body: Body) -> dict[str, Document]:
    """Return the documents that the request's filter keeps."""
    keeps = next((keep for tree, keep in FILTERS if tree == body.get("filter")), lambda _: True)
    return {id: each for id, each in oracle.documents.items() if keeps(each)}


async def ranked(oracle: Oracle, body: Body, query: str | None) -> list[Body]:
    """Return every hit of the request's query that the filter and the least score keep, best first."""
    plain: Body = {
        name: body[name] for name in ("mode", "fusion", "weights", "vector") if name in body
    }
    if query is not None:
        plain["query"] = query
    if "like" in body:
        plain["vector"] = direction(oracle, body["like"]).tolist()
    if body.get("fusion") == "rrf" and "filter" in body:
        # Ranks are those within the filter.
        plain["filter"] = body["filter"]
    is_shared = "collections" in body and body["mode"] == "lexical"
    hits = await oracle.ranked(plain | ({"explain": True} if is_shared else {}))
    if is_shared:
        # BM25 of several collections is not on one scale.
        hits = [h | {"score": round(h["explanation"]["words"]["share"], 6)} for h in hits]
    among = kept(oracle, body)
    hits = [hit for hit in hits if hit["id"] in among]
    hits = [hit for hit in hits if hit["score"] >= body.get("min_score", -9e9)]
    if "like" in body:
        left_out = {*body["like"]["ids"], *body["like"]["unlike"]}
        hits = [hit for hit in hits if hit["id"] not in left_out]
    return hits


def grouped(
    oracle: Oracle, hits: list[Body], group: Body, number: int
) -> list[tuple[Any, list[str]]]:
    found: list[tuple[Any, list[str]]] = []
    for hit in hits:
        for value in values_of(oracle.documents[hit["id"]], group["key"]) or [None]:
            mine = [
                g for g in found if g[0] == value and (type(g[0]) is bool) == (type(value) is bool)
            ]
            if not mine and len(found) < number:
                mine = [(value, [])]
                found += mine
            if mine and len(mine[0][1]) < group["hits"]:
                mine[0][1].append(hit["id"])
    return found


def counted(found: Sequence[Document], key: str) -> dict[tuple[bool, Any], int]:
    counts: dict[tuple[bool, Any], int] = {}
    for document in found:
        for value in {(type(each) is bool, each) for each in values_of(document, key)}:
            counts[value] = counts.get(value, 0) + 1
    return counts


def relevance(oracle: Oracle, query: str, hit: Body) -> float:
    """Return what the reranker makes of a hit: it reads what was embedded."""
    of = oracle.documents[hit["id"]]
    span = Span(hit["part"]["begin"], hit["part"]["end"])
    (read,) = readings(Stored(of["id"], of["text"], of["title"]), [span])
    ids = oracle.scorer.tokenizer.encode_pairs([(query, read)]).ids
    return float(1 / (1 + np.exp(-expected_scores(list(ids))[0, 0])))


async def filled(
    client: httpx.AsyncClient, name: str, found: Sequence[Document], chunks: Any, scorer: Model
) -> Oracle:
    made = await client.post("/collections", json={"name": name, "chunks": chunks})
    assert made.status_code == 201, made.text
    path = f"/collections/{name}"
    # Some are written twice and some removed: labels have gaps.
    first = {"documents": [*found[::3], {"id": "gone", "text": "天气 search"}]}
    assert (await client.post(f"{path}/documents", json=first)).status_code == 200
    assert (await client.delete(f"{path}/documents/gone")).status_code == 200
    changed = [each | {"text": "旧 " + each["text"]} for each in found]
    for some in (changed, found):
        reply = await client.post(f"{path}/documents", json={"documents": some})
        assert reply.status_code == 200, reply.text
    oracle = Oracle(client, path, {each["id"]: each for each in found}, scorer)
    await oracle.read()
    return oracle
