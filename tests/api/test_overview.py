"""A collection from above over HTTP: its metadata and its map, with the toy model, SQLite and FAISS."""

from typing import Any

import httpx
import pytest

from server.inference.model import Model
from tests.api.test_collections import check_refused
from tests.support.clients import run
from tests.support.toys import toy_texts


def documents(number: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"d{place}",
            "text": text,
            "title": f"No. {place}",
            "metadata": {
                "year": 2000 + place % 3,
                "kind": "a" if place % 4 else "b",
                "tags": ["x"],
            },
        }
        for place, text in enumerate(toy_texts(number, seed=5))
    ]


async def stored(client: httpx.AsyncClient, *given: dict[str, Any]) -> None:
    answer = await client.post("/documents", json={"documents": given})
    assert answer.status_code == 200, answer.text


def test_metadata_are_listed_with_their_most_frequent_values(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        empty = (await client.get("/metadata")).json()
        assert empty == {
            "keys": [],
            "documents": 0,
            "total": 0,
            "sampled": False,
            "more_keys": False,
        }
        await stored(client, *documents(12))
        found = (await client.get("/metadata")).json()
        assert [found[key] for key in ("documents", "total", "sampled")] == [12, 12, False]
        keys = {each["key"]: each for each in found["keys"]}
        assert keys["kind"] == {
            "key": "kind",
            "kind": "text",
            "documents": 12,
            "values": [{"value": "a", "documents": 9}, {"value": "b", "documents": 3}],
            "complete": True,
            "least": None,
            "greatest": None,
        }
        assert (keys["year"]["least"], keys["year"]["greatest"]) == (2000, 2002)
        assert (await client.get("/collections/default/metadata")).json() == found
        await stored(client, {"id": "d0", "text": "甲", "metadata": {"new": True}})
        after = (await client.get("/metadata")).json()
        assert [each["key"] for each in after["keys"]] == ["kind", "new", "tags", "year"]

    run(test, toy_model)


def test_map_shows_each_chunk_and_how_much_of_the_vectors_it_shows(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        empty = (await client.get("/map")).json()
        assert empty == {"points": [], "chunks": 0, "sampled": False, "variance": [0.0, 0.0]}
        await stored(client, *documents(30))
        whole = (await client.get("/map")).json()
        assert sorted(each["id"] for each in whole["points"]) == sorted(f"d{n}" for n in range(30))
        assert whole["chunks"] == 30 and whole["sampled"] is False
        first, second = whole["variance"]
        assert 0 < second <= first and first + second <= 1
        point = next(each for each in whole["points"] if each["id"] == "d1")
        assert point["title"] == "No. 1" and point["metadata"] == {"year": 2001, "kind": "a"}
        assert point["part"]["begin"] == 0 and "score" not in point
        some = (await client.get("/map", params={"sample": 10})).json()
        assert len(some["points"]) == 10 and some["sampled"] is True and some["chunks"] == 30
        again = (await client.get("/map", params={"sample": 10})).json()
        assert again == some
        await client.delete(f"/documents/{some['points'][0]['id']}")
        after = (await client.get("/map", params={"sample": 10})).json()
        shown, before = ({each["id"] for each in one["points"]} for one in (after, some))
        assert after["chunks"] == 29 and len(shown) == 10 and len(shown & before) == 9

    run(test, toy_model)


def test_map_places_a_query_and_takes_a_filter(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        given = documents(20)
        await stored(client, *given)
        asked = {"query": given[3]["text"], "filter": '{"kind": "a"}'}
        found = (await client.get("/map", params=asked)).json()
        assert found["chunks"] == 15
        best = max(found["points"], key=lambda each: each["score"])
        assert -1 <= best["score"] <= 1.0001 and set(found["query"]) == {"x", "y"}
        nothing = (await client.get("/map", params={"filter": '{"year": "2000"}'})).json()
        assert nothing["points"] == [] and "no value of 'year' can match" in nothing["warnings"][0]

    run(test, toy_model)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("sample=0", ("sample", "1 to 5000")),
        ("sample=5001", ("sample", "5001")),
        ("size=3", ("'size'", "'sample'")),
        ("query=", ("empty",)),
        ("filter=[]", ("filter",)),
    ],
)
def test_map_refuses_what_it_could_not_draw(
    toy_model: Model, query: str, words: tuple[str, ...]
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        answer = await client.get(f"/map?{query}")
        assert answer.status_code == 400
        check_refused(answer, 400, answer.json()["error"]["code"], *words)

    run(test, toy_model)


def test_stats_name_the_model_and_the_time_of_the_last_write(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        assert (await client.get("/stats")).json()["changed"] is None
        await stored(client, *documents(1))
        first = (await client.get("/stats")).json()
        assert first["model"] == toy_model.name and first["recall"] is None
        await stored(client, *documents(2))
        second = (await client.get("/stats")).json()
        assert second["changed"] >= first["changed"] > "2020"
        await stored(client, *documents(2))
        assert (await client.get("/stats")).json()["changed"] == second["changed"], "unchanged"

    run(test, toy_model)
