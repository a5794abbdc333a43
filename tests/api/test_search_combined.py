"""Every option of a search together with every other, compared with a plain reading of all documents."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import numpy as np
import pytest

from server.inference.model import Model
from tests.support.clients import run
from tests.support.search_oracle import (
    Oracle,
    counted,
    filled,
    grouped,
    in_order,
    kept,
    ranked,
    relevance,
    searched,
    values_of,
)
from tests.support.search_requests import Body, documents, refusal, some_request

# A seed, None for any, and how many requests.
RUNS = [(0, 40), pytest.param((None, 2_000), marks=[pytest.mark.slow, pytest.mark.fuzz])]


def seeded(run_of: tuple[int | None, int]) -> tuple[int, int]:
    seed, number = run_of
    return (random.randrange(1 << 30) if seed is None else seed), number


def check_diverse(oracle: Oracle, body: Body, hits: list[Body], got: list[Body]) -> None:
    """Check that each hit was the best choice, but for rounding."""
    candidates = hits[: body["diversity"]["candidates"]]
    weight = body["diversity"]["lambda"]
    scale = 1.0
    if body["mode"] == "lexical" or body.get("fusion") == "rrf":
        scale = max([hit["score"] for hit in candidates] + [1e-9])
    free = {hit["id"]: hit for hit in candidates}
    chosen: list[Body] = []

    def vector(hit: Body) -> Any:
        return oracle.vectors[hit["id"], hit["part"]["begin"]]

    # From the first hit on, also of those that the offset leaves out: they are chosen again here.
    wanted = [hit["id"] for hit in got]
    for place in range(min(body.get("offset", 0) + body["top_k"], len(candidates))):
        worth = {
            id: hit["score"] / scale
            if not chosen
            else weight * hit["score"] / scale
            - (1 - weight) * max(float(vector(hit) @ vector(other)) for other in chosen)
            for id, hit in free.items()
        }
        best = max(worth.values())
        at = place - body.get("offset", 0)
        pick = max(free, key=lambda id: worth[id])
        if at >= 0:
            assert at < len(wanted), (wanted, len(candidates))
            assert worth[wanted[at]] >= best - 1e-5, (at, wanted, worth)
            pick = wanted[at]
        chosen.append(free.pop(pick))
    assert len(wanted) == max(0, len(chosen) - body.get("offset", 0))


async def check_facets(oracle: Oracle, body: Body, query: str | None, facets: list[Body]) -> None:
    if body["mode"] == "lexical" or (
        body["mode"] == "hybrid" and query and set(query) & {'"', "-"}
    ):
        loose = {name: value for name, value in body.items() if name not in ("min_score", "like")}
        ids = {hit["id"] for hit in await ranked(oracle, loose, query)}
    else:
        ids = set(oracle.documents)
    among = [each for id, each in kept(oracle, body).items() if id in ids]
    assert [facet["key"] for facet in facets] == body["facets"]
    for facet in facets:
        expected = counted(among, facet["key"])
        got = {
            (type(each["value"]) is bool, each["value"]): each["documents"]
            for each in facet["values"]
        }
        assert got == expected, (got, expected)
        numbers = [each["documents"] for each in facet["values"]]
        assert numbers == sorted(numbers, reverse=True) and facet["complete"]
        assert facet["documents"] == sum(bool(values_of(each, facet["key"])) for each in among)


def same(got: Sequence[Body], expected: Sequence[Body]) -> None:
    """Check ids and scores; hits whose scores differ by rounding alone may have changed places."""
    assert len(got) == len(expected), ([h["id"] for h in got], [h["id"] for h in expected])
    scores = {hit["id"]: hit["score"] for hit in expected}
    for one, other in zip(got, expected, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=2e-6)
        if one["id"] != other["id"] and one["id"] in scores:
            assert scores[one["id"]] == pytest.approx(other["score"], abs=2e-6)


async def check_hit(oracle: Oracle, body: Body, query: str | None, hit: Body) -> None:
    """Check what a hit says beside its place."""
    document = oracle.documents[hit["id"]]
    assert (hit["title"], hit["metadata"]) == (document["title"], document["metadata"])
    begin, end = hit["part"]["begin"], hit["part"]["end"]
    assert document["text"][begin:end] == hit["text"]
    for name, option in (
        ("highlights", "highlight" if query is not None else ""),
        ("explanation", "explain"),
        ("parts", "parts"),
        ("document", "include_document"),
        ("vector", "include_vectors"),
        ("headings", "include_headings"),
        ("rerank_score", "rerank"),
    ):
        assert (name in hit) == (option in body), name
    if "document" in hit:
        assert hit["document"] == document["text"]
    if "vector" in hit:
        row = np.array(hit["vector"])
        assert row / np.linalg.norm(row) == pytest.approx(
            oracle.vectors[hit["id"], begin], abs=1e-6
        )
    if "explanation" in hit:
        check_explanation(body, hit)
    if "parts" in hit:
        first = hit["parts"][0]
        assert first["score"] == pytest.approx(hit["score"], abs=2e-6), hit
        if len(hit["parts"]) == 1 or hit["parts"][1]["score"] < first["score"] - 2e-6:
            assert (first["begin"], first["end"], first["text"]) == (begin, end, hit["text"]), hit
        scores = [part["score"] for part in hit["parts"]]
        assert scores == sorted(scores, reverse=True) and len(scores) <= body["parts"]
        for part in hit["parts"]:
            assert document["text"][part["begin"] : part["end"]] == part["text"]
            assert ("headings" in part) == ("include_headings" in body)


def check_explanation(body: Body, hit: Body) -> None:
    said, mode = hit["explanation"], body["mode"]
    assert (said["cosine"] is None) == (mode == "lexical")
    assert (said["words"] is None) == (mode == "dense")
    if mode == "dense":
        assert said["cosine"] == pytest.approx(hit["score"], abs=2e-6)
    elif mode == "lexical":
        of = "share" if "collections" in body else "bm25"
        assert said["words"][of] == pytest.approx(hit["score"], abs=2e-6)
    else:
        weights = {"dense": 1.0, "lexical": 1.0} | body.get("weights", {})
        assert said["fusion"]["weights"] == weights
        if said["fusion"]["kind"] == "blend":
            halves = weights["dense"] * said["cosine"] + weights["lexical"] * said["words"]["share"]
            expected = halves / sum(weights.values())
        else:
            ranks = said["fusion"]["ranks"]
            expected = sum(weights[name] / (10 + rank) for name, rank in ranks.items() if rank)
        assert hit["score"] == pytest.approx(expected, abs=2e-6), hit


async def check(oracle: Oracle, body: Body, query: str | None, answer: Body) -> None:
    """Check the answer to one query."""
    top_k, offset = body["top_k"], body.get("offset", 0)
    if "sort" in body and not {"query", "queries", "vector", "like"} & body.keys():
        every = [{"id": id} for id in kept(oracle, body)]
        expected = in_order(oracle, every, body["sort"]["by"])[offset : offset + top_k]
        assert [hit["id"] for hit in answer["hits"]] == [hit["id"] for hit in expected]
        assert all(hit["score"] is None for hit in answer["hits"])
        hits = answer["hits"]
    else:
        every = await ranked(oracle, body, query)
        if "group_by" in body:
            hits = [hit for group in answer["groups"] for hit in group["hits"]]
            got = [(g["value"], [hit["id"] for hit in g["hits"]]) for g in answer["groups"]]
            expected_groups = grouped(oracle, every, body["group_by"], top_k)
            assert repr(got) == repr(expected_groups) or "like" in body, (got, expected_groups)
        else:
            hits = answer["hits"]
            if "diversity" in body:
                check_diverse(oracle, body, every, hits)
            elif "sort" in body:
                some = in_order(oracle, every[: body["sort"]["candidates"]], body["sort"]["by"])
                some = some[offset : offset + top_k]
                if "like" not in body:
                    assert [hit["id"] for hit in hits] == [hit["id"] for hit in some]
            elif "rerank" in body:
                candidates = every[: max(body["rerank"]["top_n"], offset + top_k)]
                check_reranked(oracle, body, query or "", candidates, hits)
            else:
                same(hits, every[offset : offset + top_k])
    for hit in hits:
        await check_hit(oracle, body, query, hit)
    if "facets" in body:
        await check_facets(oracle, body, query, answer["facets"])


def check_reranked(
    oracle: Oracle, body: Body, query: str, candidates: Sequence[Body], hits: Sequence[Body]
) -> None:
    scored = [hit | {"score": relevance(oracle, query, hit)} for hit in candidates]
    scored.sort(key=lambda hit: -float(hit["score"]))
    least = body["rerank"].get("min_score", 0)
    offset = body.get("offset", 0)
    page = scored[offset : offset + body["top_k"]]
    expected = [hit for hit in page if hit["score"] >= least]
    same([hit | {"score": hit["rerank_score"]} for hit in hits], expected)


async def check_pages(client: httpx.AsyncClient, path: str, body: Body, first: Body) -> None:
    """Check that the pages of a cursor are the whole list, in its order, each hit once."""
    found, page = list(first["hits"]), first
    while page["next"] is not None:
        page = await searched(client, path, body | {"cursor": page["next"]})
        assert page["changed"] is False and page["hits"]
        found += page["hits"]
    whole = {name: value for name, value in body.items() if name != "cursor"} | {"top_k": 1000}
    reach = [body[name]["candidates"] for name in ("sort", "diversity") if name in body]
    if reach and {"query", "vector", "like"} & body.keys():
        whole["top_k"] = reach[0]
    assert [hit["id"] for hit in found] == [
        hit["id"] for hit in (await searched(client, path, whole))["hits"]
    ]


async def check_request(oracle: Oracle, body: Body) -> None:
    """Send one request, and check that it is answered rightly or refused."""
    reply = await oracle.client.post(f"{oracle.path}/search", json=body)
    if word := refusal(body):
        assert reply.status_code == 400, (word, reply.text)
        return
    assert reply.status_code == 200, reply.text
    answer = reply.json()
    if "queries" in body:
        for query, one in zip(body["queries"], answer["results"], strict=True):
            await check(oracle, body, query, one)
        return
    await check(oracle, body, body.get("query"), answer)
    if "cursor" in body:
        await check_pages(oracle.client, oracle.path, body, answer)


@pytest.mark.parametrize("run_of", RUNS)
@pytest.mark.parametrize("chunks", [None, {"size": 8, "overlap": 2}], ids=["whole", "chunked"])
def test_any_options_together(
    toy_model: Model, toy_scorer: Model, chunks: Any, run_of: tuple[int | None, int]
) -> None:
    seed, number = seeded(run_of)
    pick = random.Random(seed)

    async def test(client: httpx.AsyncClient) -> None:
        oracle = await filled(client, "main", documents(seed, 40), chunks, toy_scorer)
        ids, vectors = list(oracle.documents), list(oracle.vectors.values())
        for _ in range(number):
            body = some_request(pick, ids, vectors)
            try:
                await check_request(oracle, body)
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {body}: {error}") from error

    run(test, toy_model, others=[toy_scorer])


async def check_several(oracles: Mapping[str, Oracle], body: Body) -> None:
    """Search in several collections, and check that the hits are the best of all."""
    (first, *_) = oracles.values()
    reply = await first.client.post("/search", json=body)
    given = {"queries", "cursor", "like", "group_by", "sort", "diversity", "facets"}
    if refusal(body) or given & body.keys() or body.get("fusion") == "rrf":
        assert reply.status_code == 400, reply.text
        return
    assert reply.status_code == 200, reply.text
    hits, query = reply.json()["hits"], body.get("query")
    found = [(name, hit) for name in oracles for hit in await ranked(oracles[name], body, query)]
    # Ids may be the same in both.
    every = [hit | {"id": f"{name}/{hit['id']}"} for name, hit in found]
    every.sort(key=lambda hit: -float(hit["score"]))
    offset, end = body.get("offset", 0), body.get("offset", 0) + body["top_k"]
    named = [hit | {"id": f"{hit['collection']}/{hit['id']}"} for hit in hits]
    if "rerank" in body:
        assert query is not None
        candidates = every[: max(body["rerank"]["top_n"], end)]
        scored = [
            hit | {"score": relevance(oracles[name], query, hit | {"id": id})}
            for hit in candidates
            for name, _, id in [hit["id"].partition("/")]
        ]
        scored.sort(key=lambda hit: -float(hit["score"]))
        least = body["rerank"].get("min_score", 0)
        expected = [hit for hit in scored[offset:end] if hit["score"] >= least]
        same([hit | {"score": hit["rerank_score"]} for hit in named], expected)
    else:
        same(named, every[offset:end])
    for hit in hits:
        await check_hit(oracles[hit["collection"]], body, query, hit)


@pytest.mark.parametrize("run_of", RUNS)
def test_any_options_together_in_several_collections(
    toy_model: Model, toy_scorer: Model, run_of: tuple[int | None, int]
) -> None:
    seed, number = seeded(run_of)
    pick = random.Random(seed)

    async def test(client: httpx.AsyncClient) -> None:
        chunks = {"size": 8, "overlap": 2}
        oracles = {
            "main": await filled(client, "main", documents(seed, 30), chunks, toy_scorer),
            "other": await filled(client, "other", documents(seed + 1, 20), None, toy_scorer),
        }
        vectors = list(oracles["main"].vectors.values())
        for _ in range(number):
            body = some_request(pick, ["d1", "d2"], vectors) | {"collections": list(oracles)}
            if pick.random() < 0.8:
                for name in ("facets", "cursor", "sort", "group_by", "diversity", "fusion"):
                    body.pop(name, None)
            try:
                await check_several(oracles, body)
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {body}: {error}") from error

    run(test, toy_model, others=[toy_scorer])
