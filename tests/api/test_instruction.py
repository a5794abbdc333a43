"""What a text is for is understood in the words of every client, in every dialect, or refused."""

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from server.api.instruction import INSTRUCTIONS, Instructed
from server.inference.model import Model
from tests.support.clients import run
from tests.support.dialects import SAME

TEXT = "墨池"
KEYS = Instructed.__struct_fields__
# The words that the issue trackers of clients show, by what they mean.
QUERIES = "query search_query retrieval.query RETRIEVAL_QUERY Query".split()
OTHERS = (
    "document passage search_document retrieval.passage none classification text-matching".split()
)


def requests(key: str, word: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a request of every dialect with this word."""
    said = {key: word}
    yield "/v1/embeddings", {"input": [TEXT], **said}
    yield "/openai/deployments/toy/embeddings", {"input": [TEXT], **said}
    yield "/embed", {"inputs": [TEXT], **said}
    yield "/", {"inputs": [TEXT], **said}
    yield "/api/embed", {"input": [TEXT], **said}
    yield "/api/embeddings", {"prompt": TEXT, **said}
    yield "/v1/embed", {"texts": [TEXT], **said}
    yield "/v2/embed", {"texts": [TEXT], **said}
    if key == "input_type":
        yield "/embed", {"texts": [TEXT], **said}
    if key == "task_type":
        yield "/vectors", {"text": TEXT, "config": said}


def vector_in(body: Any) -> Any:
    """Return the first list of numbers in a reply."""
    if isinstance(body, list) and body and isinstance(body[0], float):
        return body
    inner = body.values() if isinstance(body, dict) else body if isinstance(body, list) else ()
    return next((found for each in inner if (found := vector_in(each)) is not None), None)


@pytest.mark.parametrize("key", KEYS)
def test_words_of_all_clients_choose_the_instruction_in_all_dialects(
    toy_model: Model, key: str
) -> None:
    plain = toy_model.embed([TEXT])[0]
    query = toy_model.embed([toy_model.manifest.text.query_instruction + TEXT])[0]
    assert np.dot(plain, query) < 0.99

    async def test(client: httpx.AsyncClient) -> None:
        for words, expected in ((QUERIES, query), (["", None, *OTHERS], plain)):
            for word in words:
                for path, body in requests(key, word):
                    answer = await client.post(path, json=body)
                    assert answer.status_code == 200, (path, body, answer.text)
                    vector = np.array(vector_in(answer.json()), dtype=np.float32)
                    np.testing.assert_allclose(
                        vector, expected, atol=SAME, err_msg=f"{path} {body}"
                    )

    run(test, toy_model)


@pytest.mark.parametrize("word", ["title", "retrieval", "search", "querry", "x" * 5_000])
def test_unknown_word_is_refused_with_the_known_ones(toy_model: Model, word: str) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for key in KEYS:
            for path, body in requests(key, word):
                answer = await client.post(path, json=body)
                assert answer.status_code in (400, 422), (path, body)
                assert all(known in answer.text for known in INSTRUCTIONS)
                assert word[:20] in answer.text and len(answer.text) < 3000

    run(test, toy_model)


def test_words_that_contradict_each_other_are_refused(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        body = {"input": TEXT, "input_type": "query", "task": "retrieval.passage"}
        answer = await client.post("/v1/embeddings", json=body)
        assert answer.status_code == 400 and "contradict" in answer.text
        body["task"] = "retrieval.query"
        assert (await client.post("/v1/embeddings", json=body)).status_code == 200

    run(test, toy_model)


def test_request_wins_over_the_name_of_the_model(toy_model: Model) -> None:
    plain = toy_model.embed([TEXT])[0]

    async def test(client: httpx.AsyncClient) -> None:
        for word in ("passage", "search_document"):
            body = {"input": TEXT, "model": "toy:query", "input_type": word}
            answer = await client.post("/v1/embeddings", json=body)
            np.testing.assert_allclose(vector_in(answer.json()), plain, atol=SAME)

    run(test, toy_model)


def test_tokens_are_listed_with_the_instruction_that_the_word_means(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        plain = (await client.post("/tokenize", json={"inputs": TEXT})).json()[0]
        for said in ({"prompt_name": "query"}, {"task": "retrieval.query"}):
            found = (await client.post("/tokenize", json={"inputs": TEXT, **said})).json()[0]
            assert len(found) > len(plain)

    run(test, toy_model)
