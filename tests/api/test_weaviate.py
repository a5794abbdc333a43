"""The routes for Weaviate's text2vec-transformers module: bodies, probes and refusals."""

from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from server.api.dialects.weaviate import error_reply
from server.api.native_errors import error_reply as native_reply
from server.inference.model import Model
from tests.support.clients import ask
from tests.support.fakes import with_parts
from tests.test_docs import ANSWERS, made

SAME = 1e-6
PATHS = ("/vectors", "/vectors/")


def vector(model: Model, text: str, path: str = "/vectors", **config: Any) -> httpx.Response:
    """Return a body as Weaviate sends it, with empty keys."""
    body = {"text": text, "dims": 0, "vector": None, "error": "", "config": config}
    return ask(model, "POST", path, body)


def error_of(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    message = response.json()["error"]
    assert isinstance(message, str)
    return message


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("text", ["今天天气很好。", "The weather is fine"])
def test_text_has_the_vector_of_the_engine(toy_model: Model, path: str, text: str) -> None:
    for config in ({}, {"task_type": "passage"}, {"pooling_strategy": "cls"}):
        response = vector(toy_model, text, path, **config)
        assert response.status_code == 200, response.text
        body = response.json()
        assert list(body) == ["text", "vector", "dim"]
        assert (body["text"], body["dim"]) == (text, 32)
        np.testing.assert_allclose(body["vector"], toy_model.embed([text])[0], atol=SAME)
        assert response.headers["x-truncated"] == "0"


@pytest.mark.parametrize("others", [{}, {"config": None}, {"config": {}}], ids=str)
def test_config_may_be_missing(toy_model: Model, others: dict[str, Any]) -> None:
    response = ask(toy_model, "POST", "/vectors", {"text": "墨池", **others})
    expected = toy_model.embed(["墨池"])[0]
    np.testing.assert_allclose(response.json()["vector"], expected, atol=SAME)


def test_query_gets_the_instruction(toy_model: Model) -> None:
    found = vector(toy_model, "墨池", task_type="query").json()["vector"]
    expected = toy_model.embed([toy_model.manifest.text.query_instruction + "墨池"])[0]
    np.testing.assert_allclose(found, expected, atol=SAME)


def test_dimensions_are_cut_and_normalised_where_the_model_was_trained_so(toy_model: Model) -> None:
    manifest = msgspec.structs.replace(toy_model.manifest, matryoshka_dimensions=[8])
    model = with_parts(toy_model, manifest=manifest)
    expected = toy_model.embed(["墨池"])[0, :8]
    body = vector(model, "墨池", dimensions=8).json()
    assert body["dim"] == 8
    np.testing.assert_allclose(body["vector"], expected / np.linalg.norm(expected), atol=SAME)
    assert "8, 32" in error_of(vector(model, "墨池", dimensions=16), 400)


def test_long_text_is_cut_and_counted(toy_model: Model) -> None:
    response = vector(toy_model, "笔" * 1000)
    assert response.headers["x-truncated"] == "1"
    expected = toy_model.embed(["笔" * 1000])[0]
    np.testing.assert_allclose(response.json()["vector"], expected, atol=SAME)


@pytest.mark.parametrize("asked", ["mean", "max", "poem"])
def test_other_pooling_is_refused_with_what_to_set(toy_model: Model, asked: str) -> None:
    message = error_of(vector(toy_model, "墨池", pooling_strategy=asked), 400)
    assert repr(asked) in message and '"poolingStrategy": "cls"' in message


def test_what_weaviate_says_by_default_means_the_models_own_pooling(toy_model: Model) -> None:
    own = vector(toy_model, "墨池").json()
    assert vector(toy_model, "墨池", pooling_strategy="masked_mean").json() == own
    assert vector(toy_model, "墨池", pooling_strategy="cls").json() == own


@pytest.mark.parametrize("headers", [{}, {"content-type": "text/plain"}])
def test_content_type_is_not_looked_at(toy_model: Model, headers: dict[str, str]) -> None:
    content = '{"text": "墨池"}'.encode()
    found = ask(toy_model, "POST", "/vectors", content=content, headers=headers)
    assert found.json() == vector(toy_model, "墨池").json()


def test_several_texts_at_once(toy_model: Model) -> None:
    found = ask(toy_model, "POST", "/vectors", {"texts": ["墨池", "笔"]}).json()
    assert found["dims"] == 32
    np.testing.assert_allclose(found["vectors"], toy_model.embed(["墨池", "笔"]), atol=1e-5)
    wrong: list[dict[str, Any]] = [{"texts": ["a"], "text": "a"}, {"texts": []}, {"texts": "a"}]
    for body in wrong:
        error_of(ask(toy_model, "POST", "/vectors", body), 400)


def test_probes_have_no_body_and_no_length(toy_model: Model) -> None:
    reply = ask(toy_model, "GET", "/.well-known/live")
    assert reply.status_code == 204
    assert not {"content-length", "content-type"} & set(reply.headers)


def test_mean_pooling_has_weaviates_name(toy_model: Model) -> None:
    manifest = msgspec.structs.replace(toy_model.manifest, pooling="mean")
    model = with_parts(toy_model, manifest=manifest)
    assert vector(model, "墨池", pooling_strategy="masked_mean").status_code == 200
    assert vector(model, "墨池", pooling_strategy="").status_code == 200
    assert '"masked_mean"' in error_of(vector(model, "墨池", pooling_strategy="cls"), 400)
    assert ask(model, "GET", "/meta").json()["pooling_strategy"] == "masked_mean"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, '"text"'),
        ({"text": 5}, "`$.text`"),
        ({"text": ["a"]}, "`$.text`"),
        ({"text": ""}, "is empty"),
        ({"text": "a", "config": []}, "`$.config`"),
        ({"text": "a", "config": {"task_type": "title"}}, "'title'"),
        ({"text": "a", "config": {"pooling_strategy": 1}}, "`$.config.pooling_strategy`"),
        ({"text": "a", "config": {"dimensions": "32"}}, "`$.config.dimensions`"),
        ({"text": "a", "config": {"dimensions": 0}}, "dimensions 0"),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", PATHS)
def test_wrong_bodies_are_refused_with_a_sentence(
    toy_model: Model, path: str, body: dict[str, Any], said: str
) -> None:
    assert said in error_of(ask(toy_model, "POST", path, body), 400)


def test_meta_says_what_the_artifact_knows(toy_model: Model) -> None:
    manifest = toy_model.manifest
    assert ask(toy_model, "GET", "/meta").json() == {
        "model": "toy",
        "revision": manifest.revision,
        "model_type": "bert",
        "pooling_strategy": "cls",
        "dimensions": 32,
        "max_tokens": 64,
        "normalized": True,
        "precision": manifest.precision,
        "fingerprint": manifest.fingerprint,
    }


@pytest.mark.parametrize("path", ["/.well-known/live", "/.well-known/ready"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_probes_have_no_body(toy_model: Model, path: str, method: str) -> None:
    response = ask(toy_model, method, path)
    assert (response.status_code, response.content) == (204, b"")


@pytest.mark.parametrize("kind", ANSWERS, ids=lambda kind: kind.__name__)
def test_every_error_has_the_native_status_and_headers_and_weaviates_shape(kind: Any) -> None:
    error = made(kind)
    found, native = error_reply(error), native_reply(error)
    assert (found.status, found.headers) == (native.status, native.headers)
    assert msgspec.json.decode(found.body) == {"error": "said"}
