"""Collections, documents and search over HTTP, with the toy model, SQLite and FAISS."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.app import create_app
from server.collections import reindexing
from server.config import Config
from server.inference.model import Model
from server.store.collection import DATABASE_FILE, Collection
from server.store.folder import DataFolder
from tests.support.clients import Test, ask, lifespan, run, stateful
from tests.support.fakes import PATIENCE_S
from tests.support.toys import CHARACTERS, toy_texts

TEXTS = {"a": "墨池笔纸", "b": "风花雪鸟鱼虫", "c": "日月星人大小上下"}


async def fill(client: httpx.AsyncClient, path: str = "", **texts: str) -> None:
    documents = [
        {
            "id": id,
            "text": text,
            "metadata": {"n": place, "kind": "even" if place % 2 == 0 else "odd"},
        }
        for place, (id, text) in enumerate((texts or TEXTS).items())
    ]
    response = await client.post(f"{path}/documents", json={"documents": documents})
    assert response.status_code == 200, response.text


async def found(client: httpx.AsyncClient, body: dict[str, Any], path: str = "") -> list[str]:
    response = await client.post(f"{path}/search", json=body)
    assert response.status_code == 200, response.text
    return [hit["id"] for hit in response.json()["hits"]]


async def vector_of(client: httpx.AsyncClient, text: str) -> list[float]:
    vectors = (await client.post("/embed", json={"texts": [text]})).json()["vectors"]
    return list(vectors[0])


def check_refused(response: httpx.Response, status: int, code: str, *words: str) -> None:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["code"] == code
    assert all(word in error["message"] for word in words), error["message"]


def test_the_shortest_way_from_a_document_to_a_hit(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        document = {"id": "a", "text": "甲乙丙丁", "title": "天干", "metadata": {"n": 1}}
        added = await client.post("/documents", json={"documents": [document]})
        assert added.json() == {"ids": ["a"], "stored": 1}
        answer = await client.post("/search", json={"query": "甲乙", "top_k": 3})
        (hit,) = answer.json()["hits"]
        assert -1 <= hit.pop("score") <= 1
        part = {"begin": 0, "end": 4, "whole": True}
        assert hit == {**document, "part": part}

    run(test, toy_model)


def test_search_finds_what_has_the_nearest_vector(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await fill(client)
        for id, text in TEXTS.items():
            vector = await vector_of(client, text)
            answer = await client.post("/search", json={"vector": vector, "top_k": 3})
            hits = answer.json()["hits"]
            assert hits[0]["id"] == id
            assert hits[0]["score"] == pytest.approx(1, abs=1e-4)
            assert sorted(hit["id"] for hit in hits) == sorted(TEXTS)
            near = {"vector": vector, "min_score": 0.9999}
            assert await found(client, near) == [id]

    run(test, toy_model)


def test_several_queries_are_answered_like_each_alone(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await fill(client)
        queries = ["甲乙", "壬癸子", "甲乙", "无"]
        together = (await client.post("/search", json={"queries": queries})).json()["results"]
        alone = [(await client.post("/search", json={"query": q})).json() for q in queries]
        assert [[hit["id"] for hit in hits["hits"]] for hits in together] == [
            [hit["id"] for hit in hits["hits"]] for hits in alone
        ]

    run(test, toy_model)


def test_many_searches_at_once_get_their_own_answers(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        texts = dict(zip(map(str, range(60)), toy_texts(60, seed=5), strict=True))
        await fill(client, **texts)
        vectors = {id: await vector_of(client, text) for id, text in texts.items()}
        bodies = [{"vector": vector, "top_k": 1} for vector in vectors.values()]
        answers = await asyncio.gather(*(client.post("/search", json=body) for body in bodies))
        best = [answer.json()["hits"][0] for answer in answers]
        expected = [1.0] * len(best)
        assert [hit["score"] for hit in best] == pytest.approx(expected, abs=1e-4)

    run(test, toy_model)


def test_words_are_found_and_shown(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await fill(client, a="劳动合同的解除", b="房屋买卖合同", c="GPU 与 CPU")
        assert await found(client, {"query": "劳动合同", "mode": "lexical"}) == ["a", "b"]
        assert await found(client, {"query": "gpu", "mode": "lexical"}) == ["c"]
        body: dict[str, Any] = {
            "query": "房屋买卖",
            "mode": "hybrid",
            "highlight": True,
            "top_k": 1,
        }
        (hit,) = (await client.post("/search", json=body)).json()["hits"]
        assert (hit["id"], hit["highlights"]) == ("b", [[0, 4]])

    run(test, toy_model)


def test_hybrid_finds_what_either_way_finds_and_weights_decide(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await fill(
            client, near="墨池笔纸砚书画山", words="search server 墨池 index ink well 上下左右"
        )
        vector = await vector_of(client, "墨池笔纸砚书画山")
        body: dict[str, Any] = {"query": "search server", "vector": vector, "mode": "hybrid"}
        for fusion in ("blend", "rrf"):
            for weights, first in (({"lexical": 0}, "near"), ({"dense": 0}, "words")):
                asked = {**body, "weights": weights, "fusion": fusion}
                answer = (await client.post("/search", json=asked)).json()["hits"]
                assert [hit["id"] for hit in answer][0] == first
                assert sorted(hit["id"] for hit in answer) == ["near", "words"]
                assert all(0 <= hit["score"] <= 1 for hit in answer)

    run(test, toy_model)


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_filters_hold_in_every_mode(toy_model: Model, mode: str) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await fill(client, a="甲乙丙丁", b="甲乙丙戊", c="甲乙丙己")
        body: dict[str, Any] = {"query": "甲乙丙", "mode": mode}
        assert sorted(await found(client, body)) == ["a", "b", "c"]
        assert await found(client, {**body, "filter": {"kind": "odd"}}) == ["b"]
        assert sorted(await found(client, {**body, "filter": {"n": {"$gte": 1}}})) == ["b", "c"]
        assert await found(client, {**body, "filter": {"n": 7}}) == []

    run(test, toy_model)


def test_documents_are_read_listed_and_counted(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await fill(client)
        one = (await client.get("/documents/b")).json()
        metadata = {"n": 1, "kind": "odd"}
        assert one == {"id": "b", "text": TEXTS["b"], "title": None, "metadata": metadata}
        first = (await client.get("/documents", params={"limit": 2})).json()
        assert [each["id"] for each in first["documents"]] == ["a", "b"]
        rest = (await client.get("/documents", params={"limit": 2, "after": first["next"]})).json()
        assert ([each["id"] for each in rest["documents"]], rest["next"]) == (["c"], None)
        even = (await client.get("/documents", params={"filter": '{"kind": "even"}'})).json()
        assert [each["id"] for each in even["documents"]] == ["a", "c"]
        counts = [
            (await client.post("/documents/count", json=body)).json()["count"]
            for body in ({}, {"filter": {"kind": "even"}})
        ]
        assert counts == [3, 2]

    run(test, toy_model)


def test_documents_are_removed_by_id_ids_and_filter(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await fill(client, a="甲", b="乙", c="丙", d="丁", e="戊")
        assert (await client.delete("/documents/a")).json() == {"removed": 1}
        check_refused(await client.delete("/documents/a"), 404, "document_not_found", "'a'")
        gone = await client.post("/documents/delete", json={"ids": ["b", "b", "missing"]})
        assert gone.json() == {"removed": 1}
        gone = await client.post("/documents/delete", json={"filter": {"kind": "odd"}})
        assert gone.json() == {"removed": 1}
        assert sorted(await found(client, {"query": "甲"})) == ["c", "e"]
        bodies: list[dict[str, Any]] = [{}, {"ids": ["c"], "filter": {"n": 1}}]
        everything: list[Any] = [{}, {"$and": [{}]}, {"$not": {}}, {"n": {"$nin": []}}]
        everything += [{"$or": [{"n": 1}, {}]}, {"$and": [{}] * 5_000}, {"$nor": [{}]}]
        bodies += [{"filter": filter} for filter in everything]
        for body in bodies:
            response = await client.post("/documents/delete", json=body)
            check_refused(response, 400, "invalid_request")
        assert (await client.post("/documents/count", json={})).json() == {"count": 2}

    run(test, toy_model)


def test_a_condition_that_no_stored_value_can_meet_is_named_in_every_reply(
    toy_model: Model,
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        documents = [{"id": "a", "text": "甲乙", "metadata": {"year": "2021"}}]
        await client.post("/documents", json={"documents": documents})
        filter = {"year": {"$gte": 2020}}
        body = {"query": "甲乙", "filter": filter}
        several = {"queries": ["甲乙"], "filter": filter}
        for reply in [
            await client.post("/search", json=body),
            await client.post("/search", json=several),
            await client.post("/documents/count", json={"filter": filter}),
            await client.get("/documents", params={"filter": json.dumps(filter)}),
            await client.post("/documents/delete", json={"filter": filter}),
        ]:
            (said,) = reply.json()["warnings"]
            assert "'year'" in said and "a number" in said and "a text" in said
        # A write may change that.
        documents = [{"id": "b", "text": "甲乙", "metadata": {"year": 2021}}]
        await client.post("/documents", json={"documents": documents})
        for _ in range(2):
            answer = (await client.post("/search", json=body)).json()
            assert [hit["id"] for hit in answer["hits"]] == ["b"] and "warnings" not in answer
        removed = await client.post("/documents/delete", json={"ids": ["b"]})
        assert removed.json() == {"removed": 1}
        assert (await client.post("/search", json=body)).json()["warnings"] == [said]

    run(test, toy_model)


def test_a_date_in_another_form_than_the_stored_ones_is_named(toy_model: Model) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        days = ["2024-03-05", "2024-12-31"]
        rows = [{"text": f"墨池 {day}", "metadata": {"day": day, "v": "1.2.3"}} for day in days]
        await client.post("/documents", json={"documents": rows})

        async def said(filter: dict[str, object]) -> list[str]:
            reply = await client.post("/documents/count", json={"filter": filter})
            return list(reply.json().get("warnings", []))

        (warning,) = await said({"day": {"$lt": "2024/3/5"}})
        assert warning.startswith("the condition on 'day' compares '2024/3/5' as a text with dates")
        assert warning.endswith(": write the date in that form") and "2024-03-05" in warning
        others: list[object] = ["2024年3月5日", "2024-3-5", {"$in": ["x", "2024.03.05"]}]
        for other in others:
            assert len(await said({"day": other})) == 1
        same: list[object] = ["2024-03-05", "2024-03-05T08:00", {"$date": "2024-03-05"}]
        rights: list[dict[str, object]] = [{"day": {"$gte": day}} for day in same]
        rights += [{"v": "2024/3/5"}, {"w": "2024/3/5"}]
        for right in rights:
            assert await said(right) == []

    run(talk, toy_model)


def test_a_filter_or_metadata_nested_deep_is_refused(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        head = {"content-type": "application/json"}
        for opening, closing in (('{"$and":[', "]}"), ('{"$not":', "}"), ('{"a":{"$not":', "}}")):
            deep = opening * 50_000 + '{"a":1}' + closing * 50_000
            for path in ("/search", "/documents/count", "/documents/delete"):
                query = '"query":"a",' if path == "/search" else ""
                body = f'{{{query}"filter":{deep}}}'
                check_refused(
                    await client.post(path, content=body, headers=head), 400, "invalid_request"
                )
        deep = '{"a":' * 50_000 + "1" + "}" * 50_000
        body = f'{{"documents":[{{"text":"x","metadata":{deep}}}]}}'
        check_refused(
            await client.post("/documents", content=body, headers=head), 400, "invalid_request"
        )
        shallow = '{"a":' * 400 + "1" + "}" * 400
        body = f'{{"documents":[{{"id":"x","text":"x","metadata":{shallow}}}]}}'
        stored = await client.post("/documents", content=body, headers=head)
        assert stored.status_code in (200, 400), stored.text
        if stored.status_code == 200:
            assert (await client.get("/documents/x")).status_code == 200

    run(test, toy_model)


def test_a_document_stored_again_replaces_itself(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await fill(client, a="甲乙丙")
        again = {"documents": [{"id": "a", "text": "戊己庚"}]}
        assert (await client.post("/documents", json=again)).json() == {"ids": ["a"], "stored": 1}
        assert (await client.post("/documents", json=again)).json() == {"ids": ["a"], "stored": 0}
        assert await found(client, {"query": "甲乙丙", "mode": "lexical"}) == []
        assert await found(client, {"query": "戊己庚", "mode": "lexical"}) == ["a"]
        refused = await client.post("/documents", json={**again, "replace": False})
        check_refused(refused, 409, "already_exists", "'a'")

    run(test, toy_model)


def test_ids_may_be_numbers_missing_or_twice_in_one_request(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        documents = [
            {"id": 7, "text": "first"},
            {"text": "甲乙"},
            {"text": "甲乙"},
            {"id": "7", "text": "last"},
            {"id": "a/b ？.md", "text": "x"},
        ]
        added = (await client.post("/documents", json={"documents": documents})).json()
        ids = added["ids"]
        assert (ids[0], ids[3], ids[4]) == ("7", "7", "a/b ？.md")
        assert ids[1] == ids[2] and len(ids[1]) == 20
        assert added["stored"] == 3
        assert (await client.get("/documents/7")).json()["text"] == "last"
        assert (await client.get("/documents/a/b ？.md")).json()["text"] == "x"

    run(test, toy_model)


@pytest.mark.parametrize(
    ("document", "code", "words"),
    [
        ({"text": ""}, "empty_input", ["documents[1].text"]),
        ({"text": "x", "id": ""}, "invalid_request", ["documents[1].id", "512"]),
        ({"text": "x", "id": "i" * 513}, "invalid_request", ["513", "512"]),
        ({"text": "x", "id": 1.5}, "invalid_request", ["id"]),
        ({"text": 5}, "invalid_request", ["text"]),
        ({"text": "x", "metadata": []}, "invalid_request", ["metadata"]),
        ({}, "invalid_request", ["text"]),
    ],
)
def test_a_document_that_cannot_be_stored_leaves_none_of_its_request(
    toy_model: Model, document: Any, code: str, words: list[str]
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        body = {"documents": [{"id": "good", "text": "good"}, document]}
        check_refused(await client.post("/documents", json=body), 400, code, *words)
        assert (await client.post("/documents/count", json={})).json() == {"count": 0}

    run(test, toy_model)


def test_lone_surrogates_are_refused_and_nul_is_kept(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        json = {"content-type": "application/json"}
        for field in ('"text": "a\\ud800"', '"text": "a", "metadata": {"k": "\\udfff"}'):
            body = '{"documents": [{"id": "a", ' + field + "}]}"
            response = await client.post("/documents", content=body, headers=json)
            check_refused(response, 400, "invalid_request")
        nul = {"documents": [{"id": "a", "text": "甲\0乙", "metadata": {"k\0": "\0"}}]}
        assert (await client.post("/documents", json=nul)).status_code == 200
        stored = (await client.get("/documents/a")).json()
        assert (stored["text"], stored["metadata"]) == ("甲\0乙", {"k\0": "\0"})

    run(test, toy_model)


def test_long_documents_are_cut_and_hits_say_where(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        made = await client.post("/collections", json={"name": "long", "chunks": {"size": 10}})
        assert made.status_code == 201
        sentences = [CHARACTERS[8 * n : 8 * n + 8] + "。" for n in range(9)]
        text = "".join(sentences)
        await fill(client, "/collections/long", whole=text, other="search server")
        stats = (await client.get("/collections/long/stats")).json()
        assert stats["documents"] == 2
        assert stats["parts"] > 5
        for sentence in sentences:
            body = {"vector": await vector_of(client, sentence), "top_k": 2}
            answer = await client.post("/collections/long/search", json=body)
            first, *others = answer.json()["hits"]
            part = first["part"]
            assert first["id"] == "whole"
            assert first["text"] == text[part["begin"] : part["end"]] == sentence
            assert not part["whole"]
            assert [hit["id"] for hit in others] == ["other"], "a document is found once"

    run(test, toy_model)


def test_collections_are_made_listed_and_removed_apart_from_each_other(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        assert (await client.get("/collections")).json() == {"collections": [], "damaged": []}
        for name in ("laws", "news"):
            assert (await client.post("/collections", json={"name": name})).status_code == 201
        again = await client.post("/collections", json={"name": "laws"})
        check_refused(again, 409, "already_exists", "'laws'")
        await fill(client, "/collections/laws")
        listed = (await client.get("/collections")).json()["collections"]
        assert listed == [{"name": "laws", "documents": 3}, {"name": "news", "documents": 0}]
        assert await found(client, {"query": "甲"}, "/collections/news") == []
        assert (await client.delete("/collections/laws")).json() == {"removed": "laws"}
        for response in (
            await client.get("/collections/laws"),
            await client.delete("/collections/laws"),
            await client.post("/collections/laws/search", json={"query": "甲"}),
        ):
            check_refused(response, 404, "collection_not_found", "'laws'")
        assert (await client.post("/collections", json={"name": "laws"})).json()["documents"] == 0

    run(test, toy_model)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "中 文", "x" * 65, ".next-a", ".removed-a"])
def test_names_that_cannot_be_are_refused(toy_model: Model, name: str) -> None:
    response = ask(toy_model, "POST", "/collections", {"name": name})
    check_refused(response, 400, "invalid_request", "64")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, ["query"]),
        ({"query": "a", "queries": ["b"]}, ["exactly one"]),
        ({"queries": []}, ["0 queries", "256"]),
        ({"queries": ["a"] * 257}, ["257", "256"]),
        ({"query": "a", "top_k": 0}, ["top_k 0", "1000"]),
        ({"query": "a", "top_k": 1001}, ["top_k 1001", "1000"]),
        ({"query": "a", "mode": "best"}, ["mode"]),
        ({"vector": [1.0], "mode": "lexical"}, ["vector"]),
        ({"vector": [1.0], "mode": "hybrid"}, ["words"]),
        ({"vector": [1.0, 2.0]}, ["32", "2"]),
        ({"vector": [0.0] * 32}, ["32"]),
        ({"vector": [1e-60] * 32}, ["all 0", "as float32"]),
        ({"vector": [1.0, -1e39] + [0.0] * 30}, ["vector[1]", "-1e+39", "float32", "3.40282e+38"]),
        ({"query": "a", "weights": {"dense": -1}}, ["-1"]),
        ({"query": "a", "weights": {"dense": 0, "lexical": 0}}, ["0"]),
        ({"query": "a", "mode": "hybrid", "weights": {"dense": 1e308}}, ["1e+308", "1e+06"]),
        ({"query": "a", "mode": "hybrid", "weights": {"lexical": 1e-300}}, ["1e-300", "1e-06"]),
        ({"query": "a", "filter": {"n": {"$near": 1}}}, ["$near"]),
        ({"query": "a", "filter": []}, ["filter"]),
    ],
)
def test_searches_that_make_no_sense_are_told_why(
    toy_model: Model, body: dict[str, Any], words: list[str]
) -> None:
    response = ask(toy_model, "POST", "/search", body)
    assert response.status_code == 400
    assert all(word in response.json()["error"]["message"] for word in words), response.text


@pytest.mark.parametrize(
    "chunks", [{"size": 0}, {"size": 63}, {"size": 20, "overlap": 11}, {"size": 20, "overlap": -1}]
)
def test_chunks_that_the_model_cannot_read_are_refused(toy_model: Model, chunks: Any) -> None:
    response = ask(toy_model, "POST", "/collections", {"name": "a", "chunks": chunks})
    check_refused(response, 400, "invalid_request", "chunks.")


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "limit=" + "9" * 5000, "after=-1", "filter={"],
    ids=lambda query: query[:9],
)
def test_pages_that_cannot_be_are_refused(toy_model: Model, query: str) -> None:
    assert ask(toy_model, "GET", f"/documents?{query}").status_code == 400


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("filter={", "filter"),
        ("filter=[1]", "filter"),
        ("filter=null", "filter"),
        ("filter=", "filter"),
        ('filter="\\ud800"', "filter"),
        ("limit=x", "limit"),
        ("after=-1", "after"),
        ("filtr={}", "filtr"),
    ],
)
def test_a_query_parameter_is_named_where_it_is_wrong(
    toy_model: Model, query: str, name: str
) -> None:
    said = ask(toy_model, "GET", f"/documents?{query}").json()["error"]["message"]
    assert said.startswith(f"the query parameter '{name}' is ") and "body" not in said


def test_reindexing_changes_the_parts_and_loses_nothing(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await client.post("/collections", json={"name": "r", "chunks": None})
        texts = {str(n): CHARACTERS[n : n + 25] + f"{n:02}" for n in range(40)}
        await fill(client, "/collections/r", **texts)
        begun = await client.post("/collections/r/reindex", json={"chunks": {"size": 10}})
        assert begun.status_code == 202
        assert begun.json()["reindexing"]["total"] == 40
        busy = await client.post("/collections/r/reindex", json={})
        check_refused(busy, 409, "already_exists")
        # What is written and removed meanwhile is taken over.
        await client.delete("/collections/r/documents/3")
        await fill(client, "/collections/r", new="甲乙丙丁")
        while (stats := (await client.get("/collections/r/stats")).json())["reindexing"]:
            await asyncio.sleep(0)
        assert (stats["documents"], stats["chunks"]) == (40, {"size": 10, "overlap": 0})
        assert stats["parts"] > 80
        listed = (await client.get("/collections/r/documents?limit=1000")).json()["documents"]
        assert {each["id"] for each in listed} == {*texts, "new"} - {"3"}
        hits = await found(client, {"query": "甲乙丙丁", "mode": "lexical"}, "/collections/r")
        assert hits == ["new"]

    run(test, toy_model)


def test_a_damaged_collection_is_refused_and_the_others_answer(
    toy_model: Model, tmp_path: Path
) -> None:
    async def serve(test: Test) -> None:
        folder = DataFolder(tmp_path)
        app = create_app([toy_model], Config(lanes=1), folder)
        async with lifespan(app) as state:
            transport = httpx.ASGITransport(stateful(app, state))
            async with httpx.AsyncClient(transport=transport, base_url="http://inkwell") as client:
                await test(client)

    async def fill_both(client: httpx.AsyncClient) -> None:
        await fill(client)
        await client.post("/collections", json={"name": "sound"})
        await fill(client, "/collections/sound")

    async def ask_both(client: httpx.AsyncClient) -> None:
        listed = (await client.get("/collections")).json()
        assert listed == {
            "collections": [{"name": "sound", "documents": 3}],
            "damaged": ["default"],
        }
        assert await found(client, {"query": TEXTS["a"]}, "/collections/sound")
        document = {"documents": [{"text": "x"}]}
        for answer in (
            await client.post("/search", json={"query": "a"}),
            await client.post("/documents", json=document),
            await client.get("/stats"),
            await client.post("/collections", json={"name": "default"}),
            await client.delete("/collections/default"),
        ):
            check_refused(answer, 500, "store_damaged", "restore it from a backup")

    asyncio.run(serve(fill_both))
    database = tmp_path / "collections" / "default" / DATABASE_FILE
    damaged = b"\xff" * database.stat().st_size
    database.write_bytes(damaged)
    asyncio.run(serve(ask_both))
    # For a client that can still use it.
    assert database.read_bytes() == damaged


@pytest.mark.parametrize("step", ["replace", "remove"])
def test_a_name_is_not_free_while_its_collection_is_replaced_or_removed(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    entered, release = threading.Event(), threading.Event()
    real = getattr(DataFolder, step)

    def held(folder: DataFolder, *given: Any) -> Any:
        done = real(folder, *given)
        entered.set()
        assert release.wait(PATIENCE_S)
        return done

    async def test(client: httpx.AsyncClient) -> None:
        await client.post("/collections", json={"name": "r"})
        await fill(client, "/collections/r")
        monkeypatch.setattr(DataFolder, step, held)
        if step == "replace":
            await client.post("/collections/r/reindex", json={})
            work: asyncio.Task[Any] = asyncio.create_task(asyncio.sleep(0))
        else:
            work = asyncio.create_task(client.delete("/collections/r"))
        while not entered.is_set():
            await asyncio.sleep(0)
        again = await client.post("/collections", json={"name": "r"})
        release.set()
        await work
        check_refused(again, 409, "already_exists", "'r'")

    run(test, toy_model)


def test_no_documents_are_not_stored_in_a_collection_that_is_not_there(toy_model: Model) -> None:
    answer = ask(toy_model, "POST", "/collections/nowhere/documents", {"documents": []})
    check_refused(answer, 404, "collection_not_found", "'nowhere'")


def test_reindexing_that_a_stop_interrupts_ends_its_write_first(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, release = threading.Event(), threading.Event()
    counted: list[int] = []

    def held(_: Collection, successor: Collection) -> list[str]:
        entered.set()
        assert release.wait(PATIENCE_S)
        counted.append(successor.count)
        return []

    async def test(client: httpx.AsyncClient) -> None:
        await fill(client)
        await client.post("/reindex", json={})
        while not entered.is_set():
            await asyncio.sleep(0)
        # By then the app is stopping: it has cancelled the reindexing and waits for it.
        asyncio.get_running_loop().call_later(0.2, release.set)

    monkeypatch.setattr(reindexing, "forget_deleted", held)
    run(test, toy_model)
    assert counted == [3]
