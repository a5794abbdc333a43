"""Every route of every dialect, in this process: what is right, and every way to be wrong."""

import asyncio
import base64
import gc
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from server import VERSION
from server.api.dialects.openai import MAX_INPUTS
from server.api.endpoint import (
    LEAST_BYTES_S,
    MAX_LARGE_BODIES,
    REQUEST_ID,
    SMALL_BODY_BYTES,
    WATCH_AFTER_S,
    WRITE,
    Call,
    Endpoint,
    Handler,
    Patience,
    Reply,
    Share,
    Watch,
    json_body,
    longest,
    send_reply,
)
from server.api.native_errors import error_reply
from server.app import every_operation
from server.config import Config
from server.inference.model import Model
from server.telemetry.metrics import Metrics
from server.types import Vectors
from tests.support.clients import Wire, app_of, ask, lifespan, run, serving, stateful
from tests.support.fakes import PATIENCE_S, Broken, Gated, with_parts
from tests.support.toys import toy_texts

SAME = 1e-5
AS_JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Form:
    """One way to ask for vectors."""

    dialect: str
    path: str
    key: str

    def body(self, texts: Any, **others: Any) -> dict[str, Any]:
        return {self.key: texts, **others}

    def __str__(self) -> str:
        return f"{self.dialect} {self.path}"


NATIVE = Form("native", "/embed", "texts")
TEI = Form("tei", "/embed", "inputs")
OPENAI = Form("openai", "/v1/embeddings", "input")
OLLAMA = Form("ollama", "/api/embed", "input")
FORMS = (NATIVE, TEI, OPENAI, Form("openai", "/embeddings", "input"), OLLAMA)
# Every route with the dialect of its errors; POST routes are those of FORMS, and those of ONE_TEXT.
GETS = {
    "/api/tags": "ollama",
    "/api/ps": "ollama",
    "/api/version": "ollama",
    "/meta": "weaviate",
    "/.well-known/live": "weaviate",
    "/.well-known/ready": "weaviate",
    "/v1/models": "openai",
    "/v1/models/toy": "openai",
    "/info": "tei",
    "/health": "native",
    "/ready": "native",
    "/metrics": "native",
    "/openapi.json": "native",
    "/docs": "native",
}
POSTS = {
    "/embed": "native",
    "/v1/embeddings": "openai",
    "/embeddings": "openai",
    "/api/embed": "ollama",
}
# Their dialect and the key of their text, which is a name in one of them.
ONE_TEXT = {
    "/api/embeddings": ("ollama", "prompt"),
    "/api/show": ("ollama", "model"),
    "/vectors": ("weaviate", "text"),
    "/vectors/": ("weaviate", "text"),
}
by_form = pytest.mark.parametrize("form", FORMS, ids=str)


