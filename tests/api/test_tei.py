"""Text Embeddings Inference's form beyond /embed: what is right, every refusal, headers, metrics."""

import asyncio
import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from server.api.dialects.tei import REFUSED
from server.inference.loop_tokenizer import HUGE_CHARACTERS, MAX_LISTED_CHARACTERS
from server.inference.model import Model
from server.telemetry.metrics import Metrics
from server.types import Vectors
from tests.support.clients import app_of, ask, lifespan, run, serving, stateful
from tests.support.fakes import PATIENCE_S, Broken, Gated, with_parts
from tests.support.toys import CHARACTERS

SAME = 1e-5
AS_JSON = {"content-type": "application/json"}
DEFAULT_TASK = ("/embed", "/", "/invocations")
TEXTS = {
    "Chinese": ["墨池"],
    "English": ["Search the index"],
    "several": ["墨池里有水", "ink and well", "笔 pen 😀"],
}
SENTENCES = {"source_sentence": "墨池", "sentences": ["笔架", "search"]}
# A good body of every path of TEI that answers vectors, tokens or texts.
GOOD: Mapping[str, dict[str, Any]] = {
    **{path: {"inputs": ["墨池"]} for path in DEFAULT_TASK},
    "/similarity": {"inputs": SENTENCES},
    "/tokenize": {"inputs": "墨池"},
    "/decode": {"ids": [5, 6]},
}
COMPUTED = (*DEFAULT_TASK, "/similarity")
by_computed = pytest.mark.parametrize("path", COMPUTED)
NUMBERS = """x-compute-time x-compute-characters x-compute-tokens x-total-time
    x-tokenization-time x-queue-time x-inference-time""".split()


