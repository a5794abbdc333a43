"""Ollama's routes: what its clients send, what they read, and what they compare."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from server.api.dialects.ollama import SPOKEN, error_reply
from server.api.native_errors import error_reply as native_reply
from server.inference.manifest import MODEL_FILE
from server.inference.model import Model
from server.types import Vectors
from tests.support.clients import ask, run
from tests.support.fakes import with_parts
from tests.test_docs import ANSWERS, made

SAME = 1e-6
TEXTS = ["今天天气很好。", "The weather is fine", "墨池 inkwell"]


def embed(model: Model, /, **body: Any) -> httpx.Response:
    return ask(model, "POST", "/api/embed", body)


def vectors_of(response: httpx.Response) -> Vectors:
    assert response.status_code == 200, response.text
    return np.array(response.json()["embeddings"], dtype=np.float32)


def error_of(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    message = response.json()["error"]
    assert isinstance(message, str)
    return message


# --- vectors --------------------------------------------------------------------------------------


def test_one_text_and_many_have_the_vectors_of_the_engine(toy_model: Model) -> None:
    expected = toy_model.embed(TEXTS)
    np.testing.assert_allclose(vectors_of(embed(toy_model, input=TEXTS)), expected, atol=SAME)
    for text, row in zip(TEXTS, expected, strict=True):
        np.testing.assert_allclose(vectors_of(embed(toy_model, input=text)), [row], atol=SAME)


def test_answer_has_all_its_keys(toy_model: Model) -> None:
    body = embed(toy_model, model="toy:latest", input=["墨池", "笔"]).json()
    keys = ("model", "embeddings", "total_duration", "load_duration", "prompt_eval_count")
    assert tuple(body) == keys
    assert body["model"] == "toy:latest"
    assert body["prompt_eval_count"] == 7
    # Nanoseconds: more than a microsecond, less than a minute.
    assert 1_000 < body["total_duration"] < 60_000_000_000
    assert body["load_duration"] == 0
    assert embed(toy_model, input="墨").json()["model"] == "toy"


@pytest.mark.parametrize(
    "body", [{}, {"input": []}, {"input": ""}, {"prompt": "of another route"}], ids=str
)
def test_nothing_in_gives_nothing_out(toy_model: Model, body: dict[str, Any]) -> None:
    response = embed(toy_model, model="toy", **body)
    assert response.status_code == 200
    assert response.json()["embeddings"] == []
    assert response.json()["prompt_eval_count"] == 0
    assert response.headers["x-truncated"] == "0"


def test_empty_text_among_others_is_refused_by_its_place(toy_model: Model) -> None:
    assert error_of(embed(toy_model, input=["a", ""]), 400) == "text 1 is empty"
    assert error_of(embed(toy_model, input=[""]), 400) == "text 0 is empty"


@pytest.mark.parametrize("ids", [[1, 2], [[1, 2], [3]], ["a", 1]])
def test_token_ids_are_refused(toy_model: Model, ids: Any) -> None:
    assert "Expected `str`" in error_of(embed(toy_model, input=ids), 400)


def test_keys_that_ollama_knows_and_this_server_has_no_use_for_change_nothing(
    toy_model: Model,
) -> None:
    expected = toy_model.embed(TEXTS)
    for keep_alive in ("5m", -1, 0):
        response = embed(
            toy_model, input=TEXTS, keep_alive=keep_alive, options={"use_mmap": True, "num_ctx": 1}
        )
        np.testing.assert_allclose(vectors_of(response), expected, atol=SAME)


@pytest.mark.parametrize("extra", [{"dimensions": 32}, {"truncate": False}])
def test_older_route_refuses_what_it_cannot_do(toy_model: Model, extra: dict[str, Any]) -> None:
    answer = ask(toy_model, "POST", "/api/embeddings", {"prompt": "墨池", **extra})
    assert next(iter(extra)) in error_of(answer, 400)


@pytest.mark.parametrize("name", ["toy", "toy:latest", "ada", "ada:latest", "toy:document", ""])
def test_names_may_carry_a_tag(toy_model: Model, name: str) -> None:
    body = {"model": name, "input": "墨池"}
    response = ask(toy_model, "POST", "/api/embed", body, settings={"model_alias": "ada"})
    np.testing.assert_allclose(vectors_of(response), toy_model.embed(["墨池"]), atol=SAME)


def test_tag_for_queries_adds_the_instruction(toy_model: Model) -> None:
    expected = toy_model.embed([toy_model.manifest.text.query_instruction + "墨池"])
    response = embed(toy_model, model="toy:query", input="墨池")
    np.testing.assert_allclose(vectors_of(response), expected, atol=SAME)
    older = ask(toy_model, "POST", "/api/embeddings", {"model": "toy:query", "prompt": "墨池"})
    np.testing.assert_allclose(older.json()["embedding"], expected[0], atol=SAME)


def test_dimensions_are_cut_and_normalised_where_the_model_was_trained_so(toy_model: Model) -> None:
    manifest = msgspec.structs.replace(toy_model.manifest, matryoshka_dimensions=[8])
    model = with_parts(toy_model, manifest=manifest)
    expected = toy_model.embed(["墨池"])[:, :8]
    found = vectors_of(embed(model, input="墨池", dimensions=8))
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=SAME)
    assert "8, 32" in error_of(embed(model, input="墨池", dimensions=16), 400)


def test_long_text_is_cut_and_counted_or_refused_in_ollamas_words(toy_model: Model) -> None:
    texts = ["墨", "池" * 63, "笔" * 1000]
    cuts: list[dict[str, Any]] = [{}, {"truncate": True}, {"truncate": None}]
    for cut in cuts:
        response = embed(toy_model, input=texts, **cut)
        assert response.headers["x-truncated"] == "2"
        np.testing.assert_allclose(vectors_of(response), toy_model.embed(texts), atol=SAME)
    message = error_of(embed(toy_model, input=texts, truncate=False), 400)
    assert message.startswith("the input length exceeds the context length")
    assert "text 1 " in message and "64" in message


def test_older_form_gives_one_vector(toy_model: Model) -> None:
    for text in TEXTS:
        response = ask(toy_model, "POST", "/api/embeddings", {"model": "toy", "prompt": text})
        assert set(response.json()) == {"embedding"}
        expected = toy_model.embed([text])[0]
        np.testing.assert_allclose(response.json()["embedding"], expected, atol=SAME)
    long = ask(toy_model, "POST", "/api/embeddings", {"model": "toy", "prompt": "墨" * 99})
    assert long.headers["x-truncated"] == "1"
    for body in ({}, {"prompt": ""}):
        assert ask(toy_model, "POST", "/api/embeddings", body).json() == {"embedding": []}
    wrong = ask(toy_model, "POST", "/api/embeddings", {"prompt": ["a"]})
    assert "Expected `str`" in error_of(wrong, 400)


# --- what clients ask before ----------------------------------------------------------------------


def test_tags_and_running_models_have_what_clients_read(toy_model: Model) -> None:
    for path in ("/api/tags", "/api/ps"):
        models = ask(toy_model, "GET", path).json()["models"]
        assert [model["name"] for model in models] == ["toy:latest", "toy:query"]
        for model in models:
            assert model["model"] == model["name"]
            assert re.fullmatch("[0-9a-f]{64}", model["digest"])
            assert model["digest"] == toy_model.manifest.files[MODEL_FILE]
            assert (model["size"], model["size_vram"]) == (0, 0)
            assert model["context_length"] == 64
            assert model["details"] == {
                "format": "onnx",
                "family": "bert",
                "families": ["bert"],
                "parameter_size": "",
                "quantization_level": toy_model.manifest.precision,
            }
            datetime.fromisoformat(model["modified_at"])
            assert datetime.fromisoformat(model["expires_at"]) > datetime.now(UTC)


def test_every_listed_name_embeds_and_shows(toy_model: Model) -> None:
    manifest = msgspec.structs.replace(toy_model.manifest, model_id="someone/toy")
    model = with_parts(toy_model, manifest=manifest)

    async def test(client: httpx.AsyncClient) -> None:
        names = [one["name"] for one in (await client.get("/api/tags")).json()["models"]]
        assert names == ["someone/toy:latest", "someone/toy:query", "ada:7b", "ada:7b:query"]
        for name in names:
            for path in ("/api/embed", "/api/show"):
                assert (await client.post(path, json={"model": name})).status_code == 200

    run(test, model, model_alias="ada:7b")


@pytest.mark.parametrize("key", ["model", "name"])
@pytest.mark.parametrize("name", ["toy", "toy:latest", "toy:query"])
def test_show_says_what_the_artifact_knows(toy_model: Model, key: str, name: str) -> None:
    shown = ask(toy_model, "POST", "/api/show", {key: name, "verbose": True}).json()
    assert shown["capabilities"] == ["embedding"]
    assert shown["model_info"] == {
        "general.architecture": "bert",
        "bert.embedding_length": 32,
        "bert.context_length": 64,
    }
    assert shown["details"]["family"] == "bert"
    assert [shown[empty] for empty in ("modelfile", "template", "parameters")] == [""] * 3


@pytest.mark.parametrize("path", ["/api/embed", "/api/embeddings", "/api/show"])
@pytest.mark.parametrize("name", ["gpt", "toy:7b", "Toys", "it's"])
def test_unknown_model_is_not_found_in_ollamas_words(
    toy_model: Model, path: str, name: str
) -> None:
    response = ask(toy_model, "POST", path, {"model": name})
    assert error_of(response, 404) == f"model '{name}' not found"


@pytest.mark.parametrize("name", ["TOY", "Toy:Latest", "ADA", "Ada:QUERY"])
def test_names_are_found_without_regard_to_case(toy_model: Model, name: str) -> None:
    query = toy_model.manifest.text.query_instruction if "QUERY" in name else ""
    body = {"model": name, "input": "墨池"}
    answer = ask(toy_model, "POST", "/api/embed", body, settings={"model_alias": "Ada"})
    np.testing.assert_allclose(vectors_of(answer), toy_model.embed([query + "墨池"]), atol=SAME)
    assert answer.json()["model"] == name


@pytest.mark.parametrize("key", ["model", "name"])
@pytest.mark.parametrize("stream", [None, True, False])
def test_pull_of_a_served_model_succeeds_at_once(
    toy_model: Model, key: str, stream: bool | None
) -> None:
    for name in ("toy", "toy:latest", "Toy"):
        answer = ask(toy_model, "POST", "/api/pull", {key: name, "stream": stream})
        assert answer.status_code == 200
        # Each line of a stream is a JSON object.
        assert [json.loads(line) for line in answer.text.splitlines()] == [{"status": "success"}]
    other = ask(toy_model, "POST", "/api/pull", {key: "llama3", "stream": stream})
    assert error_of(other, 404) == "model 'llama3' not found"


def test_version_is_new_enough_for_those_that_compare_it(toy_model: Model) -> None:
    found = ask(toy_model, "GET", "/api/version").json()
    assert found == {"version": SPOKEN}
    # At least the versions that Open WebUI and Copilot need, and only numbers.
    assert tuple(map(int, SPOKEN.split("."))) >= max((0, 1, 16), (0, 6, 4))


def test_root_names_this_server_and_says_what_clients_look_for(toy_model: Model) -> None:
    page = ask(toy_model, "GET", "/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/plain; charset=utf-8"
    assert page.text.startswith("Inkwell") and "Ollama is running" in page.text


@pytest.mark.parametrize("path", ["/", "/api/tags", "/api/ps", "/api/version"])
def test_head_is_answered_as_get_is(toy_model: Model, path: str) -> None:
    head, got = ask(toy_model, "HEAD", path), ask(toy_model, "GET", path)
    assert head.status_code == got.status_code == 200
    assert head.headers["content-length"] == got.headers["content-length"]


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat", "/api/push", "/api/delete"])
def test_what_is_not_about_embeddings_is_not_there(toy_model: Model, path: str) -> None:
    assert error_of(ask(toy_model, "POST", path, {}), 404) == f"no such path: {path}"


@pytest.mark.parametrize("kind", ANSWERS, ids=lambda kind: kind.__name__)
def test_every_error_has_the_native_status_and_headers_and_ollamas_shape(kind: Any) -> None:
    error = made(kind)
    found, native = error_reply(error), native_reply(error)
    assert (found.status, found.headers) == (native.status, native.headers)
    body = msgspec.json.decode(found.body)
    assert set(body) == {"error"} and body["error"].endswith("said")