def vectors_of(form: Form, response: httpx.Response) -> Vectors:
    """float32 (B, D) out of an answer of floats."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    if form.dialect == "native":
        assert set(body) == {"vectors"}
        body = body["vectors"]
    elif form.dialect == "openai":
        assert [row["index"] for row in body["data"]] == list(range(len(body["data"])))
        body = [row["embedding"] for row in body["data"]]
    elif form.dialect == "ollama":
        body = body["embeddings"]
    return np.array(body, dtype=np.float32)


# --- what is right --------------------------------------------------------------------------------


OF_DOCUMENTS = ("/collections", "/documents", "/search", "/stats", "/reindex")
OF_TEI = """/ /invocations /similarity /tokenize /decode /embed_all /embed_sparse /predict /ping
    /rerank /v1/rerank /v2/rerank""".split()


def test_tables_above_have_every_route() -> None:
    routes = {
        (each.method, each.path)
        for each in every_operation(Config(), Metrics())
        # Those have tests of their own.
        if not each.path.startswith(OF_DOCUMENTS) and each.path not in OF_TEI
    }
    gets = {path.replace("/toy", "/{model:path}") for path in GETS}
    posts = {("POST", path) for path in (*POSTS, *ONE_TEXT)}
    assert routes == {("GET", path) for path in gets} | posts
    assert {form.path for form in FORMS} == set(POSTS)


@by_form
def test_each_form_gives_the_vectors_in_order(toy_model: Model, form: Form) -> None:
    texts = toy_texts(150, seed=21)
    response = ask(toy_model, "POST", form.path, form.body(texts))
    np.testing.assert_allclose(vectors_of(form, response), toy_model.embed(texts), atol=SAME)
    assert int(response.headers["content-length"]) == len(response.content)
    assert response.headers["x-truncated"] == "0"


@pytest.mark.parametrize("form", [TEI, *FORMS[2:]], ids=str)
def test_a_string_is_a_list_of_one(toy_model: Model, form: Form) -> None:
    response = ask(toy_model, "POST", form.path, form.body("墨池"))
    assert vectors_of(form, response).shape == (1, 32)
    np.testing.assert_allclose(vectors_of(form, response), toy_model.embed(["墨池"]), atol=SAME)


def test_native_takes_a_list_only(toy_model: Model) -> None:
    assert ask(toy_model, "POST", "/embed", {"texts": "墨池"}).status_code == 400


def test_tei_answers_a_bare_list_of_lists(toy_model: Model) -> None:
    body = ask(toy_model, "POST", "/embed", {"inputs": "墨池"}).json()
    assert len(body) == 1 and len(body[0]) == 32


@by_form
def test_unknown_keys_are_ignored(toy_model: Model, form: Form) -> None:
    body = form.body(["墨池"], user="me", stream=True, priority=[1, {"a": None}], **{"": 0})
    body["user"] = "me" if form.dialect == "openai" else {"any": "thing"}
    vectors = vectors_of(form, ask(toy_model, "POST", form.path, body))
    np.testing.assert_allclose(vectors, toy_model.embed(["墨池"]), atol=SAME)


@pytest.mark.parametrize("form", [NATIVE, *FORMS[2:4]], ids=str)
def test_base64_is_float32_bit_for_bit(toy_model: Model, form: Form) -> None:
    texts = toy_texts(20, seed=22)
    answers = []

    async def test(client: httpx.AsyncClient) -> None:
        for encoding in ("float", "base64"):
            body = form.body(texts, encoding_format=encoding)
            answers.append(await client.post(form.path, json=body))

    # In the same company every time: with one lane all texts are one batch.
    run(test, toy_model, lanes=1)
    rows = answers[1].json()
    rows = rows["vectors"] if form is NATIVE else [row["embedding"] for row in rows["data"]]
    decoded = np.stack([np.frombuffer(base64.b64decode(row, validate=True), "<f4") for row in rows])
    np.testing.assert_array_equal(decoded, vectors_of(form, answers[0]))


def test_openai_answer_has_all_its_keys(toy_model: Model) -> None:
    body = ask(toy_model, "POST", "/v1/embeddings", {"input": ["墨池", "笔"], "user": None}).json()
    assert set(body) == {"object", "data", "model", "usage"}
    assert body["object"] == "list"
    assert [set(row) for row in body["data"]] == [{"object", "index", "embedding"}] * 2
    assert {row["object"] for row in body["data"]} == {"embedding"}
    assert body["model"] == "toy"
    assert body["usage"] == {"prompt_tokens": 7, "total_tokens": 7}


@by_form
def test_tokens_and_truncated_texts_are_told(toy_model: Model, form: Form) -> None:
    texts = ["墨" * 62, "池" * 63, "笔" * 1000]
    response = ask(toy_model, "POST", form.path, form.body(texts))
    assert response.headers["x-truncated"] == "2"
    if form.dialect == "openai":
        assert response.json()["usage"]["prompt_tokens"] == 3 * 64
    if form is OLLAMA:
        assert response.json()["prompt_eval_count"] == 3 * 64
    if form is TEI:
        assert response.headers["x-compute-tokens"] == str(3 * 64)


@pytest.mark.parametrize("form", [NATIVE, TEI, OLLAMA], ids=str)
def test_caller_can_forbid_truncation(toy_model: Model, form: Form) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        cut = await client.post(form.path, json=form.body(["笔", "池" * 63], truncate=False))
        message = check_error(form.dialect, cut, 422 if form is TEI else 400, "text_too_long")
        assert "text 1 " in message and "64" in message
        whole = await client.post(form.path, json=form.body(["笔", "池" * 62], truncate=False))
        assert vectors_of(form, whole).shape == (2, 32)

    run(test, toy_model)


@pytest.mark.parametrize(
    "form, options",
    [
        (NATIVE, {"input_type": "query"}),
        (TEI, {"prompt_name": "query"}),
        (OPENAI, {"input_type": "query"}),
        (OLLAMA, {"model": "toy:query"}),
    ],
    ids=str,
)
def test_query_gets_the_instruction(toy_model: Model, form: Form, options: Any) -> None:
    response = ask(toy_model, "POST", form.path, form.body(["墨池"], **options))
    expected = toy_model.embed([toy_model.manifest.text.query_instruction + "墨池"])
    np.testing.assert_allclose(vectors_of(form, response), expected, atol=SAME)


@pytest.mark.parametrize("name", [None, "document", "passage"])
def test_other_prompts_of_tei_are_documents(toy_model: Model, name: str | None) -> None:
    response = ask(toy_model, "POST", "/embed", {"inputs": "墨池", "prompt_name": name})
    np.testing.assert_allclose(vectors_of(TEI, response), toy_model.embed(["墨池"]), atol=SAME)


@by_form
def test_native_size_is_always_accepted_as_dimensions(toy_model: Model, form: Form) -> None:
    response = ask(toy_model, "POST", form.path, form.body(["墨池"], dimensions=32))
    assert vectors_of(form, response).shape == (1, 32)


@by_form
def test_trained_size_is_cut_and_normalised(toy_model: Model, form: Form) -> None:
    manifest = msgspec.structs.replace(toy_model.manifest, matryoshka_dimensions=[8])
    model = with_parts(toy_model, manifest=manifest)
    vectors = vectors_of(form, ask(model, "POST", form.path, form.body(["墨池"], dimensions=8)))
    expected = toy_model.embed(["墨池"])[:, :8]
    np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected), atol=SAME)


def test_tei_normalises_what_the_model_does_not(toy_model: Model) -> None:
    class Long:
        packing = toy_model.encoder.packing

        def encode(self, texts: Any) -> Vectors:
            return np.asarray(3 * toy_model.encoder.encode(texts))

    manifest = msgspec.structs.replace(toy_model.manifest, normalized=False)
    model = with_parts(toy_model, manifest=manifest, encoder=Long())
    expected = toy_model.embed(["墨池"])
    for normalize, factor in ((True, 1), (False, 3)):
        response = ask(model, "POST", "/embed", {"inputs": "墨池", "normalize": normalize})
        np.testing.assert_allclose(vectors_of(TEI, response), factor * expected, atol=SAME)


def test_last_of_duplicate_keys_counts(toy_model: Model) -> None:
    for form in FORMS:
        body = f'{{"{form.key}": ["墨"], "{form.key}": ["墨池"]}}'.encode()
        response = ask(toy_model, "POST", form.path, content=body, headers=AS_JSON)
        np.testing.assert_allclose(vectors_of(form, response), toy_model.embed(["墨池"]), atol=SAME)


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "Application/JSON", "a/b+json"]
)
def test_json_by_any_of_its_names_is_read(toy_model: Model, kind: str) -> None:
    for form in FORMS:
        content = json.dumps(form.body(["墨池"])).encode()
        headers = {"content-type": kind}
        response = ask(toy_model, "POST", form.path, content=content, headers=headers)
        assert response.status_code == 200


def test_escaped_and_unescaped_characters_are_the_same_text(toy_model: Model) -> None:
    for form in FORMS:
        text = "墨池𠀀\u0000\t"
        for ascii_only in (True, False):
            content = json.dumps(form.body([text]), ensure_ascii=ascii_only).encode()
            response = ask(toy_model, "POST", form.path, content=content, headers=AS_JSON)
            np.testing.assert_allclose(
                vectors_of(form, response), toy_model.embed([text]), atol=SAME
            )


def test_models_are_listed_and_found_by_every_name(toy_model: Model) -> None:
    manifest = msgspec.structs.replace(toy_model.manifest, model_id="someone/toy")
    model = with_parts(toy_model, manifest=manifest)

    async def test(client: httpx.AsyncClient) -> None:
        listed = (await client.get("/v1/models")).json()
        assert listed["object"] == "list"
        assert [one["id"] for one in listed["data"]] == [
            "someone/toy",
            "someone/toy:query",
            "ada",
            "ada:query",
        ]
        assert [set(one) for one in listed["data"]] == [{"id", "object", "created", "owned_by"}] * 4
        for name in ("someone/toy", "toy", "ada", "ada:query"):
            one = await client.get(f"/v1/models/{name}")
            assert (one.status_code, one.json()["id"]) == (200, name)
            assert (await client.get("/v1/models/someone%2Ftoy")).json()["id"] == "someone/toy"
            answer = await client.post("/v1/embeddings", json={"input": "墨", "model": name})
            assert answer.json()["model"] == name
        unnamed = await client.post("/v1/embeddings", json={"input": "墨", "model": ""})
        assert unnamed.json()["model"] == "someone/toy"
        unknown = await client.post("/v1/embeddings", json={"input": "墨", "model": "gpt"})
        assert "'gpt'" in check_error("openai", unknown, 404, "model_not_found", param="model")
        check_error("openai", await client.get("/v1/models/gpt"), 404, "model_not_found")

    run(test, model, model_alias="ada")


def test_info_has_the_keys_of_tei(toy_model: Model) -> None:
    info = ask(toy_model, "GET", "/info", settings={"model_alias": "ada"}).json()
    assert info["model_id"] == "toy"
    assert info["served_model_name"] == "ada"
    assert info["model_type"] == {"embedding": {"pooling": "cls"}}
    assert info["max_input_length"] == 64
    assert info["max_client_batch_size"] == Config().max_texts
    assert info["version"] == VERSION
    assert info["fingerprint"] == toy_model.manifest.fingerprint
    keys = """model_sha model_dtype max_concurrent_requests max_batch_tokens max_batch_requests
        auto_truncate tokenization_workers sha docker_label"""
    assert set(keys.split()) <= set(info)


def test_health_and_ready_say_so(toy_model: Model) -> None:
    assert ask(toy_model, "GET", "/health").json() == {"status": "ok"}
    assert ask(toy_model, "GET", "/ready").json() == {"status": "ready", "model": "toy"}


def metric(text: str, name: str, **labels: str) -> float:
    wanted = ",".join(f'{key}="{value}"' for key, value in labels.items())
    line = f"inkwell_{name}{{{wanted}}}" if labels else f"inkwell_{name}"
    found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_metrics_count_what_was_answered(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for _ in range(3):
            await client.post("/embed", json={"texts": ["墨池", "笔" * 99]})
        await client.post("/embed", json={"texts": []})
        await client.post("/embed", json={"inputs": 5})
        await client.get("/v1/models/some-name")
        await client.get("/nowhere")
        page = await client.get("/metrics")
        assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert metric(page.text, "requests_total", route="/embed", status="200") == 3
        assert metric(page.text, "requests_total", route="/embed", status="400") == 1
        assert metric(page.text, "requests_total", route="/embed", status="422") == 1
        assert metric(page.text, "texts_total") == 6
        assert metric(page.text, "truncated_texts_total") == 3
        assert metric(page.text, "tokens_total") == 3 * (4 + 64)
        assert metric(page.text, "request_seconds_count", route="/embed") == 5
        assert metric(page.text, "lanes") == 2
        # Names that callers choose must not become labels.
        assert "some-name" not in page.text and "nowhere" not in page.text

    run(test, toy_model)


# --- what is wrong --------------------------------------------------------------------------------


def check_error(
    dialect: str,
    response: httpx.Response,
    status: int,
    code: str | None = None,
    *,
    param: str | None = None,
) -> str:
    """The answer is an error of this status in the dialect's shape; returns its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) == len(response.content)
    body = response.json()
    if dialect == "tei":
        assert set(body) == {"error", "error_type"}
        kinds = {400: "Empty", 424: "Backend", 429: "Overloaded", 500: "Backend", 503: "Unhealthy"}
        assert body["error_type"] == kinds.get(status, "Validation")
        message = body["error"]
    elif dialect in ("ollama", "weaviate"):
        assert set(body) == {"error"}
        message = body["error"]
    else:
        assert set(body) == {"error"}
        keys = {"code", "message"} | ({"type", "param"} if dialect == "openai" else set())
        assert set(body["error"]) == keys
        assert code is None or body["error"]["code"] == code
        assert param is None or body["error"]["param"] == param
        message = body["error"]["message"]
    assert isinstance(message, str) and message
    assert not message.endswith(".") and "Traceback" not in message
    retries = status in (429, 503)
    assert (response.headers.get("retry-after") is not None) == retries
    if retries:
        assert 1 <= int(response.headers["retry-after"]) <= 60
    return message


