"""Searches with options over HTTP: what they answer, what is refused, and what an empty collection says."""

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from server.api.searching import options, request
from server.inference.model import Model
from server.store.fusion import nearness
from tests.support.clients import run
from tests.support.dialects import check_error

Client = httpx.AsyncClient
DOCUMENTS: list[dict[str, Any]] = [
    {"id": "a", "text": "search server", "metadata": {"n": 1, "kind": "x"}},
    {"id": "b", "text": "墨池笔纸砚书", "metadata": {"n": 2, "kind": "y"}},
    {"id": "c", "text": "a b c", "title": "花", "metadata": {"n": 3, "kind": "x"}},
    {"id": "d", "text": "天气晴", "metadata": {"n": 4, "kind": True}},
    {"id": "e", "text": "风" * 40, "metadata": {"kind": ["x", "y"]}},
    {"id": "f", "text": "search 天气", "metadata": {"n": 6}},
]


async def filled(client: Client, path: str = "", documents: Any = None) -> None:
    body = {"documents": DOCUMENTS if documents is None else documents}
    reply = await client.post(f"{path}/documents", json=body)
    assert reply.status_code == 200, reply.text


async def searched(client: Client, **body: Any) -> Any:
    reply = await client.post("/search", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def ids(reply: Any) -> str:
    return "".join(hit["id"] for hit in reply["hits"])


def test_pages_by_offset_and_by_cursor_are_the_same(toy_model: Model) -> None:
    async def test(client: Client) -> None:
        await filled(client)
        for more in ({}, {"mode": "hybrid"}, {"sort": {"by": [{"key": "n"}]}}):
            body = {"query": "search 天气", "facets": ["kind"], **more}
            whole = ids(await searched(client, **body))
            assert len(whole) == 6
            cursor: str | None = ""
            found, pages = "", 0
            while cursor is not None:
                page = await searched(client, **body, top_k=2, cursor=cursor)
                assert page.get("changed") == (None if pages == 0 else False)
                assert ids(page) == ids(await searched(client, **body, top_k=2, offset=2 * pages))
                found, cursor, pages = found + ids(page), page["next"], pages + 1
            assert (found, pages) == (whole, 3)
        assert "next" not in await searched(client, query="天气")

    run(test, toy_model)


def test_a_cursor_says_that_the_collection_changed(toy_model: Model) -> None:
    async def test(client: Client) -> None:
        await filled(client)
        first = await searched(client, query="天气", top_k=2, cursor="")
        await client.delete("/documents/c")
        second = await searched(client, query="天气", top_k=2, cursor=first["next"])
        assert second["changed"] is True
        # The pages after that are compared with the first one too.
        third = await searched(client, query="天气", top_k=2, cursor=second["next"])
        assert (third["changed"], third["next"]) == (True, None)

    run(test, toy_model)


def test_a_cursor_belongs_to_one_search(toy_model: Model) -> None:
    async def test(client: Client) -> None:
        await filled(client)
        cursor = (await searched(client, query="天气", top_k=2, cursor=""))["next"]
        assert len((await searched(client, query="天气", top_k=4, cursor=cursor))["hits"]) == 4
        forged = base64.urlsafe_b64encode(b'[-1,null,""]').decode()
        for body, word in [
            ({"query": "search", "cursor": cursor}, "another search"),
            ({"query": "天气", "cursor": cursor, "filter": {"n": 1}}, "another search"),
            ({"query": "天气", "cursor": forged}, "another search"),
            ({"query": "天气", "cursor": "x" * 300}, "not one of this server"),
            ({"query": "天气", "cursor": "é"}, "not one of this server"),
            ({"query": "天气", "cursor": cursor[:9]}, "not one of this server"),
            ({"query": "天气", "cursor": cursor, "offset": 3}, "not both"),
            ({"queries": ["天气"], "cursor": ""}, "one query"),
        ]:
            error = check_error(
                "native", await client.post("/search", json=body), 400, "invalid_request"
            )
            assert word in error

    run(test, toy_model)


def test_a_cursor_reaches_only_so_far(toy_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "MAX_CURSOR", 4)

    async def test(client: Client) -> None:
        await filled(client)
        body = {"query": "天气", "top_k": 2}
        first = await searched(client, **body, cursor="")
        second = await searched(client, **body, cursor=first["next"])
        reply = await client.post("/search", json={**body, "cursor": second["next"]})
        assert "reaches 4" in check_error("native", reply, 400, "invalid_request")

    run(test, toy_model)


def test_hits_are_explained(toy_model: Model) -> None:
    async def test(client: Client) -> None:
        await filled(client)
        body = {"query": "search 天气", "explain": True, "top_k": 1}
        weights = {"lexical": 0.5}
        (hit,) = (await searched(client, **body, mode="hybrid", weights=weights))["hits"]
        said = hit["explanation"]
        weights["dense"] = 1.0
        assert said["fusion"] == {"kind": "blend", "weights": weights}
        near = nearness(np.array([said["cosine"]]))[0]
        blended = (near + 0.5 * said["words"]["share"]) / 1.5
        assert hit["score"] == pytest.approx(blended, abs=1e-5)
        terms = {term["term"]: term["matched"] for term in said["words"]["terms"]}
        assert terms == {"search": True, "天气": True}
        (hit,) = (await searched(client, **body, mode="hybrid", fusion="rrf"))["hits"]
        assert hit["explanation"]["fusion"]["ranks"] == {"dense": 1, "lexical": 1}
        (hit,) = (await searched(client, **body))["hits"]
        cosine = pytest.approx(hit["score"], abs=1e-6)
        assert hit["explanation"] == {"cosine": cosine, "words": None, "fusion": None}

    run(test, toy_model)


def test_parts_documents_and_vectors_come_with_hits(toy_model: Model) -> None:
    async def test(client: Client) -> None:
        chunks = {"size": 8, "overlap": 0}
        await client.post("/collections", json={"name": "default", "chunks": chunks})
        text = "search server。" + "天气晴。" * 6
        await filled(client, documents=[{"id": "long", "text": text}])
        body = {"query": "天气", "parts": 2, "include_document": True, "include_vectors": True}
        (hit,) = (await searched(client, **body))["hits"]
        assert hit["document"] == text
        first, second = hit["parts"]
        assert first["score"] >= second["score"] and first["score"] == hit["score"]
        assert all(text[part["begin"] : part["end"]] == part["text"] for part in hit["parts"])
        numbers = np.array(hit["vector"], dtype=np.float32)
        body["include_vectors"] = "base64"
        (hit,) = (await searched(client, **body))["hits"]
        assert np.array_equal(np.frombuffer(base64.b64decode(hit["vector"]), "<f4"), numbers)
        vector = numbers.tolist()
        assert (await searched(client, vector=vector))["hits"][0]["score"] > 0.999

    run(test, toy_model)


def test_vectors_beyond_a_reply_are_refused_before_the_search(
    toy_model: Model,
) -> None:
    async def test(client: Client) -> None:
        body = {"queries": ["天气"] * 200, "top_k": 1000, "include_vectors": True}
        error = check_error(
            "native", await client.post("/search", json=body), 413, "request_too_large"
        )
        assert "--max-reply-bytes" in error

    run(test, toy_model)


def test_hits_are_grouped_and_counted(toy_model: Model) -> None:
    async def test(client: Client) -> None:
        await filled(client)
        order = ids(await searched(client, query="search"))
        body: dict[str, Any] = {
            "query": "search",
            "group_by": {"key": "kind", "hits": 2},
            "facets": ["kind", "no"],
        }
        found = await searched(client, **body)
        groups = {str(each["value"]): ids(each) for each in found["groups"]}
        members = {"x": "ace", "y": "be", "True": "d", "None": "f"}
        assert groups == {
            value: "".join(id for id in order if id in some)[:2] for value, some in members.items()
        }
        kind, missing = found["facets"]
        counts = {str(each["value"]): each["documents"] for each in kind["values"]}
        assert counts == {"x": 3, "y": 2, "True": 1}
        assert (kind["documents"], kind["complete"]) == (5, True)
        assert missing == {"key": "no", "documents": 0, "values": [], "complete": True}
        body["top_k"] = 1
        assert len((await searched(client, **body))["groups"]) == 1

    run(test, toy_model)


def test_documents_are_listed_in_order_without_a_query(toy_model: Model) -> None:
    async def test(client: Client) -> None:
        await filled(client)
        by = [{"key": "n", "order": "desc"}]
        found = await searched(client, sort={"by": by}, filter={"kind": {"$exists": True}})
        assert ids(found) == "dcbae"
        assert all(hit["score"] is None for hit in found["hits"])
        hits = (await searched(client, query="search", mode="lexical", sort={"by": by}))["hits"]
        assert [hit["id"] for hit in hits] == ["f", "a"]
        assert all(hit["score"] > 0 for hit in hits)

    run(test, toy_model)


def test_documents_like_others_are_found_and_nothing_is_embedded(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(client: Client) -> None:
        await filled(client)
        before = (await client.get("/metrics")).text
        found = ids(await searched(client, like={"ids": ["a"], "unlike": ["e"]}))
        assert sorted(found) == ["b", "c", "d", "f"]
        both = await searched(client, query="天气", mode="hybrid", like={"ids": ["a"]}, top_k=9)
        assert sorted(ids(both)) == ["b", "c", "d", "e", "f"]
        after = (await client.get("/metrics")).text
        lines = [line for line in before.splitlines() if "embed" in line and "_total" in line]
        assert lines and all(line in after for line in lines)
        reply = await client.post("/search", json={"like": {"ids": ["a", "gone"]}})
        error = check_error("native", reply, 404, "document_not_found")
        assert "'gone'" in error

    run(test, toy_model)


def test_several_collections_are_searched_together(toy_model: Model) -> None:
    async def test(client: Client) -> None:
        await filled(client, documents=DOCUMENTS[:3])
        await client.post("/collections", json={"name": "法律"})
        await filled(client, "/collections/%E6%B3%95%E5%BE%8B", DOCUMENTS[3:])
        names = ["default", "法律"]
        for mode in ("dense", "lexical", "hybrid"):
            body = {"query": "search 天气", "mode": mode}
            apart = {
                name: (await client.post(f"/collections/{name}/search", json=body)).json()["hits"]
                for name in names
            }
            found = await searched(client, **body, collections=names, explain=True)
            scores = [hit["score"] for hit in found["hits"]]
            assert scores == sorted(scores, reverse=True)
            places = {(hit["collection"], hit["id"]) for hit in found["hits"]}
            assert places == {(name, hit["id"]) for name in names for hit in apart[name]}
            if mode == "lexical":
                # BM25 of two collections does not compare; its share does.
                shares = [hit["explanation"]["words"]["share"] for hit in found["hits"]]
                assert scores == pytest.approx(shares, abs=1e-6)
            page = await searched(client, **body, collections=names, offset=1, top_k=2)
            assert ids(page) == ids(found)[1:3]
            assert not any("explanation" in hit for hit in page["hits"])
        kept = await searched(
            client, query="search", collections=names, filter={"n": {"$gte": "x"}}
        )
        assert kept["hits"] == [] and len(kept["warnings"]) == 2
        assert kept["warnings"][0].startswith("default: ")

    run(test, toy_model)


def test_collections_of_different_models_are_refused_by_name(
    toy_model: Model, toy_scorer: Model
) -> None:
    async def test(client: Client) -> None:
        await filled(client)
        names = ["default", "other"]
        missing = await client.post("/search", json={"query": "x", "collections": names})
        check_error("native", missing, 404, "collection_not_found")
        await client.post("/collections", json={"name": "other"})
        inside = "/collections/other/search"
        reply = await client.post(inside, json={"query": "x", "collections": names})
        assert "POST /search" in check_error("native", reply, 400, "invalid_request")

    run(test, toy_model)


def test_reranked_hits_have_pages(toy_model: Model, toy_scorer: Model) -> None:
    async def test(client: Client) -> None:
        await filled(client)
        body = {"query": "天气", "rerank": {}, "facets": ["kind"]}
        whole = await searched(client, **body)
        page = await searched(client, **body, offset=2, top_k=2)
        assert ids(page) == ids(whole)[2:4]
        assert page["facets"] == whole["facets"] and page["facets"][0]["documents"] == 5
        names = await searched(client, query="天气", rerank={}, collections=["default"])
        assert ids(names) == ids(whole)
        assert all(hit["collection"] == "default" for hit in names["hits"])

    run(test, toy_model, others=[toy_scorer])


def test_a_collection_and_its_alias_are_searched_once(toy_model: Model) -> None:
    async def test(client: Client) -> None:
        await filled(client)
        await client.put("/aliases/live", json={"collection": "default"})
        alone = await searched(client, query="search")
        for names in (["live", "default"], ["default", "live"]):
            found = await searched(client, query="search", collections=names)
            assert ids(found) == ids(alone)
            assert {hit["collection"] for hit in found["hits"]} == {names[0]}

    run(test, toy_model)


def test_options_go_with_several_queries(toy_model: Model) -> None:
    async def test(client: Client) -> None:
        await filled(client)
        options: dict[str, Any] = {"explain": True, "offset": 1, "facets": ["n"], "parts": 1}
        found = await searched(client, queries=["search", "天气"], **options)
        for query, each in zip(["search", "天气"], found["results"], strict=True):
            alone = await searched(client, query=query, **options)
            assert ids(each) == ids(alone) and each["facets"] == alone["facets"]
            assert len(each["hits"]) == 5 and "parts" in each["hits"][0]

    run(test, toy_model)


def test_an_empty_collection_answers_options(toy_model: Model) -> None:
    async def test(client: Client) -> None:
        found = await searched(client, query="x", facets=["n"], cursor="", explain=True, parts=3)
        facets = [{"key": "n", "documents": 0, "values": [], "complete": True}]
        assert found == {"hits": [], "next": None, "facets": facets}
        assert await searched(client, query="x", group_by={"key": "n"}) == {"groups": []}
        assert await searched(client, sort={"by": [{"key": "n"}]}) == {"hits": []}
        assert await searched(client, query="x", collections=["default"]) == {"hits": []}
        reply = await client.post("/search", json={"like": {"ids": ["a"]}})
        check_error("native", reply, 404, "document_not_found")

    run(test, toy_model)


GROUP, SORT = {"key": "n"}, {"by": [{"key": "n"}]}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"offset": -1}, "offset -1 is outside 0 to 10000"),
    ({"offset": 9_995}, "more than 10000 together"),
    ({"parts": 21}, "parts 21 is outside 0 to 20"),
    ({"parts": -1}, "outside 0 to 20"),
    ({"include_vectors": "hex"}, "include_vectors"),
    ({"like": {"ids": []}, "query": None}, "like.ids is empty"),
    ({"like": {"ids": ["a"]}, "mode": "lexical"}, '"like" goes with'),
    ({"like": {"ids": ["a"]}, "vector": [1.0]}, "exactly one"),
    ({"like": {"ids": ["a"]}}, 'by "like" alone, and "query" would change nothing'),
    ({"vector": [1.0] * 32}, 'by "vector" alone, and "query" would change nothing'),
    ({"collections": ["a"] * 17}, "17 names; 1 to 16"),
    ({"collections": ["a", "a"]}, "2 names, 1 of them different"),
    ({"like": {"ids": ["a"] * 101}}, "101 is outside 1 to 100"),
    ({"group_by": {"key": ""}}, "a key of group_by has 0 characters"),
    ({"group_by": {"key": "n", "hits": 0}}, "group_by.hits 0"),
    ({"group_by": {"key": "n", "hits": 101}}, "1010 hits, at most 1000"),
    ({"group_by": GROUP, "sort": SORT}, "each decide the order"),
    ({"group_by": GROUP, "offset": 1}, "pages hits"),
    ({"group_by": GROUP, "queries": ["x"], "query": None}, "one query"),
    ({"sort": {"by": []}}, "0 is outside 1 to 4"),
    ({"sort": {**SORT, "candidates": 1_001}}, "sort.candidates 1001"),
    ({"sort": SORT, "offset": 95}, "reach hit 105"),
    ({"sort": SORT, "query": None, "explain": True}, "needs a query"),
    ({"sort": SORT, "query": None, "min_score": 0.0}, "needs a query"),
    ({"sort": SORT, "query": None, "mode": "hybrid"}, "exactly one"),
    ({"diversity": {"lambda": 1.5}}, "diversity.lambda 1.5"),
    ({"diversity": {"candidates": 9}}, "reach hit 10"),
    ({"diversity": {"relevance": 1}}, "'relevance' in diversity is not known"),
    ({"facets": []}, "0 is outside 1 to 10"),
    ({"facets": ["x" * 257]}, "257 characters"),
    ({"facets": ["$id"]}, "$id is for filters"),
    ({"rerank": {}, "sort": SORT}, '"rerank" decides'),
    ({"rerank": {}, "cursor": ""}, '"rerank" decides'),
    ({"collections": []}, "0 names"),
    ({"collections": ["default", "default"]}, "2 names, 1 of them"),
    ({"collections": ["default"], "facets": ["n"]}, '"facets" goes with one collection'),
    ({"collections": ["default"], "mode": "hybrid", "fusion": "rrf"}, "cannot be compared"),
]


def test_what_is_outside_of_limits_is_refused(toy_model: Model) -> None:
    assert options.MAX_OFFSET == 10_000

    async def test(client: Client) -> None:
        for body, word in REFUSED:
            reply = await client.post("/search", json={"query": "天气", **body})
            assert reply.status_code == 400, (body, reply.text)
            error = check_error("native", reply, 400, "invalid_request")
            assert word in error, (body, error)

    run(test, toy_model)
