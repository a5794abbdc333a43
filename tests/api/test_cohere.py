"""Cohere's embeddings: both versions, their kinds of numbers, and its shape of errors."""

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from server.inference.model import Model
from tests.support.clients import ask, run
from tests.support.dialects import SAME

TEXTS = ["墨池", "笔纸"]
by_path = pytest.mark.parametrize("path", ["/v1/embed", "/v2/embed"])


def refusal(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"message"}
    return str(answer.json()["message"])


@by_path
def test_kinds_that_are_asked_for_hold_the_vectors(toy_model: Model, path: str) -> None:
    body = {
        "model": "toy",
        "texts": TEXTS,
        "input_type": "search_document",
        "embedding_types": ["float", "base64"],
    }
    answer = ask(toy_model, "POST", path, body)
    found = answer.json()
    assert set(found) == {"id", "embeddings", "texts", "meta", "response_type"}
    assert found["id"] == answer.headers["x-request-id"]
    assert found["texts"] == TEXTS and found["response_type"] == "embeddings_by_type"
    assert found["meta"] == {
        "api_version": {"version": path[2]},
        "billed_units": {"input_tokens": 8},
    }
    expected = toy_model.embed(TEXTS)
    np.testing.assert_allclose(found["embeddings"]["float"], expected, atol=SAME)
    packed = [
        np.frombuffer(base64.b64decode(each), "<f4") for each in found["embeddings"]["base64"]
    ]
    np.testing.assert_allclose(packed, expected, atol=SAME)


def test_without_kinds_the_versions_differ(toy_model: Model) -> None:
    body = {"model": "toy", "texts": TEXTS, "input_type": "search_query"}
    instruction = toy_model.manifest.text.query_instruction
    expected = toy_model.embed([instruction + text for text in TEXTS])
    first = ask(toy_model, "POST", "/v1/embed", body).json()
    assert first["response_type"] == "embeddings_floats"
    np.testing.assert_allclose(first["embeddings"], expected, atol=SAME)
    second = ask(toy_model, "POST", "/v2/embed", body).json()
    np.testing.assert_allclose(second["embeddings"]["float"], expected, atol=SAME)


@by_path
def test_part_that_is_cut_off_is_the_one_that_is_named(toy_model: Model, path: str) -> None:
    text = "墨" * 40 + "池" * 40
    read = toy_model.manifest.text.max_tokens - 2

    async def test(client: httpx.AsyncClient) -> None:
        for word, kept in (("END", text[:read]), ("START", text[-read:]), ("end", text[:read])):
            body: dict[str, Any] = {"texts": [text], "truncate": word, "embedding_types": ["float"]}
            answer = await client.post(path, json=body)
            assert answer.headers["x-truncated"] == "1"
            vectors = answer.json()["embeddings"]["float"]
            np.testing.assert_allclose(vectors, toy_model.embed([kept]), atol=SAME)
        body = {"texts": ["a", text], "truncate": "NONE"}
        assert "text 1 has 82 tokens" in refusal(await client.post(path, json=body), 400)

    run(test, toy_model)


@by_path
def test_keys_of_other_vectors_without_a_value_change_nothing(toy_model: Model, path: str) -> None:
    body = {"texts": ["墨"], "images": [], "inputs": None, "max_tokens": None, "priority": 3}
    assert ask(toy_model, "POST", path, body).status_code == 200


@by_path
def test_wrong_requests_get_the_reason_in_coheres_shape(toy_model: Model, path: str) -> None:
    wrong: list[tuple[dict[str, Any], int, str]] = [
        ({}, 400, "texts"),
        ({"texts": []}, 400, "list is empty"),
        ({"texts": ["a", ""]}, 400, "text 1 is empty"),
        ({"texts": ["a"], "input_type": "image"}, 400, "search_document"),
        ({"texts": ["a"], "embedding_types": ["int8"]}, 400, "'base64'"),
        ({"texts": ["a"], "truncate": "MIDDLE"}, 400, "'START'"),
        ({"texts": ["a"], "output_dimension": 16}, 400, "32"),
        ({"texts": ["a"], "images": ["data:image/png;base64,AA=="]}, 400, "images is not"),
        ({"texts": ["a"], "inputs": [{"content": []}]}, 400, "inputs is not"),
        ({"texts": ["a"], "max_tokens": 4}, 400, "max_tokens is not"),
        ({"texts": ["a"], "dimensions": 32}, 400, "dimensions is not"),
        ({"texts": ["a"], "model": "embed-v4.0"}, 404, "'toy'"),
        ({"texts": ["a"] * 9}, 400, "8 are allowed"),
    ]

    async def test(client: httpx.AsyncClient) -> None:
        for body, status, said in wrong:
            assert said in refusal(await client.post(path, json=body), status), body
        refusal(await client.get(path), 405)
        refusal(await client.post(path, content=b"{}"), 415)

    run(test, toy_model, max_texts=8)
