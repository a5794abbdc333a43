"""Sparse weights and token vectors over HTTP, in TEI's form: what a readable reference computes."""

from pathlib import Path

import httpx
import numpy as np
import pytest

from server.api.dialects.many_vectors import _vectors_json, _weights_json
from server.errors import InferenceFailed
from server.inference.answers import check_vectors
from server.inference.model import Model
from server.inference.results import SparseWeights
from tests.support.clients import run
from tests.support.many_vectors import ReferenceRows
from tests.support.toys import toy_texts

# Of many lengths, so that they share batches; some are cut.
TEXTS = [*toy_texts(20, seed=5), "池" * 100]


def test_answers_are_those_of_the_reference(
    toy_model: Model, toy_m3: list[Model], m3_checkpoint: Path
) -> None:
    reference = ReferenceRows(m3_checkpoint)
    tokens = toy_m3[0].tokenizer.encode(TEXTS)
    rows, truncated = tokens.ids, str(len(tokens.truncated))

    async def test(client: httpx.AsyncClient) -> None:
        reply = await client.post("/embed_all", json={"inputs": TEXTS})
        assert reply.headers["x-compute-tokens"] == str(sum(map(len, rows)))
        assert reply.headers["x-truncated"] == truncated
        for found, ids in zip(reply.json(), rows, strict=True):
            np.testing.assert_allclose(found, reference.colbert(ids), atol=1e-5)
        # The name of all three is one, as of bge-m3's.
        reply = await client.post("/embed_sparse", json={"inputs": TEXTS, "model": "toy-m3"})
        assert reply.headers["x-truncated"] == truncated
        for words, ids in zip(reply.json(), rows, strict=True):
            found = {each["index"]: each["value"] for each in words}
            assert found == pytest.approx(reference.lexical_weights(ids), abs=1e-4)
            assert [*found] == sorted(found)
        single = await client.post("/embed_sparse", json={"inputs": TEXTS[0]})
        assert len(single.json()) == 1

    run(test, toy_model, others=toy_m3)


def test_reply_is_bounded_by_tokens_before_anything_is_computed(
    toy_model: Model, toy_m3: list[Model]
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        small = await client.post("/embed_all", json={"inputs": "墨池"})
        assert small.status_code == 200
        large = await client.post("/embed_all", json={"inputs": TEXTS})
        assert large.status_code == 413, large.text
        assert "send at most 105 tokens at once" in large.json()["error"]
        assert "--max-reply-bytes" in large.json()["error"]
        assert "\ninkwell_texts_total 1.0\n" in (await client.get("/metrics")).text
        large = await client.post("/embed_sparse", json={"inputs": TEXTS * 10})
        assert large.status_code == 413, large.text

    run(test, toy_model, others=toy_m3, max_reply_bytes=32_768)


def test_wrong_requests_are_refused(toy_model: Model, toy_m3: list[Model]) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for path in ("/embed_all", "/embed_sparse"):
            for body, status in (
                ({"inputs": []}, 400),
                ({"inputs": ["墨", ""]}, 400),
                ({"inputs": "池" * 100, "truncate": False}, 422),
                ({"inputs": "墨", "prompt_name": "no such"}, 422),
                ({"inputs": ["墨"] * 9}, 422),
                ({"inputs": "墨", "model": "toy"}, 424),
                ({"inputs": "墨", "model": "other"}, 422),
            ):
                reply = await client.post(path, json=body)
                assert reply.status_code == status, (path, body, reply.text)
        wrong = await client.post("/embed", json={"inputs": "墨", "model": "toy-m3"})
        assert wrong.status_code == 424
        assert "not dense vectors; 'toy' gives them" in wrong.json()["error"]
        wrong = await client.post("/rerank", json={"query": "墨", "texts": ["池"], "model": "toy"})
        assert "not scores of pairs; no reranker is loaded; serve one" in wrong.json()["error"]
        listed = (await client.get("/info")).json()["models"]
        assert [each["task"] for each in listed] == ["dense", "sparse", "token_vectors"]

    run(test, toy_model, others=toy_m3, max_texts=8)


def test_servers_without_such_a_model_say_how_to_get_one(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for path, task in (("/embed_all", "token_vectors"), ("/embed_sparse", "sparse")):
            reply = await client.post(path, json={"inputs": "墨"})
            assert reply.status_code == 424
            assert f"--task {task}" in reply.json()["error"]

    run(test, toy_model)


def test_server_with_such_a_model_alone_says_what_it_gives(toy_m3: list[Model]) -> None:
    """A client of TEI would take anything but an embedding for a reranker."""
    for model, pooling in zip(toy_m3, ("splade", "none"), strict=True):

        async def test(client: httpx.AsyncClient, pooling: str = pooling) -> None:
            info = (await client.get("/info")).json()
            assert info["model_type"] == {"embedding": {"pooling": pooling}}
            assert info["dimension"] is None

        run(test, model)


def test_numbers_that_json_has_not_are_no_answer() -> None:
    wrong = np.array([[0.5, np.nan]], np.float32)
    with pytest.raises(InferenceFailed):
        _vectors_json(wrong)
    with pytest.raises(InferenceFailed):
        _weights_json(SparseWeights(np.array([3, 4]), wrong[0]))
    with pytest.raises(InferenceFailed):
        check_vectors(wrong)
