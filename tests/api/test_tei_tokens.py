"""TEI's /tokenize and /decode: texts to tokens, and ids to texts."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from server.inference.model import Model
from server.inference.tokenization.loop_tokenizer import MAX_LISTED_CHARACTERS
from tests.api.test_tei import (
    AS_JSON,
    GOOD,
    SENTENCES,
    TEXTS,
    answer,
    by_computed,
    metrics_of,
    refusal,
)
from tests.support.clients import app_of, ask, lifespan, run, serving, stateful
from tests.support.fakes import PATIENCE_S, Broken, Gated, with_parts

# Tasks that the toy does not do.
REFUSED = ("/embed_all", "/embed_sparse")


@pytest.mark.parametrize(
    "text",
    [
        "墨池里有水",
        "the Index, 2026",
        "墨😀池 👩‍👩‍👧 笔",
        "  \n　墨池 ",
        "İ墨İİ 池",
        "𠀀墨é池",
        "검색 서버",
    ],
)
def test_tokens_cover_their_characters(toy_model: Model, text: str) -> None:
    (tokens,) = answer(toy_model, "/tokenize", {"inputs": text})
    assert [set(each) for each in tokens] == [{"id", "text", "special", "start", "stop"}] * len(
        tokens
    )
    (ids,) = toy_model.tokenizer.encode([text]).ids
    assert [each["id"] for each in tokens] == ids.tolist()
    assert [tokens[0]["text"], tokens[-1]["text"]] == ["[CLS]", "[SEP]"]
    for end in (tokens[0], tokens[-1]):
        assert (end["special"], end["start"], end["stop"]) == (True, None, None)
    inner = tokens[1:-1]
    assert not any(each["special"] for each in inner)
    assert all(text[each["start"] : each["stop"]] == each["text"] for each in inner)
    # In order, with only white space between them.
    stops = [0, *(each["stop"] for each in inner)]
    starts = [*(each["start"] for each in inner), len(text)]
    assert all(text[a:b].strip() == "" for a, b in zip(stops, starts, strict=True))


def test_characters_beyond_the_first_plane_are_one_place_each(toy_model: Model) -> None:
    (tokens,) = answer(toy_model, "/tokenize", {"inputs": "墨 😀 池", "add_special_tokens": False})
    assert [(each["text"], each["start"], each["stop"]) for each in tokens] == [
        ("墨", 0, 1),
        ("😀", 2, 3),
        ("池", 4, 5),
    ]


def test_tokens_of_several_texts_are_listed_beyond_the_maximum(toy_model: Model) -> None:
    texts = ["墨" * 3000, "search", *["池" * 40] * 100]
    found = answer(toy_model, "/tokenize", {"inputs": texts, "add_special_tokens": False})
    assert [len(tokens) for tokens in found] == [3000, 1, *[40] * 100]


def test_places_of_tokens_count_the_instruction(toy_model: Model) -> None:
    (tokens,) = answer(toy_model, "/tokenize", {"inputs": "墨", "prompt_name": "query"})
    assert [each["text"] for each in tokens] == ["[CLS]", "搜", "索", "：", "墨", "[SEP]"]
    assert (tokens[-2]["start"], tokens[-2]["stop"]) == (3, 4)


@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS)
def test_decoded_ids_are_tokenised_as_they_were(toy_model: Model, texts: list[str]) -> None:
    ids = [row.tolist() for row in toy_model.tokenizer.encode(texts).ids]
    decoded = answer(toy_model, "/decode", {"ids": ids})
    assert len(decoded) == len(texts)
    for text, row in zip(decoded, ids, strict=True):
        # "[UNK]" is a special token and is left out like the others.
        known = [each for each in row if each != 1]
        assert toy_model.tokenizer.encode([text]).ids[0].tolist() == known
    assert answer(toy_model, "/decode", {"ids": ids[0]}) == decoded[:1]


def test_special_tokens_are_decoded_on_request(toy_model: Model) -> None:
    (ids,) = (row.tolist() for row in toy_model.tokenizer.encode(["墨池"]).ids)
    body = {"ids": ids, "skip_special_tokens": False}
    assert answer(toy_model, "/decode", body) == ["[CLS] 墨 池 [SEP]"]
    assert answer(toy_model, "/decode", {"ids": ids}) == ["墨 池"]


WRONG: Sequence[tuple[str, dict[str, Any], int, str]] = [
    ("/tokenize", {}, 422, "Validation"),
    ("/tokenize", {"inputs": 5}, 422, "Validation"),
    ("/tokenize", {"inputs": ["a", None]}, 422, "Validation"),
    ("/tokenize", {"inputs": "a", "prompt_name": "poem"}, 422, "Validation"),
    ("/tokenize", {"inputs": "a", "add_special_tokens": "no"}, 422, "Validation"),
    ("/tokenize", {"inputs": []}, 400, "Empty"),
    ("/tokenize", {"inputs": ""}, 400, "Empty"),
    ("/tokenize", {"inputs": ["a", ""]}, 400, "Empty"),
    ("/tokenize", {"inputs": "a" * (MAX_LISTED_CHARACTERS + 1)}, 413, "Validation"),
    ("/tokenize", {"inputs": ["a"] * 2049}, 422, "Validation"),
    ("/decode", {}, 422, "Validation"),
    ("/decode", {"ids": "墨"}, 422, "Validation"),
    ("/decode", {"ids": [1.5]}, 422, "Validation"),
    ("/decode", {"ids": [-1]}, 422, "Validation"),
    ("/decode", {"ids": [1, 10**6]}, 422, "Validation"),
    ("/decode", {"ids": [2**40]}, 422, "Validation"),
    ("/decode", {"ids": [2**70]}, 422, "Validation"),
    ("/decode", {"ids": [1, [2]]}, 422, "Validation"),
    ("/decode", {"ids": [[[1]]]}, 422, "Validation"),
    ("/decode", {"ids": []}, 400, "Empty"),
    ("/decode", {"ids": [[1], []]}, 400, "Empty"),
    ("/decode", {"ids": [5] * (MAX_LISTED_CHARACTERS + 1)}, 413, "Validation"),
    ("/similarity", {"inputs": "a"}, 422, "Validation"),
    ("/similarity", {"inputs": {"source_sentence": "a"}}, 422, "Validation"),
    ("/similarity", {"inputs": {"source_sentence": 1, "sentences": ["a"]}}, 422, "Validation"),
    ("/similarity", {"inputs": SENTENCES, "parameters": {"truncate": 1}}, 422, "Validation"),
    ("/", {"inputs": [[1, 2]]}, 422, "Validation"),
    ("/", {"inputs": ["a"], "prompt_name": "poem"}, 422, "Validation"),
    ("/invocations", {"inputs": ["a", ""]}, 400, "Empty"),
    ("/invocations", {"texts": ["a"]}, 422, "Validation"),
    ("/rerank", {"query": "a", "texts": "b"}, 422, "Validation"),
    ("/rerank", {"query": "a", "texts": ["b"], "raw_scores": 1}, 422, "Validation"),
    ("/rerank", {"texts": ["b"]}, 422, "Validation"),
    ("/rerank", {"query": "", "texts": ["b"]}, 400, "Empty"),
    ("/rerank", {"query": "a", "texts": []}, 400, "Empty"),
    ("/rerank", {"query": "a", "texts": ["b", ""]}, 400, "Empty"),
    ("/rerank", {"query": "a", "texts": ["b"] * 2049}, 422, "Validation"),
    ("/rerank", {"query": "a", "texts": ["b"], "return_text": True}, 424, "Backend"),
    *((path, {"inputs": "a"}, 424, "Backend") for path in REFUSED),
]


def test_everything_wrong_is_said_in_teis_shape(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for path, body, status, kind in WRONG:
            response = await client.post(path, json=body)
            try:
                refusal(response, status, kind)
            except AssertionError as error:
                raise AssertionError(f"{path} {str(body)[:80]}: {error}") from None

    run(test, toy_model)


def test_half_a_character_is_refused(toy_model: Model) -> None:
    content = b'{"inputs": "\\ud800"}'
    response = ask(toy_model, "POST", "/tokenize", content=content, headers=AS_JSON)
    refusal(response, 422, "Validation")


def test_every_path_refuses_in_teis_shape_what_no_handler_sees(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for path in ("/", "/invocations", "/similarity", "/tokenize", "/decode", *REFUSED):
            refusal(await client.put(path, json={}), 405, "Validation")
            refusal(await client.post(path, content=b"{}"), 415, "Validation")
            large = await client.post(path, json={"inputs": "a" * 5000})
            refusal(large, 413, "Validation")
            if path in GOOD:
                broken = await client.post(path, content=b"{", headers=AS_JSON)
                refusal(broken, 422, "Validation")
                unknown = await client.post(path, json={**GOOD[path], "model": "gpt"})
                assert "'gpt'" in refusal(unknown, 422, "Validation")
        refusal(await client.post("/ping", json={}), 405, "Validation")

    run(test, toy_model, max_body_bytes=4000)


def test_root_is_shared_with_ollama_who_only_gets_it(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        large = await client.get("/", headers={"content-length": str(1 << 20)})
        assert (large.status_code, set(large.json())) == (413, {"error"})
        # Clients of both dialects read `error`, so TEI's shape suits them.
        for method in ("PUT", "PATCH", "DELETE", "OPTIONS"):
            response = await client.request(method, "/", json={})
            refusal(response, 405, "Validation")
            assert {"GET", "POST"} <= set(response.headers["allow"].split(", "))

    run(test, toy_model, max_body_bytes=4000)


@by_computed
def test_full_queue_is_said_with_a_time_to_retry(toy_model: Model, path: str) -> None:
    async def test() -> None:
        gate = Gated(toy_model.encoder)
        held = with_parts(toy_model, encoder=gate)
        # Two kinds of requests: one text, and those of a comparison.
        async with serving(
            held, lanes=1, interactive_queue_tokens=12, bulk_queue_tokens=1
        ) as client:
            first = asyncio.create_task(client.post(path, json=GOOD[path]))
            await asyncio.to_thread(gate.entered.wait, PATIENCE_S)
            waiting = asyncio.create_task(client.post("/embed", json={"inputs": "墨" * 10}))
            await asyncio.sleep(0)
            page = metrics_of((await client.get("/metrics")).text)
            assert page["te_queue_size"] >= 1
            response = await client.post(path, json=GOOD[path])
            refusal(response, 429, "Overloaded")
            assert int(response.headers["retry-after"]) >= 1
            gate.open()
            assert [(await one).status_code for one in (first, waiting)] == [200, 200]

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


@by_computed
def test_failed_computation_is_the_backends(toy_model: Model, path: str) -> None:
    model = with_parts(toy_model, encoder=Broken())
    refusal(ask(model, "POST", path, GOOD[path]), 424, "Backend")


@by_computed
def test_unforeseen_error_is_500_and_tells_nothing(toy_model: Model, path: str) -> None:
    class Surprise:
        def encode(self, texts: Sequence[str], input_type: str) -> None:
            raise LookupError("the secret path")

    model = with_parts(toy_model, tokenizer=Surprise())
    assert "secret" not in refusal(ask(model, "POST", path, GOOD[path]), 500, "Backend")


def test_ping_is_empty_until_the_server_stops(toy_model: Model) -> None:
    async def test() -> None:
        app = app_of(toy_model, lanes=1)
        async with lifespan(app) as state:
            transport = httpx.ASGITransport(stateful(app, state))
            async with httpx.AsyncClient(transport=transport, base_url="http://inkwell") as client:
                ready = await client.get("/ping")
                assert (ready.status_code, ready.content) == (200, b"")
                await asyncio.to_thread(state["models"].close)
                stopping = await client.get("/ping")
                refusal(stopping, 503, "Unhealthy")
                assert stopping.headers["retry-after"]

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))
