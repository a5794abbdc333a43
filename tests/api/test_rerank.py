"""Reranking as clients of Cohere, Jina, Voyage, NVIDIA, vLLM and TEI ask for it, with a reranker and without one."""

from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import pytest

from server.api.written import ON_LOOP
from server.inference.model import Model
from tests.support.clients import ask, run
from tests.support.scorers import expected_scores

PATHS = ("/rerank", "/v1/rerank", "/v2/rerank")
by_path = pytest.mark.parametrize("path", PATHS)


def refusal(response: httpx.Response, status: int) -> str:
    """Check a refusal; return its message, which Cohere's clients read as `message` and Jina's as `detail`."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"message", "detail"}
    assert body["message"] == body["detail"]
    assert body["message"] and not body["message"].endswith(".")
    return str(body["message"])


@by_path
def test_missing_reranker_is_reported(toy_model: Model, path: str) -> None:
    bodies: list[dict[str, Any]] = [
        {"query": "天气", "documents": ["晴", "雨"]},
        {"query": "weather", "documents": [{"text": "sunny"}, "rain"], "top_n": 1},
        {
            "model": "rerank-v3.5",
            "query": "天气",
            "documents": ["晴"],
            "top_n": None,
            "return_documents": True,
            "max_tokens_per_doc": 4096,
        },
    ]

    async def test(client: httpx.AsyncClient) -> None:
        for body in bodies:
            assert "no reranker is loaded" in refusal(await client.post(path, json=body), 404)

    run(test, toy_model)


@by_path
def test_wrong_requests_get_the_reason(toy_model: Model, path: str) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"documents": ["a"]}, "query"),
        ({"query": 5, "documents": ["a"]}, "query"),
        ({"query": "", "documents": ["a"]}, "query is empty"),
        ({"query": "a", "documents": []}, "list is empty"),
        ({"query": "a", "documents": ["b", ""]}, "text 1 is empty"),
        ({"query": "a", "documents": [{"text": ""}]}, "text 0 is empty"),
        ({"query": "a", "documents": [{"title": "b"}]}, "text"),
        ({"query": "a", "documents": "b"}, "documents"),
        ({"query": "a", "documents": ["b"], "top_n": 0}, "top_n"),
        ({"query": "a", "documents": ["b"], "return_documents": "yes"}, "return_documents"),
        ({"query": "a", "documents": ["b"] * 9}, "8 are allowed"),
        ({"query": "a"}, "documents"),
        ({}, "documents" if path == "/rerank" else "query"),
    ]

    async def test(client: httpx.AsyncClient) -> None:
        for body, said in wrong:
            assert said in refusal(await client.post(path, json=body), 400), body

    run(test, toy_model, max_texts=8)


@by_path
def test_what_no_handler_sees_has_the_same_shape(toy_model: Model, path: str) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        refusal(await client.get(path), 405)
        refusal(await client.post(path, content=b"{}"), 415)
        headers = {"content-type": "application/json"}
        refusal(await client.post(path, content=b"{", headers=headers), 400)
        refusal(await client.post(path, json={"query": "a" * 5000}), 413)

    run(test, toy_model, max_body_bytes=4000)


RANKING = {"query": {"text": "天气"}, "passages": [{"text": "晴"}, {"text": "雨"}]}
OTHERS: list[tuple[str, dict[str, Any], int, str]] = [
    ("/v1/ranking", RANKING, 404, "no reranker is loaded"),
    ("/v1/ranking", {**RANKING, "model": "nv-rerank", "truncate": "END"}, 404, "no reranker"),
    ("/v1/ranking", {**RANKING, "truncate": "MIDDLE"}, 400, "'NONE'"),
    ("/v1/ranking", {**RANKING, "query": "天气"}, 400, "$.query"),
    ("/v1/ranking", {**RANKING, "passages": [{"text": "晴"}, {}]}, 400, "$.passages[1]"),
    ("/v1/ranking", {**RANKING, "passages": []}, 400, "list is empty"),
    ("/v1/score", {"text_1": "天气", "text_2": ["晴", "雨"]}, 404, "no reranker is loaded"),
    ("/score", {"text_1": ["天气", "地"], "text_2": ["晴", "雨"]}, 404, "no reranker is loaded"),
    ("/score", {"text_1": ["天气", "地"], "text_2": ["晴"]}, 400, "text_1 has 2 texts"),
    ("/score", {"text_1": [], "text_2": []}, 400, "list is empty"),
    ("/score", {"text_1": "a", "text_2": ["b", ""]}, 400, "text 1 is empty"),
    ("/score", {"text_1": ["a", ""], "text_2": ["b", "c"]}, 400, "text 1 is empty"),
    ("/score", {"text_1": "a"}, 400, "text_2"),
]


def test_rankings_and_scores_are_checked_and_refused(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for path, body, status, said in OTHERS:
            assert said in refusal(await client.post(path, json=body), status), (path, body)

    run(test, toy_model)


def test_form_follows_from_the_key_of_the_body(toy_model: Model) -> None:
    tei = ask(toy_model, "POST", "/rerank", {"query": "天气", "texts": ["晴"]})
    assert (tei.status_code, tei.json()["error_type"]) == (424, "Backend")
    assert "no reranker is loaded" in tei.json()["error"]
    both = {"query": "天气", "texts": ["晴"], "documents": ["晴"]}
    said = refusal(ask(toy_model, "POST", "/rerank", both), 400)
    assert '"documents"' in said and '"texts"' in said
    # On other paths TEI's key is unknown and ignored.
    refusal(ask(toy_model, "POST", "/v1/rerank", both), 404)


def test_paths_are_described_with_their_bodies(toy_model: Model) -> None:
    page = ask(toy_model, "GET", "/openapi.json").json()
    for path in PATHS:
        described = page["paths"][path]["post"]
        assert described["requestBody"]["content"]["application/json"]["schema"]
        assert described["responses"]["200"]["content"]["application/json"]["schema"]
    shared = page["paths"]["/rerank"]["post"]["requestBody"]["content"]["application/json"]
    assert len(shared["schema"]["anyOf"]) == 2


# --- with a reranker ------------------------------------------------------------------------------

QUERY = "天气"
TEXTS = ["search server", "墨池", "a", "花鸟鱼虫"]
LONG = "风" * 30


def logits_of(scorer: Model, query: str, texts: Sequence[str]) -> list[float]:
    pairs = scorer.tokenizer.encode_pairs([(query, text) for text in texts])
    return [float(each) for each in expected_scores(list(pairs.ids))[:, 0]]


def sigmoid(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))


def tokens_of(scorer: Model, texts: Sequence[str]) -> int:
    return scorer.tokenizer.encode_pairs([(QUERY, text) for text in texts]).count


def order(logits: Sequence[float]) -> list[int]:
    return sorted(range(len(logits)), key=lambda place: -logits[place])


@by_path
def test_documents_come_back_by_relevance(toy_model: Model, toy_scorer: Model, path: str) -> None:
    logits = logits_of(toy_scorer, QUERY, TEXTS)
    best = order(logits)
    n_tokens = tokens_of(toy_scorer, TEXTS)
    assert best != sorted(best) and len(set(logits)) == len(logits)

    async def test(client: httpx.AsyncClient) -> None:
        reply = await client.post(path, json={"query": QUERY, "documents": TEXTS})
        assert reply.status_code == 200, reply.text
        assert reply.headers["x-truncated"] == "0"
        body = reply.json()
        assert set(body) == {"id", "object", "model", "results", "data", "usage", "meta"}
        assert body["id"] == reply.headers["x-request-id"]
        assert (body["object"], body["model"]) == ("list", "toy-scorer")
        assert body["usage"] == {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
        version = "2" if path.startswith("/v2") else "1"
        billed = {"input_tokens": n_tokens}
        assert body["meta"] == {"api_version": {"version": version}, "billed_units": billed}
        assert [each["index"] for each in body["results"]] == best
        for each in body["results"]:
            assert set(each) == {"index", "relevance_score"}
            expected = sigmoid(logits[each["index"]])
            assert each["relevance_score"] == pytest.approx(expected, abs=1e-6)
        assert body["data"] == body["results"]

        asked = {"query": QUERY, "documents": [{"text": each} for each in TEXTS], "top_n": 2}
        told = (await client.post(path, json={**asked, "return_documents": True})).json()
        assert [each["index"] for each in told["results"]] == best[:2]
        for each, bare in zip(told["results"], told["data"], strict=True):
            assert each == {**bare, "document": {"text": TEXTS[each["index"]]}}
        voyage = {"query": QUERY, "documents": TEXTS, "top_k": 1, "truncation": True}
        found = (await client.post(path, json={**voyage, "model": "toy-scorer"})).json()
        assert [each["index"] for each in found["data"]] == best[:1]

    run(test, toy_model, others=[toy_scorer])


def test_long_documents_are_cut_or_refused(toy_model: Model, toy_scorer: Model) -> None:
    asked = {"query": QUERY, "documents": ["墨", LONG]}

    async def test(client: httpx.AsyncClient) -> None:
        reply = await client.post("/v1/rerank", json=asked)
        assert reply.headers["x-truncated"] == "1"
        whole = await client.post("/v1/rerank", json={**asked, "truncation": False})
        assert "text 1 and its query have more than the 16 tokens" in refusal(whole, 400)
        passages = [{"text": each} for each in asked["documents"]]
        body = {"query": {"text": QUERY}, "passages": passages, "truncate": "NONE"}
        assert "text 1" in refusal(await client.post("/v1/ranking", json=body), 400)
        # The other end of the text is another text.
        found = []
        for side in ("Right", "left"):
            body = {"query": QUERY, "texts": ["墨" + LONG + "池"], "truncation_direction": side}
            tei = await client.post("/rerank", json={**body, "raw_scores": True})
            assert tei.headers["x-truncated"] == "1"
            found.append(tei.json()[0]["score"])
        assert found[0] != found[1]
        too_long = {"query": QUERY, "texts": [LONG], "truncate": False}
        assert (await client.post("/rerank", json=too_long)).status_code == 422

    run(test, toy_model, others=[toy_scorer])


def test_replies_with_large_documents_are_the_same(toy_model: Model, toy_scorer: Model) -> None:
    documents = ["墨" * ON_LOOP, "池", "天\u0007\u2028" * 9]

    async def test(client: httpx.AsyncClient) -> None:
        asked = {"query": QUERY, "documents": documents, "return_documents": True}
        found = (await client.post("/v1/rerank", json=asked)).json()["results"]
        assert {each["index"]: each["document"]["text"] for each in found} == dict(
            enumerate(documents)
        )
        tei = {"query": QUERY, "texts": documents, "return_text": True}
        texts = {
            each["index"]: each["text"] for each in (await client.post("/rerank", json=tei)).json()
        }
        assert texts == dict(enumerate(documents))

    run(test, toy_model, others=[toy_scorer])


def test_tei_gets_texts_and_raw_scores_where_it_asks(toy_model: Model, toy_scorer: Model) -> None:
    logits = logits_of(toy_scorer, QUERY, TEXTS)

    async def test(client: httpx.AsyncClient) -> None:
        asked = {"query": QUERY, "texts": TEXTS}
        reply = await client.post("/rerank", json=asked)
        assert [set(each) for each in reply.json()] == [{"index", "score"}] * len(TEXTS)
        assert [each["index"] for each in reply.json()] == order(logits)
        for each in reply.json():
            assert each["score"] == pytest.approx(sigmoid(logits[each["index"]]), abs=1e-6)
        assert int(reply.headers["x-compute-tokens"]) == tokens_of(toy_scorer, TEXTS)
        raw = await client.post("/rerank", json={**asked, "raw_scores": True, "return_text": True})
        for each in raw.json():
            assert each["score"] == pytest.approx(logits[each["index"]], abs=1e-5)
            assert each["text"] == TEXTS[each["index"]]

    run(test, toy_model, others=[toy_scorer])


def test_predictions_are_those_of_a_classifier_with_one_label(
    toy_model: Model, toy_scorer: Model
) -> None:
    logits = logits_of(toy_scorer, QUERY, TEXTS)

    async def test(client: httpx.AsyncClient) -> None:
        async def predicted(inputs: Any, **options: Any) -> Any:
            reply = await client.post("/predict", json={"inputs": inputs, **options})
            assert reply.status_code == 200, reply.text
            return reply.json()

        (one,) = await predicted([QUERY, TEXTS[0]])
        assert one == {"score": pytest.approx(sigmoid(logits[0]), abs=1e-6), "label": "LABEL_0"}
        many = await predicted([[QUERY, text] for text in TEXTS], raw_scores=True)
        assert [each[0]["score"] for each in many] == pytest.approx(logits, abs=1e-5)
        for wrong in ("a", ["a"], ["a", "b", "c"], [["a", "b"], ["c"]], [["a", "b"], "c"]):
            reply = await client.post("/predict", json={"inputs": wrong})
            assert (reply.status_code, reply.json()["error_type"]) == (422, "Validation"), wrong
            assert "is no pair" in reply.json()["error"]
        assert (await client.post("/predict", json={"inputs": []})).status_code == 400

    run(test, toy_model, others=[toy_scorer])


def test_nvidia_gets_logits_and_vllm_the_models_own_scores(
    toy_model: Model, toy_scorer: Model
) -> None:
    logits = logits_of(toy_scorer, QUERY, TEXTS)

    async def test(client: httpx.AsyncClient) -> None:
        passages = [{"text": text} for text in TEXTS]
        ranked = await client.post(
            "/v1/ranking", json={"query": {"text": QUERY}, "passages": passages}
        )
        rankings = ranked.json()["rankings"]
        assert [each["index"] for each in rankings] == order(logits)
        for each in rankings:
            assert each["logit"] == pytest.approx(logits[each["index"]], abs=1e-5)
        for path in ("/v1/score", "/score"):
            body = (await client.post(path, json={"text_1": QUERY, "text_2": TEXTS})).json()
            assert body["object"] == "list" and body["model"] == "toy-scorer"
            assert [each["index"] for each in body["data"]] == list(range(len(TEXTS)))
            assert {each["object"] for each in body["data"]} == {"score"}
            # Of this model: the sigmoid.
            expected = [sigmoid(logit) for logit in logits]
            found = [each["score"] for each in body["data"]]
            assert found == pytest.approx(expected, abs=1e-6)
            lists = {"text_1": [QUERY, "墨"], "text_2": [TEXTS[0], TEXTS[0]]}
            several = (await client.post(path, json=lists)).json()
            assert several["data"][0]["score"] == pytest.approx(expected[0], abs=1e-6)
            assert several["data"][1]["score"] != several["data"][0]["score"]

    run(test, toy_model, others=[toy_scorer])


def test_models_are_chosen_and_listed_with_their_task(toy_model: Model, toy_scorer: Model) -> None:
    asked = {"query": QUERY, "documents": TEXTS}

    async def test(client: httpx.AsyncClient) -> None:
        for name in ("", "toy-scorer", "someone/toy-scorer"):
            reply = await client.post("/v1/rerank", json={**asked, "model": name})
            assert reply.json()["model"] == (name or "toy-scorer")
        wrong = await client.post("/v1/rerank", json={**asked, "model": "toy"})
        assert "'toy' gives dense vectors, not scores of pairs" in refusal(wrong, 404)
        unknown = await client.post("/v1/rerank", json={**asked, "model": "rerank-v3.5"})
        assert "'rerank-v3.5' does not exist here" in refusal(unknown, 404)
        embed = await client.post("/v1/embeddings", json={"input": "墨", "model": "toy-scorer"})
        assert embed.json()["error"]["code"] == "task_not_served"

        listed = (await client.get("/v1/models")).json()["data"]
        assert [each["id"] for each in listed] == ["toy", "toy:query", "toy-scorer"]
        one = (await client.get("/v1/models/toy-scorer")).json()
        assert one == listed[-1]
        assert (one["task"], one["model_type"]) == ("score", "rerank") and "dimensions" not in one
        info = (await client.get("/info")).json()
        assert info["model_id"] == "toy"
        assert [(each["name"], each["task"]) for each in info["models"]] == [
            ("toy", "dense"),
            ("toy-scorer", "score"),
        ]

    run(test, toy_model, others=[toy_scorer])


def test_any_name_is_that_of_the_reranker_where_the_operator_allows_it(
    toy_model: Model, toy_scorer: Model
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        asked = {"model": "rerank-v3.5", "query": QUERY, "documents": TEXTS}
        assert (await client.post("/v2/rerank", json=asked)).json()["model"] == "rerank-v3.5"
        vectors = await client.post("/v1/embeddings", json={"input": "墨", "model": "ada"})
        assert vectors.status_code == 200
        wrong = await client.post("/v1/rerank", json={**asked, "model": "toy"})
        assert wrong.status_code == 404

    run(test, toy_model, others=[toy_scorer], model_alias="*")


def test_wrong_requests_are_refused_with_a_reranker_too(
    toy_model: Model, toy_scorer: Model
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for path, body, status, said in OTHERS:
            reply = await client.post(path, json=body)
            if status == 400:
                assert said in refusal(reply, 400)
            elif body.get("model", "") == "":
                assert reply.status_code == 200, (path, body, reply.text)
        surrogate = b'{"query": "a", "documents": ["b", "\\udc00"]}'
        headers = {"content-type": "application/json"}
        reply = await client.post("/v1/rerank", content=surrogate, headers=headers)
        assert reply.status_code == 400

    run(test, toy_model, others=[toy_scorer])


def test_pairs_are_refused_where_the_queue_has_no_room(toy_model: Model, toy_scorer: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        asked = {"query": QUERY, "documents": ["墨池" * 9] * 100}
        assert "at most 1000" in refusal(await client.post("/v1/rerank", json=asked), 413)
        metrics = (await client.get("/metrics")).text
        assert "inkwell_refused_total 1.0" in metrics

    run(test, toy_model, others=[toy_scorer], bulk_queue_tokens=1000)