NESTED = 100_000
BROKEN_BODIES = {
    "empty": b"",
    "white space": b"  \n",
    "no object": b"[]",
    "a string": b'"KEY"',
    "null": b"null",
    "cut short": b'{"KEY": ["a"',
    "two values": b'{"KEY": ["a"]} {}',
    "comma": b'{"KEY": ["a",]}',
    "single quotes": b"{'KEY': ['a']}",
    "NaN": b'{"KEY": ["a"], "dimensions": NaN}',
    "infinity": b'{"KEY": ["a"], "dimensions": -Infinity}',
    "not a number": b'{"KEY": ["a"], "dimensions": 1.2.3}',
    "huge float": b'{"KEY": ["a"], "dimensions": 1e999}',
    "huge integer": b'{"KEY": ["a"], "dimensions": 1' + b"0" * 5000 + b"}",
    "negative": b'{"KEY": ["a"], "dimensions": -9223372036854775809}',
    "nested": b'{"KEY": ' + b"[" * NESTED + b"]" * NESTED + b"}",
    "nested and open": b'{"KEY": ' + b"[" * NESTED,
    "nested objects": b'{"KEY": ' + b'{"a":' * NESTED,
    "nested elsewhere": b'{"KEY": ["a"], "x": ' + b"[" * NESTED + b"]" * NESTED + b"}",
    "bad UTF-8": b'{"KEY": ["\xff\xfe"]}',
    "cut UTF-8": b'{"KEY": ["\xe5\xa2"]}',
    "overlong UTF-8": b'{"KEY": ["\xc0\xaf"]}',
    "surrogate in UTF-8": b'{"KEY": ["\xed\xa0\x80"]}',
    "UTF-16": '{"KEY": ["a"]}'.encode("utf-16"),
    "lone surrogate": b'{"KEY": ["\\ud800"]}',
    "lone low surrogate": b'{"KEY": ["a\\udc00b"]}',
    "surrogate twice": b'{"KEY": ["\\ud800\\ud800"]}',
    "bad escape": b'{"KEY": ["\\x"]}',
    "control character": b'{"KEY": ["a\nb"]}',
    "gzip": b"\x1f\x8b\x08\x00",
}
WRONG_VALUES: dict[str, dict[str, Any]] = {
    "number": {"KEY": 5},
    "null": {"KEY": None},
    "true": {"KEY": True},
    "object": {"KEY": {"a": "b"}},
    "numbers": {"KEY": [1, 2, 3]},
    "lists of numbers": {"KEY": [[1, 2], [3]]},
    "null in the list": {"KEY": ["a", None]},
    "number in the list": {"KEY": ["a", 5]},
    "list in the list": {"KEY": ["a", ["b"]]},
    "true in the list": {"KEY": [True]},
    "dimensions as a string": {"KEY": ["a"], "dimensions": "32"},
    "dimensions as a fraction": {"KEY": ["a"], "dimensions": 31.5},
    "no dimensions": {"KEY": ["a"], "dimensions": 0},
    "negative dimensions": {"KEY": ["a"], "dimensions": -32},
    "other dimensions": {"KEY": ["a"], "dimensions": 16},
    "too many dimensions": {"KEY": ["a"], "dimensions": 33},
    "huge dimensions": {"KEY": ["a"], "dimensions": 10**30},
}
EMPTY: dict[str, dict[str, Any]] = {
    "empty list": {"KEY": []},
    "empty text": {"KEY": ["a", ""]},
}
WRONG_OPTIONS: dict[Form, list[dict[str, Any]]] = {
    NATIVE: [
        {"input_type": "title"},
        {"input_type": 1},
        {"encoding_format": "hex"},
        {"truncate": "yes"},
        {"inputs": ["b"]},
    ],
    TEI: [
        {"truncate": "yes"},
        {"truncation_direction": "middle"},
        {"truncation_direction": 5},
        {"prompt_name": "poem"},
        {"normalize": False},
        {"normalize": "no"},
    ],
    OPENAI: [
        {"encoding_format": "hex"},
        {"encoding_format": 5},
        {"model": 5},
        {"model": None},
        {"user": 5},
        {"input_type": "title"},
    ],
    OLLAMA: [
        {"truncate": "yes"},
        {"truncate": 0},
        {"model": 5},
        {"model": None},
        {"dimensions": True},
    ],
}
# Of every route of one text, where its key is there and its text is not.
NO_TEXTS = (5, None, True, ["a"], [1, 2], {"a": "b"})


