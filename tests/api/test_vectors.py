"""Vectors in every dialect: correct requests get the right vectors, in the right form."""

import base64
import json
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from server import VERSION
from server.app import every_operation
from server.config import Config
from server.inference.model import Model
from server.telemetry.metrics import Metrics
from server.types import Vectors
from tests.support.clients import ask, run
from tests.support.dialects import (
    AS_JSON,
    FORMS,
    GETS,
    NATIVE,
    OLLAMA,
    ONE_TEXT,
    OPENAI,
    POSTS,
    SAME,
    TEI,
    Form,
    by_form,
    check_error,
    metric,
    vectors_of,
)
from tests.support.fakes import with_parts
from tests.support.toys import toy_texts

# OpenAI's four, and those that Xinference's clients read.
KEYS_OF_MODEL = {
    "id",
    "object",
    "created",
    "owned_by",
    "model_type",
    "model_name",
    "task",
    "dimensions",
}
OF_DOCUMENTS = (
    *("/collections", "/documents", "/files", "/search", "/stats", "/reindex"),
    *(
        "/metadata",
        "/map",
        "/rename",
        "/aliases",
        "/backup",
        "/restore",
        "/words",
        "/outbox",
        "/transfer",
    ),
)


# Paths with tests of their own: TEI's, rerankers' and Cohere's.
ELSEWHERE = """/ /manual/{page:path} /invocations /similarity /tokenize /decode /embed_all /embed_sparse /predict /ping
    /rerank /v1/rerank /v2/rerank /v1/ranking /v1/score /score /v1/embed /v2/embed""".split()


def test_tables_above_have_every_route() -> None:
    routes = {
        (each.method, each.path)
        for each in every_operation(Config(), Metrics())
        # These have tests of their own.
        if not each.path.startswith(OF_DOCUMENTS) and each.path not in ELSEWHERE
    }
    gets = {
        path.replace("/toy", "/{model:path}").replace("main.js", "{file:path}") for path in GETS
    }
    posts = {("POST", path.replace("/toy/", "/{model:path}/")) for path in (*POSTS, *ONE_TEXT)}
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


@pytest.mark.parametrize("form", FORMS[1:], ids=str)
def test_unknown_keys_are_ignored_in_the_forms_of_others(toy_model: Model, form: Form) -> None:
    body = form.body(["墨池"], user="me", stream=True, priority=[1, {"a": None}], **{"": 0})
    body["user"] = "me" if form.dialect == "openai" else {"any": "thing"}
    vectors = vectors_of(form, ask(toy_model, "POST", form.path, body))
    np.testing.assert_allclose(vectors, toy_model.embed(["墨池"]), atol=SAME)


@pytest.mark.parametrize("form", [NATIVE, OPENAI, *FORMS[4:]], ids=str)
def test_base64_is_float32_bit_for_bit(toy_model: Model, form: Form) -> None:
    texts = toy_texts(20, seed=22)
    answers = []

    async def test(client: httpx.AsyncClient) -> None:
        for encoding in ("float", "base64"):
            body = form.body(texts, encoding_format=encoding)
            answers.append(await client.post(form.path, json=body))

    # With one lane all texts are one batch, so every answer is computed alike.
    run(test, toy_model, lanes=1)
    rows = answers[1].json()
    rows = rows["vectors"] if form is NATIVE else [row["embedding"] for row in rows["data"]]
    decoded = np.stack([np.frombuffer(base64.b64decode(row, validate=True), "<f4") for row in rows])
    np.testing.assert_array_equal(decoded, vectors_of(form, answers[0]))


OF_OPENAI = [form for form in FORMS if form.dialect == "openai"]
EXTRAS: list[dict[str, Any]] = [
    {"output_dimension": 32, "output_dtype": "float", "truncation": True},
    {"output_dimension": 32, "dimensions": 32},
    {"encoding_format": "", "model": None, "embedding_type": "float", "truncate": "END"},
    {"embedding_type": "float", "encoding_format": "float", "normalized": True, "truncate": True},
    {"late_chunking": False, "return_multivector": False, "user": None},
    {"modality": ["text", "text"], "add_special_tokens": True, "truncate_prompt_tokens": -1},
    {"embed_dtype": "float32", "endianness": "native", "prompt": "", "normalize": False},
]


@pytest.mark.parametrize("form", OF_OPENAI, ids=str)
def test_keys_of_clients_that_share_openais_paths_are_understood(
    toy_model: Model, form: Form
) -> None:
    expected = toy_model.embed(["墨池", "笔"])

    async def test(client: httpx.AsyncClient) -> None:
        for extra in EXTRAS:
            answer = await client.post(form.path, json=form.body(["墨池", "笔"], **extra))
            np.testing.assert_allclose(vectors_of(form, answer), expected, atol=SAME)
        # Jina's objects.
        answer = await client.post(form.path, json=form.body([{"text": "墨池"}, "笔"]))
        np.testing.assert_allclose(vectors_of(form, answer), expected, atol=SAME)
        for odd in ({"image": "a"}, {"text": "a", "image": "b"}, {"text": 5}, {}):
            wrong = await client.post(form.path, json=form.body(["墨池", odd]))
            assert "input[1]" in check_error("openai", wrong, 400, param="input")
        for packed in ({"embedding_type": "base64"}, {"encoding_format": "base64"}):
            answer = await client.post(form.path, json=form.body(["墨池"], **packed))
            row = base64.b64decode(answer.json()["data"][0]["embedding"])
            np.testing.assert_allclose(np.frombuffer(row, "<f4"), expected[0], atol=SAME)

    run(test, toy_model)


