"""Synonyms and stop words over HTTP: used at once, kept in reindexing, backups and after kills."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from server.inference.model import Model
from server.store.words import vocabulary
from tests.api.test_collections import check_refused, found
from tests.api.test_copies import copy_of, restored
from tests.support.clients import run
from tests.support.fakes import eventually
from tests.support.processes import serving

TEXTS = {
    "zh": "人工智能正在改变世界",
    "en": "Artificial intelligence changes the world",
    "apart": "intelligence of an artificial kind",
    "car": "two cars",
    "auto": "an automobile",
    "of": "世界的书",
}
WORDS: dict[str, Any] = {
    "synonyms": [["AI", "人工智能", "artificial intelligence"], ["car", "automobile"]],
    "stop_words": ["的", "please tell"],
}
LAWS = "/collections/laws"


async def filled(client: httpx.AsyncClient) -> None:
    assert (await client.post("/collections", json={"name": "laws"})).status_code == 201
    documents = [{"id": id, "text": text} for id, text in TEXTS.items()]
    answer = await client.post(f"{LAWS}/documents", json={"documents": documents})
    assert answer.status_code == 200


async def by_words(client: httpx.AsyncClient, query: str, path: str = LAWS) -> set[str]:
    return set(await found(client, {"query": query, "mode": "lexical"}, path))


async def check_used(client: httpx.AsyncClient, path: str = LAWS) -> None:
    assert (await client.get(f"{path}/words")).json() == WORDS
    # A phrase of several words is found in a row only; a plural is folded as elsewhere.
    assert await by_words(client, "Ai", path) == {"zh", "en"}
    assert await by_words(client, "ＡＩ", path) == {"zh", "en"}
    assert await by_words(client, "人工智慧 automobiles", path) >= {"car", "auto"}
    assert await by_words(client, "cars", path) == {"car", "auto"}
    assert await by_words(client, "please tell 的", path) == {"of"}
    assert await by_words(client, '"AI"', path) == set()


def test_words_are_used_at_once_and_kept(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await filled(client)
        assert (await client.get(f"{LAWS}/words")).json() == {"synonyms": [], "stop_words": []}
        assert await by_words(client, "AI") == set()
        assert await by_words(client, "cars") == {"car"}
        answer = await client.put(f"{LAWS}/words", json=WORDS)
        assert (answer.status_code, answer.json()) == (200, WORDS)
        await check_used(client)
        hybrid = {"query": "AI", "mode": "hybrid", "top_k": 2}
        assert set(await found(client, hybrid, LAWS)) == {"zh", "en"}
        # Documents are written and found as before.
        await client.post(f"{LAWS}/documents", json={"documents": [{"id": "n", "text": "AI"}]})
        assert await by_words(client, "AI") == {"zh", "en", "n"}
        await client.delete(f"{LAWS}/documents/n")

        assert (await client.post(f"{LAWS}/reindex", json={"chunks": None})).status_code == 202
        while (stats := (await client.get(f"{LAWS}/stats")).json())["reindexing"] is not None:
            assert stats["reindex_error"] is None
        await check_used(client)
        content = await copy_of(client, "laws")
        assert (await restored(client, "copy", content)).status_code == 201
        await check_used(client, "/collections/copy")
        await client.post("/collections/copy/rename", json={"name": "other"})
        await check_used(client, "/collections/other")
        assert (await client.put(f"{LAWS}/words", json={})).json()["synonyms"] == []
        assert await by_words(client, "AI") == set()

    run(test, toy_model)


def test_signs_are_part_of_a_synonym_and_of_a_stop_word(toy_model: Model) -> None:
    """C++ is not C: a synonym of one finds nothing of the other."""

    async def test(client: httpx.AsyncClient) -> None:
        assert (await client.post("/collections", json={"name": "laws"})).status_code == 201
        texts = {"c": "C 语言", "cpp": "C++ 语言", "sharp": "C# 语言", "name": "cpp"}
        documents = [{"id": id, "text": text} for id, text in texts.items()]
        await client.post(f"{LAWS}/documents", json={"documents": documents})
        words = {"synonyms": [["C++", "cpp"], ["C#", "csharp"]], "stop_words": []}
        assert (await client.put(f"{LAWS}/words", json=words)).status_code == 200
        assert await by_words(client, "cpp") == {"cpp", "name"}
        assert await by_words(client, "csharp") == {"sharp"}
        assert await by_words(client, "C") == {"c", "cpp", "sharp"}
        assert (await client.put(f"{LAWS}/words", json={"stop_words": ["C"]})).status_code == 200
        query = {"query": "C++ 语言", "mode": "lexical", "top_k": 1}
        assert await found(client, query, LAWS) == ["cpp"]

    run(test, toy_model)


def test_stop_words_are_cut_beside_what_is_quoted_or_excluded() -> None:
    given = vocabulary.Given(stop_words=["the", "17"])
    asked = vocabulary.vocabulary_of(vocabulary.note_of(given)).ask
    for query, words in (
        ('the labour "of the state"', ("labour",)),
        ("the labour -the", ("labour",)),
        ('"of the state" the', ()),
        ("the -draft", ("the",)),
        # Without the number two marks of inches would be a quotation.
        ('17" wide 19"', ("17", "wide", "19")),
    ):
        assert asked(query).words == words, query
    assert asked('the labour "of the state"').rows == ["of the state"]


def test_stop_word_within_chinese_is_cut(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await filled(client)
        await client.put(f"{LAWS}/words", json={"stop_words": ["的", "界"]})
        assert await by_words(client, "的") == {"of"}
        assert await by_words(client, "书的") == {"of"}
        assert await by_words(client, "世界") >= {"zh", "of"}

    run(test, toy_model)


def test_default_collection_has_none_until_they_are_set(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        assert (await client.get("/words")).json() == {"synonyms": [], "stop_words": []}
        assert (await client.put("/words", json=WORDS)).status_code == 200
        assert (await client.get("/words")).json() == WORDS

    run(test, toy_model)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"synonyms": [["AI"]]}, "synonyms[0] needs two"),
        ({"synonyms": [["AI", "ai", "ＡＩ"]]}, "that differ"),
        ({"synonyms": [["AI", "!?"]]}, "no letter or digit"),
        # Of the block of Chinese characters, but not assigned.
        ({"synonyms": [["AI", "\ufada"]]}, "no letter or digit"),
        ({"synonyms": [["AI", "x" * 101]]}, "101 characters, at most 100"),
        ({"synonyms": [["a", "b"]] * 2001}, "2001 groups, at most 2000"),
        ({"synonyms": [[f"a{n}" for n in range(33)]]}, "33 phrases, at most 32"),
        ({"stop_words": [""]}, "no letter or digit"),
        ({"stop_words": ["a"] * 2001}, "2001 words, at most 2000"),
        (
            {"synonyms": [[f"{n:032} {m:060}" for n in range(32)] for m in range(80)]},
            "at most 200000",
        ),
        ({"synonyms": ["AI"]}, "synonyms[0]"),
        ({"stopwords": []}, "stopwords"),
    ],
)
def test_lists_beyond_the_limits_are_refused_and_change_nothing(
    toy_model: Model, body: dict[str, Any], said: str
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        assert (await client.put("/words", json=WORDS)).status_code == 200
        check_refused(await client.put("/words", json=body), 400, "invalid_request", said)
        assert (await client.get("/words")).json() == WORDS

    run(test, toy_model)


def test_longest_lists_are_ready_and_asked_in_little_time() -> None:
    groups = [[f"w{n} x{m}" for m in range(12)] for n in range(1500)]
    given = vocabulary.Given(groups, [f"s{n}" for n in range(2000)])
    vocabulary.check(given)
    known = vocabulary.vocabulary_of(vocabulary.note_of(given))
    asked = known.ask("w7 x3 " * 600)
    assert len(asked.words) <= 64 + vocabulary.MAX_ADDED
    assert "w7 x4" in asked.words


def test_words_that_were_acknowledged_survive_a_kill(toy_artifact: Path, tmp_path: Path) -> None:
    with serving(toy_artifact, tmp_path) as server, server.client() as client:
        documents = {"documents": [{"id": "a", "text": "人工智能"}]}
        assert client.post("/documents", json=documents).status_code == 200
        assert client.put("/words", json=WORDS).status_code == 200
        server.process.kill()
        server.wait()
    with serving(toy_artifact, tmp_path) as server, server.client() as client:
        assert client.get("/words").json() == WORDS
        hits = client.post("/search", json={"query": "AI", "mode": "lexical"}).json()["hits"]
        assert [hit["id"] for hit in hits] == ["a"]
        eventually(lambda: client.get("/ready").status_code == 200)


async def marked(client: httpx.AsyncClient, path: str = LAWS, **body: Any) -> dict[str, list[str]]:
    reply = await client.post(f"{path}/search", json={"highlight": True, **body})
    assert reply.status_code == 200, reply.text
    return {
        hit["id"]: [hit["text"][begin:end] for begin, end in hit["highlights"]]
        for hit in reply.json()["hits"]
    }


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_highlights_mark_synonyms_and_no_stop_words(toy_model: Model, mode: str) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await filled(client)
        await client.put(f"{LAWS}/words", json=WORDS)
        found = await marked(client, query="AI 的", mode=mode)
        assert found["zh"] == ["人工智能"]
        assert found["en"] == ["Artificial", "intelligence"]
        # A phrase is not marked where its words stand apart.
        assert found.get("apart", []) == found.get("of", []) == []
        found = await marked(client, query="automobiles", mode=mode)
        assert (found["car"], found["auto"]) == (["cars"], ["automobile"])
        # Each collection has its own.
        await client.post("/collections", json={"name": "other"})
        documents = [{"id": "plain", "text": "two cars, an automobile"}]
        await client.post("/collections/other/documents", json={"documents": documents})
        found = await marked(
            client, "", query="automobile", mode=mode, collections=["other", "laws"]
        )
        assert (found["plain"], found["car"]) == (["automobile"], ["cars"])
        found = await marked(client, query="改變 worlds", mode=mode)
        assert (found["zh"], found["en"]) == (["改变"], ["world"])

    run(test, toy_model)