def filled(body: dict[str, Any], form: Form) -> dict[str, Any]:
    return {form.key if key == "KEY" else key: value for key, value in body.items()}


async def walk(client: httpx.AsyncClient) -> AsyncIterator[tuple[str, httpx.Response, int]]:
    """Every route with every kind of error: (its dialect, what was answered, the right status)."""
    for form in FORMS:
        bad = 422 if form is TEI else 400
        for body in WRONG_VALUES.values():
            yield form.dialect, await client.post(form.path, json=filled(body, form)), bad
        for name, body in EMPTY.items():
            # To Ollama's clients nothing is what a request of nothing gets.
            if form is not OLLAMA or name != "empty list":
                yield form.dialect, await client.post(form.path, json=filled(body, form)), 400
        if form not in (NATIVE, OLLAMA):
            yield form.dialect, await client.post(form.path, json=form.body("")), 400
        too_many = form.body(["a"] * (Config().max_texts + 1))
        yield form.dialect, await client.post(form.path, json=too_many), bad
        too_large = form.body(["a" * 200_000])
        large = await client.post(form.path, json=too_large)
        yield POSTS[form.path], large, 413
        kinds = (None, "text/plain", "multipart/form-data; boundary=x", "application/xml", "")
        for kind in kinds if form is not OLLAMA else ():
            content = json.dumps(form.body(["a"])).encode()
            headers = {} if kind is None else {"content-type": kind}
            yield (
                POSTS[form.path],
                await client.post(form.path, content=content, headers=headers),
                415,
            )
    for form, options in WRONG_OPTIONS.items():
        for option in options:
            response = await client.post(form.path, json=form.body(["a"], **option))
            yield form.dialect, response, 422 if form is TEI else 400
    for path, (dialect, key) in ONE_TEXT.items():
        for wrong in NO_TEXTS:
            yield dialect, await client.post(path, json={key: wrong}), 400
        yield dialect, await client.post(path, json=[]), 400
        yield dialect, await client.post(path, json={key: "a" * 200_000}), 413
    for path in POSTS:
        if path != OLLAMA.path:
            yield POSTS[path], await client.post(path, json={}), 400
    posts = POSTS | {path: dialect for path, (dialect, _) in ONE_TEXT.items()}
    for path, dialect in posts.items():
        for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS"):
            yield dialect, await client.request(method, path), 405
    for path, dialect in GETS.items():
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            yield dialect, await client.request(method, path, json={}), 405
        headers = {"content-length": str(1 << 20)}
        yield dialect, await client.get(path, headers=headers), 413
    for path in (
        "/nowhere",
        "/embed/x",
        "/%00",
        "/../etc/passwd",
        "/healthz",
        "/" + "x" * 9999,
    ):
        for method in ("GET", "POST"):
            yield "native", await client.request(method, path, json={}), 404
    for path in ("/v1/", "/v1/nowhere", "/v1/embeddings/x", "/v1/completions"):
        for method in ("GET", "POST"):
            yield "openai", await client.request(method, path, json={}), 404
    for path in ("/api/", "/api/nowhere", "/api/embed/", "/api/chat", "/api/generate", "/api/pull"):
        for method in ("GET", "POST"):
            yield "ollama", await client.request(method, path, json={}), 404
    yield "openai", await client.get("/v1/models/nowhere"), 404
    for path in ("/api/embed", "/api/embeddings", "/api/show"):
        yield "ollama", await client.post(path, json={"model": "nowhere"}), 404