def answer(model: Model, path: str, body: dict[str, Any]) -> Any:
    response = ask(model, "POST", path, body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


def refusal(response: httpx.Response, status: int, kind: str) -> str:
    """The message of an error of this status and kind in TEI's shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error", "error_type"}
    assert body["error_type"] == kind
    assert body["error"] and not body["error"].endswith(".")
    return str(body["error"])


# --- vectors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DEFAULT_TASK)
@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS)
def test_default_task_is_to_embed(toy_model: Model, path: str, texts: list[str]) -> None:
    expected = toy_model.embed(texts)
    np.testing.assert_allclose(answer(toy_model, path, {"inputs": texts}), expected, atol=SAME)
    if len(texts) == 1:
        single = answer(toy_model, path, {"inputs": texts[0]})
        np.testing.assert_allclose(single, expected, atol=SAME)


@pytest.mark.parametrize("direction", ["left", "Left"])
def test_beginning_is_cut_off_on_request(toy_model: Model, direction: str) -> None:
    long = [CHARACTERS[:63], CHARACTERS[:100], CHARACTERS * 100]
    body = {"inputs": ["墨池", *long], "truncation_direction": direction}
    # As the instruction stands at the beginning, it goes first.
    for name in ("document", "query"):
        response = ask(toy_model, "POST", "/embed", {**body, "prompt_name": name})
        expected = toy_model.embed([text[-62:] for text in long])
        np.testing.assert_allclose(response.json()[1:], expected, atol=SAME)
        assert response.headers["x-truncated"] == "3"
    cut = answer(toy_model, "/embed", {"inputs": long, "truncation_direction": "Right"})
    np.testing.assert_allclose(cut, toy_model.embed([text[:62] for text in long]), atol=SAME)


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [("/embed", "inputs", 422), ("/embed", "texts", 400), ("/invocations", "inputs", 422)],
)
def test_text_that_may_not_be_cut_is_named_with_its_length(
    toy_model: Model, path: str, key: str, status: int
) -> None:
    for text, said in (
        ("笔" * 98, "text 1 has 100 tokens, more than the 64 tokens"),
        ("笔" * 5000, "text 1 has 5002 tokens, more than the 64 tokens"),
        ("笔" * (HUGE_CHARACTERS + 1), "text 1 has more than the 64 tokens"),
    ):
        response = ask(toy_model, "POST", path, {key: ["墨", text], "truncate": False})
        assert response.status_code == status
        assert said in response.text


def test_length_of_a_text_that_may_not_be_cut_counts_its_instruction(toy_model: Model) -> None:
    body = {"inputs": "笔" * 60, "truncate": False}
    assert len(answer(toy_model, "/embed", body)) == 1
    response = ask(toy_model, "POST", "/embed", {**body, "prompt_name": "query"})
    assert "text 0 has 65 tokens" in refusal(response, 422, "Validation")


@pytest.mark.parametrize("dimensions", [0, -1, 16, 33])
def test_sizes_that_the_model_does_not_have_are_refused(toy_model: Model, dimensions: int) -> None:
    response = ask(toy_model, "POST", "/", {"inputs": "墨", "dimensions": dimensions})
    assert f"dimensions {dimensions} " in refusal(response, 422, "Validation")


# --- similarity -----------------------------------------------------------------------------------


def cosines(vectors: Vectors) -> Vectors:
    """Of the first row and each of the others."""
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(units[1:] @ units[0])


@pytest.mark.parametrize("sentences", TEXTS.values(), ids=TEXTS)
def test_similarity_is_the_cosine_of_the_engines_vectors(
    toy_model: Model, sentences: list[str]
) -> None:
    body: dict[str, Any] = {"inputs": {"source_sentence": "墨池", "sentences": sentences}}
    expected = cosines(toy_model.embed(["墨池", *sentences]))
    for parameters in ({}, {"parameters": None}, {"parameters": {"truncate": True}}):
        found = answer(toy_model, "/similarity", {**body, **parameters})
        np.testing.assert_allclose(found, expected, atol=SAME)
    instruction = toy_model.manifest.text.query_instruction
    asked = answer(toy_model, "/similarity", {**body, "parameters": {"prompt_name": "query"}})
    with_instruction = toy_model.embed([instruction + text for text in ("墨池", *sentences)])
    np.testing.assert_allclose(asked, cosines(with_instruction), atol=SAME)


def test_similarity_is_a_cosine_where_the_model_does_not_normalise(toy_model: Model) -> None:
    class Long:
        packing = toy_model.encoder.packing

        def encode(self, texts: Any) -> Vectors:
            return np.asarray(3 * toy_model.encoder.encode(texts))

    manifest = msgspec.structs.replace(toy_model.manifest, normalized=False)
    model = with_parts(toy_model, manifest=manifest, encoder=Long())
    found = answer(model, "/similarity", {"inputs": SENTENCES})
    expected = cosines(toy_model.embed(["墨池", "笔架", "search"]))
    np.testing.assert_allclose(found, expected, atol=SAME)


def test_similarity_counts_sentences_in_its_errors_as_the_caller_does(toy_model: Model) -> None:
    def asked(source: str, sentences: list[str], **parameters: Any) -> httpx.Response:
        inputs = {"source_sentence": source, "sentences": sentences}
        body = {"inputs": inputs, "parameters": parameters}
        return ask(toy_model, "POST", "/similarity", body, settings={"max_texts": 3})

    assert "source_sentence" in refusal(asked("", ["墨"]), 400, "Empty")
    assert "sentences" in refusal(asked("墨", []), 400, "Empty")
    assert "text 1 " in refusal(asked("墨", ["池", ""]), 400, "Empty")
    long = asked("墨", ["池", "笔" * 99], truncate=False)
    assert "text 1 has 101 tokens" in refusal(long, 422, "Validation")
    assert "3 are allowed" in refusal(asked("墨", ["池"] * 3), 422, "Validation")
    assert "poem" in refusal(asked("墨", ["池"], prompt_name="poem"), 422, "Validation")


# --- tokens ---------------------------------------------------------------------------------------


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
    # In order, and nothing but white space between them.
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


def test_tokens_are_told_of_several_texts_beyond_the_maximum(toy_model: Model) -> None:
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
        # "[UNK]" is a special token, and left out like the others.
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
    ("/", {"inputs": ["a"], "normalize": False}, 422, "Validation"),
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
        # Both read `error`, so TEI's shape serves whoever it is.
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
        # Two kinds of requests: one text, and as many as a comparison has.
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


# --- headers --------------------------------------------------------------------------------------


@by_computed
def test_headers_tell_what_was_computed_and_how_long_it_took(toy_model: Model, path: str) -> None:
    class Slow:
        packing = toy_model.encoder.packing

        def encode(self, texts: Any) -> Vectors:
            time.sleep(0.02)
            return toy_model.encoder.encode(texts)

    model = with_parts(toy_model, encoder=Slow(), wide=None)
    headers = ask(model, "POST", path, GOOD[path]).headers
    found = {name: int(headers[name]) for name in NUMBERS}
    assert headers["x-compute-type"] == "cpu"
    assert headers["x-truncated"] == "0"
    # [CLS], [SEP] and a token a character or word.
    characters, tokens = (10, 11) if path == "/similarity" else (2, 4)
    assert (found["x-compute-characters"], found["x-compute-tokens"]) == (characters, tokens)
    assert found["x-compute-time"] == found["x-total-time"]
    parts = ("x-tokenization-time", "x-queue-time", "x-inference-time")
    assert sum(found[name] for name in parts) <= found["x-total-time"]
    assert found["x-inference-time"] >= 20


def test_waiting_is_told_apart_from_computing(toy_model: Model) -> None:
    async def test() -> None:
        gate = Gated(toy_model.encoder)
        held = with_parts(toy_model, encoder=gate, wide=None)
        async with serving(held, lanes=1) as client:
            first = asyncio.create_task(client.post("/", json={"inputs": "墨"}))
            await asyncio.to_thread(gate.entered.wait, PATIENCE_S)
            second = asyncio.create_task(client.post("/", json={"inputs": "池"}))
            await asyncio.sleep(0.05)
            gate.open()
            stood, waited = (await first).headers, (await second).headers
            assert int(stood["x-inference-time"]) >= 40
            assert int(waited["x-queue-time"]) >= 40

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_other_forms_do_not_have_teis_headers(toy_model: Model) -> None:
    for path, body in (("/embed", {"texts": ["墨"]}), ("/v1/embeddings", {"input": "墨"})):
        headers = ask(toy_model, "POST", path, body).headers
        assert not {"x-compute-type", *NUMBERS} & set(headers)


# --- metrics --------------------------------------------------------------------------------------

TEI_NAMES = """te_request_count te_request_success te_request_failure te_request_duration
    te_request_tokenization_duration te_request_queue_duration te_request_inference_duration
    te_queue_size te_batch_next_size te_batch_next_tokens""".split()


def metrics_of(page: str) -> dict[str, float]:
    return {
        name: float(value) for name, value in re.findall(r"^(te_\S+) (\S+)$", page, re.MULTILINE)
    }


def test_metrics_have_the_names_of_tei_from_the_start() -> None:
    page = Metrics().render().decode()
    assert re.findall(r"^# HELP (te_\w+)", page, re.MULTILINE) == re.findall(
        r"^# TYPE (te_\w+)", page, re.MULTILINE
    )
    assert set(re.findall(r"^# TYPE (te_\w+)", page, re.MULTILINE)) == set(TEI_NAMES)
    documented = Path(__file__).parents[2] / "docs" / "http.md"
    assert all(f"`{name}`" in documented.read_text(encoding="utf-8") for name in TEI_NAMES)


def test_metrics_of_tei_count_what_is_counted_anyway(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for path in COMPUTED:
            assert (await client.post(path, json=GOOD[path])).status_code == 200
        assert (await client.post("/embed", json={"texts": ["墨"]})).status_code == 200
        for path in ("/api/embed", "/v1/embeddings"):
            assert (await client.post(path, json={"input": "墨"})).status_code == 200
        assert (await client.post("/vectors", json={"text": "墨"})).status_code == 200
        await client.post("/", json={"inputs": [""]})
        await client.post("/", json={"inputs": 5})
        # Neither of these asks for vectors.
        await client.post("/tokenize", json={"inputs": "墨"})
        await client.get("/api/tags")
        page = (await client.get("/metrics")).text
        found = metrics_of(page)
        assert found["te_request_count"] == 10
        assert found["te_request_success"] == 8
        assert found['te_request_failure{err="400"}'] == 1
        assert found['te_request_failure{err="422"}'] == 1
        assert found["te_request_duration_count"] == 10
        for name in ("tokenization", "queue", "inference"):
            assert found[f"te_request_{name}_duration_count"] == 8
            assert found[f"te_request_{name}_duration_sum"] > 0
            assert found[f'te_request_{name}_duration_bucket{{le="+Inf"}}'] == 8
        assert found["te_queue_size"] == 0
        # Of three paths a text each, of the comparison three, and four of the other forms.
        assert found["te_batch_next_size_sum"] == 10
        assert found["te_batch_next_tokens_sum"] == 3 * 4 + 11 + 4 * 3
        buckets = [
            value for name, value in found.items() if name.startswith("te_request_duration_b")
        ]
        assert buckets == sorted(buckets) and buckets[-1] == 10

    run(test, toy_model)


# --- OpenAPI --------------------------------------------------------------------------------------


def test_every_path_is_described_with_its_bodies(toy_model: Model) -> None:
    page = ask(toy_model, "GET", "/openapi.json").json()
    for path in ("/", "/invocations", "/similarity", "/tokenize", "/decode"):
        described = page["paths"][path]["post"]
        assert described["requestBody"]["content"]["application/json"]["schema"]
        assert described["responses"]["200"]["content"]["application/json"]["schema"]
    text = json.dumps(page)
    for key in ("source_sentence", "add_special_tokens", "skip_special_tokens", "raw_scores"):
        assert key in text
