"""TEI's form beyond /embed: vectors, similarity, refusals and headers."""

import asyncio
import json
import re
import time
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from server.inference.model import Model
from server.inference.tokenization.loop_tokenizer import HUGE_CHARACTERS
from server.types import Vectors
from tests.support.clients import ask, serving
from tests.support.fakes import PATIENCE_S, Gated, with_parts
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
# A correct body for every path of TEI that answers with vectors, tokens or texts.
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
    """Check an error's status, kind and shape; return its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error", "error_type"}
    assert body["error_type"] == kind
    assert body["error"] and not body["error"].endswith(".")
    return str(body["error"])


def metrics_of(page: str) -> dict[str, float]:
    return {
        name: float(value) for name, value in re.findall(r"^(te_\S+) (\S+)$", page, re.MULTILINE)
    }


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
    # The instruction is at the beginning, so it is cut first.
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
    """Return the cosines of the first row and each of the others."""
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
    # [CLS], [SEP] and one token for each character or word.
    characters, tokens = (10, 11) if path == "/similarity" else (2, 4)
    assert (found["x-compute-characters"], found["x-compute-tokens"]) == (characters, tokens)
    assert found["x-compute-time"] == found["x-total-time"]
    parts = ("x-tokenization-time", "x-queue-time", "x-inference-time")
    assert sum(found[name] for name in parts) <= found["x-total-time"]
    assert found["x-inference-time"] >= 20


def test_waiting_and_computing_have_separate_times(toy_model: Model) -> None:
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