def test_every_route_answers_every_error_in_its_dialect(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        walked = 0
        async for dialect, response, status in walk(client):
            try:
                check_error(dialect, response, status)
            except AssertionError as error:
                request = response.request
                raise AssertionError(
                    f"{request.method} {request.url.path[:99]} {request.content[:99]!r} in"
                    f" {dialect} should be {status}, is {response.status_code}:"
                    f" {response.text[:999]} ({error})"
                ) from None
            walked += 1
        assert walked > 190
        # After all that, a good request is answered as ever.
        for form in FORMS:
            assert vectors_of(form, await client.post(form.path, json=form.body(["墨池"]))).size

    run(test, toy_model, max_body_bytes=100_000)


@pytest.mark.parametrize("kind", BROKEN_BODIES)
def test_broken_json_is_the_callers_error_in_every_form(toy_model: Model, kind: str) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for form in FORMS:
            content = BROKEN_BODIES[kind].replace(b"KEY", form.key.encode())
            response = await client.post(form.path, content=content, headers=AS_JSON)
            # Whether a body that cannot be read is of TEI's form cannot be told either.
            tei = form is TEI and response.status_code == 422
            check_error("tei" if tei else POSTS[form.path], response, 422 if tei else 400)

    run(test, toy_model)


def test_both_and_neither_of_the_keys_of_embed_are_refused(toy_model: Model) -> None:
    for body in ({}, {"texts": ["a"], "inputs": ["a"]}, {"text": ["a"]}):
        message = check_error("native", ask(toy_model, "POST", "/embed", body), 400)
        assert '"texts"' in message and '"inputs"' in message


def test_openai_error_names_the_key_at_fault(toy_model: Model) -> None:
    for body, param in (
        ({"input": 5}, "input"),
        ({"input": ["a", None]}, "input"),
        ({"input": ["a"], "dimensions": "x"}, "dimensions"),
        ({"input": ["a"], "dimensions": 7}, "dimensions"),
        ({"input": ["a"], "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "model": "gpt-9"}, "model"),
    ):
        response = ask(toy_model, "POST", "/v1/embeddings", body)
        status = 404 if param == "model" else 400
        check_error("openai", response, status, param=param)
        assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("ids", [[101, 102], [[101, 102]], [[]], [[101], "a"]])
def test_token_ids_are_refused_with_what_to_set(toy_model: Model, ids: Any) -> None:
    message = check_error(
        "openai", ask(toy_model, "POST", "/v1/embeddings", {"input": ids}), 400, param="input"
    )
    assert "check_embedding_ctx_length=False" in message


def test_input_that_is_neither_text_nor_token_is_named_by_its_place(toy_model: Model) -> None:
    wrongs: list[Any] = [True, None, {}, 1.5]
    for wrong in wrongs:
        response = ask(toy_model, "POST", "/v1/embeddings", {"input": ["a", wrong]})
        assert "input[1] must be a string" in check_error("openai", response, 400, param="input")


def test_as_many_texts_as_openai_allows_are_answered_and_one_more_is_not(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        full = await client.post("/v1/embeddings", json={"input": ["墨"] * MAX_INPUTS})
        assert len(full.json()["data"]) == MAX_INPUTS
        over = await client.post("/v1/embeddings", json={"input": ["墨"] * (MAX_INPUTS + 1)})
        message = check_error("openai", over, 400, "too_many_texts")
        assert "2049" in message and "2048" in message

    run(test, toy_model)


def test_empty_text_is_named_by_its_place(toy_model: Model) -> None:
    for form in FORMS:
        response = ask(toy_model, "POST", form.path, form.body(["a", "b", ""]))
        assert "text 2 " in check_error(form.dialect, response, 400, "empty_input")


def test_request_of_more_tokens_than_the_queue_holds_is_too_large(toy_model: Model) -> None:
    for form in FORMS:
        settings = {"bulk_queue_tokens": 4000}
        body = form.body(["墨池" * 20] * 100)
        response = ask(toy_model, "POST", form.path, body, settings=settings)
        assert "4200" in check_error(form.dialect, response, 413, "request_too_large")


@asynccontextmanager
async def full(model: Model) -> AsyncIterator[httpx.AsyncClient]:
    """A server whose lane stands still and whose queue holds all it may."""
    gate = Gated(model.encoder)
    held = with_parts(model, encoder=gate)
    async with serving(held, lanes=1, interactive_queue_tokens=4) as client:
        try:
            first = asyncio.create_task(client.post("/embed", json={"texts": ["墨池"]}))
            await asyncio.to_thread(gate.entered.wait, PATIENCE_S)
            second = asyncio.create_task(client.post("/embed", json={"texts": ["墨池"]}))
            await asyncio.sleep(0)
            page = (await client.get("/metrics")).text
            assert metric(page, "queue_tokens", kind="interactive") == 4
            yield client
        finally:
            gate.open()
        for task in (first, second):
            assert (await task).status_code == 200


def test_full_queue_is_429_with_a_time_to_retry(toy_model: Model) -> None:
    async def test() -> None:
        async with full(toy_model) as client:
            for form in FORMS:
                response = await client.post(form.path, json=form.body(["笔"]))
                assert "4 tokens" in check_error(form.dialect, response, 429, "overloaded")
            assert metric((await client.get("/metrics")).text, "refused_total") == len(FORMS)

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_failed_computation_is_our_fault_in_every_dialect(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for form in FORMS:
            response = await client.post(form.path, json=form.body(["墨池"]))
            status = 424 if form is TEI else 500
            check_error(form.dialect, response, status, "inference_failed")

    run(test, with_parts(toy_model, encoder=Broken()))


def test_unforeseen_error_is_500_and_tells_nothing(
    toy_model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    class Surprise:
        def encode(self, texts: Sequence[str], input_type: str) -> None:
            raise LookupError("the secret path")

    async def test(client: httpx.AsyncClient) -> None:
        for form in FORMS:
            response = await client.post(form.path, json=form.body(["墨池"]))
            assert "secret" not in check_error(form.dialect, response, 500, "internal_error")

    run(test, with_parts(toy_model, tokenizer=Surprise()))
    assert len([record for record in caplog.records if record.exc_info]) == len(FORMS)


@pytest.mark.parametrize("path", GETS)
def test_error_outside_of_a_handler_has_the_dialects_shape_too(
    toy_model: Model, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        # Nobody has started the app: the engine is missing.
        transport = httpx.ASGITransport(app_of(toy_model), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://inkwell") as client:
            check_error(GETS[path], await client.get(path), 500, "internal_error")

    asyncio.run(test())
    assert [record.name for record in caplog.records if record.exc_info] == ["server.api.endpoint"]


def test_stopping_server_is_503(toy_model: Model) -> None:
    async def test() -> None:
        app = app_of(toy_model, lanes=1)
        async with lifespan(app) as state:
            transport = httpx.ASGITransport(stateful(app, state))
            async with httpx.AsyncClient(transport=transport, base_url="http://inkwell") as client:
                await asyncio.to_thread(state["models"].close)
                check_error("native", await client.get("/ready"), 503, "shutting_down")
                check_error("weaviate", await client.get("/.well-known/ready"), 503)
                assert (await client.get("/.well-known/live")).status_code == 204
                stopped = await client.post("/vectors", json={"text": "墨池"})
                check_error("weaviate", stopped, 503)
                assert (await client.get("/health")).status_code == 200
                for form in FORMS:
                    response = await client.post(form.path, json=form.body(["墨池"]))
                    check_error(form.dialect, response, 503, "shutting_down")

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_every_request_with_a_body_has_to_say_that_it_is_json(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for method, path, body in (
            ("POST", "/embed", b'{"texts": ["a"]}'),
            ("POST", "/reindex", b""),
            ("DELETE", "/documents/a", b"{}"),
            ("GET", "/health", b"{}"),
        ):
            refused = await client.request(method, path, content=body)
            check_error("native", refused, 415, "unsupported_media_type")
            assert refused.headers["connection"] == "close"
        assert (await client.post("/embed", json={"texts": ["a"]})).status_code == 200
        # Without a body there is nothing to say.
        assert (await client.get("/health")).status_code == 200
        assert (await client.delete("/documents/a")).status_code != 415

    run(test, toy_model)


# --- bodies in parts, and clients that leave ------------------------------------------------------


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("size", [1, 4, 64])
def test_chunked_body_over_the_limit_is_refused_before_it_is_read_whole(
    toy_model: Model, path: str, size: int
) -> None:
    limit = 8 * 1024
    wire = Wire(path, [b" " * 1024 * size] * 1000, complete=False)

    async def test() -> None:
        app = app_of(toy_model, lanes=1, max_body_bytes=limit)
        async with lifespan(app) as state:
            await stateful(app, state)(wire.scope, wire.receive, wire.send)

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))
    assert wire.status == 413
    assert (b"connection", b"close") in wire.sent[0]["headers"]
    error = json.loads(wire.sent[1]["body"])["error"]
    if POSTS[path] == "ollama":
        assert error.startswith("the body is larger than the server accepts")
    else:
        assert error["code"] == "request_too_large"
    assert wire.taken <= limit // (1024 * size) + 1


def test_body_of_exactly_the_limit_in_parts_is_read(toy_model: Model) -> None:
    body = json.dumps({"texts": ["墨池"]}).encode()
    body += b" " * (1024 - len(body))
    wire = Wire("/embed", [body[:10], b"", body[10:500], body[500:], b""])

    async def test() -> None:
        app = app_of(toy_model, lanes=1, max_body_bytes=1024)
        async with lifespan(app) as state:
            await stateful(app, state)(wire.scope, wire.receive, wire.send)

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))
    assert wire.status == 200
    assert len(json.loads(wire.sent[1]["body"])["vectors"]) == 1


def test_client_that_leaves_while_it_sends_gets_nothing(toy_model: Model) -> None:
    async def test() -> None:
        wire = Wire("/embed", [b'{"texts": ["a'], complete=False)
        wire.leave()
        app = app_of(toy_model, lanes=1)
        async with lifespan(app) as state:
            await stateful(app, state)(wire.scope, wire.receive, wire.send)
        assert wire.sent == []

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


@by_form
def test_client_that_leaves_while_it_waits_is_abandoned(toy_model: Model, form: Form) -> None:
    async def test() -> None:
        gate = Gated(toy_model.encoder)
        wire = Wire(form.path, [json.dumps(form.body(["墨池" * 20] * 500)).encode()])
        app = app_of(with_parts(toy_model, encoder=gate), lanes=1)
        async with lifespan(app) as state:
            called = stateful(app, state)
            request = asyncio.ensure_future(called(wire.scope, wire.receive, wire.send))
            await asyncio.to_thread(gate.entered.wait, PATIENCE_S)
            assert not request.done()
            wire.leave()
            await request
            gate.open()
        assert wire.sent == []
        assert gate.texts <= Config().batch_tokens // 42 + 1

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_client_that_stays_is_answered_however_long_it_waits(toy_model: Model) -> None:
    async def test() -> None:
        gate = Gated(toy_model.encoder)
        wire = Wire("/embed", [b'{"texts": ["a"]}'])
        app = app_of(with_parts(toy_model, encoder=gate), lanes=1)
        async with lifespan(app) as state:
            called = stateful(app, state)
            request = asyncio.ensure_future(called(wire.scope, wire.receive, wire.send))
            # The second message is asked for by the watch that waits for the client to leave.
            while wire.taken < 2:
                await asyncio.sleep(0.001)
            gate.open()
            await request
        assert wire.status == 200

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_request_that_was_watched_leaves_no_garbage() -> None:
    async def receive() -> Any:
        await asyncio.Future()

    async def request() -> None:
        with Watch(receive):
            await asyncio.sleep(2 * WATCH_AFTER_S)

    async def test() -> int:
        gc.collect()
        gc.disable()
        try:
            await asyncio.gather(*(request() for _ in range(50)))
            # The cancelled listeners come to their end.
            await asyncio.sleep(0.01)
            return gc.collect()
        finally:
            gc.enable()

    assert asyncio.run(test()) < 50


# --- memory and time for bodies -------------------------------------------------------------------

LARGE = 2 * SMALL_BODY_BYTES


async def echo(call: Call) -> Reply:
    return Reply(json_body({"bytes": len(call.body)}))


def endpoint(handler: Handler = echo, **options: Any) -> Endpoint:
    """One that takes bodies of up to LARGE bytes, and so MAX_LARGE_BODIES of them at once."""
    return Endpoint("/x", handler, error_reply, LARGE, Metrics(), **options)


def wire(parts: Sequence[bytes], *, complete: bool = True, length: int | None = None) -> Wire:
    made = Wire("/x", parts, complete=complete)
    made.scope["state"] = {"models": None, "library": None}
    if length is not None:
        made.scope["headers"].append((b"content-length", str(length).encode()))
    return made


def begin(asked: Endpoint, request: Wire) -> "asyncio.Task[None]":
    return asyncio.create_task(asked(request.scope, request.receive, request.send))


async def taken(request: Wire, messages: int) -> None:
    while request.taken < messages:
        await asyncio.sleep(0)


def code(request: Wire) -> str:
    found = json.loads(request.sent[1]["body"])["error"]["code"]
    assert isinstance(found, str)
    return found


def test_large_bodies_have_a_bound_together_and_small_ones_none() -> None:
    async def test() -> None:
        asked = endpoint()
        # They have sent all but the end.
        sending = [wire([b" " * LARGE], complete=False) for _ in range(MAX_LARGE_BODIES)]
        tasks = [begin(asked, request) for request in sending]
        for request in sending:
            await taken(request, 2)

        announced, chunked = wire([b" " * LARGE], length=LARGE), wire([b" " * LARGE])
        for request, read in ((announced, 0), (chunked, 1)):
            await begin(asked, request)
            assert (request.status, request.taken, code(request)) == (429, read, "overloaded")
            headers = dict(request.sent[0]["headers"])
            assert headers[b"connection"] == b"close"
            assert int(headers[b"retry-after"]) >= 1

        small = wire([b" " * SMALL_BODY_BYTES], length=SMALL_BODY_BYTES)
        await begin(asked, small)
        assert small.status == 200

        # One that ends, however it does, makes room for one more.
        sending[0].leave()
        await tasks[0]
        again = wire([b" " * LARGE], length=LARGE)
        await begin(asked, again)
        assert again.status == 200
        for request, task in zip(sending, tasks, strict=True):
            request.leave()
            await task
        assert Share.taken == 0

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_body_counts_until_its_request_is_answered() -> None:
    async def test() -> None:
        gate = asyncio.Event()

        async def wait(call: Call) -> Reply:
            await gate.wait()
            return await echo(call)

        request = wire([b" " * LARGE])
        task = begin(endpoint(wait), request)
        await taken(request, 1)
        await asyncio.sleep(0)
        assert Share.taken == LARGE
        gate.set()
        await task
        assert request.status == 200
        assert Share.taken == 0

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_body_that_is_only_announced_keeps_no_room_from_others() -> None:
    async def test() -> None:
        asked = endpoint()
        idle = [wire([], length=LARGE) for _ in range(3 * MAX_LARGE_BODIES)]
        tasks = [begin(asked, request) for request in idle]
        await taken(idle[-1], 1)
        sent = wire([b" " * LARGE], length=LARGE)
        await begin(asked, sent)
        assert sent.status == 200
        for request, task in zip(idle, tasks, strict=True):
            request.leave()
            await task

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_failed_and_refused_requests_give_their_memory_back() -> None:
    async def fail(_: Call) -> Reply:
        raise LookupError("broken")

    async def test() -> None:
        for handler, parts, status in ((fail, 1, 500), (echo, 2, 413)):
            request = wire([b" " * LARGE] * parts)
            await begin(endpoint(handler), request)
            assert request.status == status
            assert Share.taken == 0

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


@pytest.mark.parametrize("parts", [[], [b"{"], [b"{", b"", b""]], ids=["none", "one", "empty"])
def test_body_that_never_ends_is_refused_and_its_connection_closed(parts: list[bytes]) -> None:
    async def test() -> None:
        request = wire(parts, complete=False)
        await begin(endpoint(read_s=0.01), request)
        assert (request.status, code(request)) == (400, "invalid_request")
        assert (b"connection", b"close") in request.sent[0]["headers"]
        message = json.loads(request.sent[1]["body"])["error"]["message"]
        assert f"{len(parts[:1])} bytes came" in message and "within 0.01 s" in message

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_body_has_a_second_for_each_of_its_pieces_and_no_pause_is_long() -> None:
    assert longest(0, 0, 30) == 30
    assert longest(29, 1, 30) == pytest.approx(1, abs=0.001), "it trickles"
    assert longest(100, 100 * LEAST_BYTES_S, 30) == 30, "it comes as fast as it must"
    held = 28 * 1024 * 1024
    assert longest(29 + held / LEAST_BYTES_S, held, 30) == pytest.approx(1)
    assert longest(31 + held / LEAST_BYTES_S, held, 30) < 0


def test_operation_that_needs_no_key_reads_no_large_body() -> None:
    async def test() -> None:
        for needs, status in (("nothing", 413), ("key", 200)):
            request = wire([b" " * (SMALL_BODY_BYTES + 1)])
            await begin(endpoint(needs=needs), request)
            assert request.status == status

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_body_that_goes_on_is_read() -> None:
    async def test() -> None:
        patience = Patience(PATIENCE_S)
        with patience:
            timers = [patience._timer]
            for part in range(3):
                patience.renew(part)
                timers.append(patience._timer)
            assert [timer.cancelled() for timer in timers] == [True, True, True, False]
        assert timers[-1].cancelled()

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


@pytest.mark.parametrize("parts", [[], [b"{"]], ids=["none", "half"])
def test_server_that_stops_while_a_body_comes_says_so(parts: list[bytes]) -> None:
    async def test() -> None:
        request = wire(parts, complete=False)
        task = begin(endpoint(), request)
        await taken(request, len(parts) + 1)
        task.cancel()
        await task
        assert (request.status, code(request)) == (503, "shutting_down")
        headers = dict(request.sent[0]["headers"])
        assert headers[b"connection"] == b"close" and headers[b"retry-after"]

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_answered_request_leaves_no_circle_of_objects_behind() -> None:
    written = []

    def write(*reply: object) -> bool:
        written.append(reply)
        return True

    async def send(_: object) -> None:
        raise AssertionError("sent twice")

    scope: dict[str, Any] = {WRITE: write, REQUEST_ID: b"a"}
    asyncio.run(send_reply(scope, send, Reply(b"{}")))
    assert len(written) == 1
    assert list(scope) == [REQUEST_ID]