def test_openai_text_that_is_too_long_is_cut_as_the_client_says(toy_model: Model) -> None:
    text = "墨" * 40 + "池" * 40
    read = toy_model.manifest.text.max_tokens - 2

    async def test(client: httpx.AsyncClient) -> None:
        for word, kept in (("END", text[:read]), ("START", text[-read:]), (True, text[:read])):
            answer = await client.post("/v1/embeddings", json=OPENAI.body([text], truncate=word))
            np.testing.assert_allclose(
                vectors_of(OPENAI, answer), toy_model.embed([kept]), atol=SAME
            )
        for forbidden in ({"truncate": "NONE"}, {"truncate": False}, {"truncation": False}):
            body = OPENAI.body(["a", text], **forbidden)
            check_error(
                "openai", await client.post("/v1/embeddings", json=body), 400, "text_too_long"
            )

    run(test, toy_model)


@pytest.mark.parametrize(
    ("form", "key"), [(TEI, "normalize"), (OPENAI, "normalized")], ids=["tei", "openai"]
)
def test_vectors_stay_normalised_where_the_model_does_it_and_the_reply_says_so(
    toy_model: Model, form: Form, key: str
) -> None:
    expected = toy_model.embed(["墨池"])
    for value, said in ((False, "true"), (True, None), (None, None)):
        answer = ask(toy_model, "POST", form.path, form.body(["墨池"], **{key: value}))
        np.testing.assert_allclose(vectors_of(form, answer), expected, atol=SAME)
        assert answer.headers.get("x-normalized") == said
    # Where the model does not, the request decides.
    manifest = msgspec.structs.replace(toy_model.manifest, normalized=False)

    class Longer:
        packing = toy_model.encoder.packing

        def encode(self, texts: Any) -> Any:
            return toy_model.encoder.encode(texts) * 3

    model = with_parts(toy_model, manifest=manifest, encoder=Longer())
    for value, length in ((False, 3), (True, 1)):
        answer = ask(model, "POST", form.path, form.body(["墨池"], **{key: value}))
        found = np.linalg.norm(vectors_of(form, answer))
        assert found == pytest.approx(length, abs=1e-3)
        assert "x-normalized" not in answer.headers


def test_path_of_azure_names_the_model(toy_model: Model) -> None:
    query = toy_model.embed([toy_model.manifest.text.query_instruction + "墨池"])

    async def test(client: httpx.AsyncClient) -> None:
        async def post(name: str, model: str) -> httpx.Response:
            path = f"/openai/deployments/{name}/embeddings?api-version=2024-02-01"
            return await client.post(path, json={"input": "墨池", "model": model})

        for name in ("toy:query", "BAAI/toy:query", "BAAI%2Ftoy:query"):
            np.testing.assert_allclose(
                vectors_of(OPENAI, await post(name, "gpt")), query, atol=SAME
            )
        check_error("openai", await post("gpt", "toy"), 404, "model_not_found")

    run(test, toy_model)


def test_openai_answer_has_all_its_keys(toy_model: Model) -> None:
    body = ask(toy_model, "POST", "/v1/embeddings", {"input": ["墨池", "笔"], "user": None}).json()
    assert set(body) == {"object", "data", "model", "usage"}
    assert body["object"] == "list"
    assert [set(row) for row in body["data"]] == [{"object", "index", "embedding"}] * 2
    assert {row["object"] for row in body["data"]} == {"embedding"}
    assert body["model"] == "toy"
    assert body["usage"] == {"prompt_tokens": 7, "total_tokens": 7}


@by_form
def test_tokens_and_truncated_texts_are_reported(toy_model: Model, form: Form) -> None:
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
        assert [set(one) for one in listed["data"]] == [KEYS_OF_MODEL] * 4
        assert (await client.get("/models")).json() == listed
        assert (await client.get("/openai/v1/models/")).json() == listed
        for name in ("someone/toy", "toy", "ada", "ada:query"):
            one = await client.get(f"/v1/models/{name}")
            assert one.json()["model_name"] == name and one.json()["model_type"] == "embedding"
            assert (await client.get(f"/models/{name}/")).json() == one.json()
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
    rules = toy_model.manifest.text
    assert info["query_instruction"] == rules.query_instruction != ""
    assert info["document_instruction"] == rules.document_instruction
    assert info["model_id"] == "toy"
    assert info["served_model_name"] == "ada"
    assert info["model_type"] == {"embedding": {"pooling": "cls"}}
    assert info["max_input_length"] == 64
    assert info["max_client_batch_size"] == Config().max_texts
    assert info["version"] == VERSION
    assert info["fingerprint"] == toy_model.manifest.fingerprint
    assert (info["normalized"], info["similarity"]) == (True, "cosine")
    keys = """model_sha model_dtype max_concurrent_requests max_batch_tokens max_batch_requests
        auto_truncate tokenization_workers sha docker_label"""
    assert set(keys.split()) <= set(info)


def test_health_and_ready_say_so(toy_model: Model) -> None:
    assert ask(toy_model, "GET", "/health").json() == {"status": "ok"}
    assert ask(toy_model, "GET", "/ready").json() == {"status": "ready", "model": "toy"}


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
        # Names that clients choose must not become labels.
        assert "some-name" not in page.text and "nowhere" not in page.text

    run(test, toy_model)
