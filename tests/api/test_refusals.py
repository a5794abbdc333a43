"""Wrong requests in every dialect: each gets the right status, in the right shape."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from server.api.dialects.openai import MAX_INPUTS
from server.inference.model import Model
from tests.support.clients import app_of, ask, lifespan, run, serving, stateful
from tests.support.dialects import (
    AS_JSON,
    BROKEN_BODIES,
    FORMS,
    GETS,
    POSTS,
    TEI,
    check_error,
    metric,
    vectors_of,
    walk,
)
from tests.support.fakes import PATIENCE_S, Broken, Gated, with_parts


def totals(page: str, name: str) -> dict[str, float]:
    """Return the values of a counter that are not 0, by its labels as written on the page."""
    found = re.findall(rf"^inkwell_{name}_total{{(.*)}} (\S+)$", page, re.MULTILINE)
    return {labels: float(value) for labels, value in found if float(value)}


def test_every_error_of_every_dialect_is_counted(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        by_dialect: Counter[str] = Counter()
        statuses: Counter[str] = Counter()
        async for dialect, response, _ in walk(client):
            by_dialect[dialect] += 1
            statuses[str(response.status_code)] += 1
        assert by_dialect.keys() == {"native", "tei", "openai", "ollama", "weaviate"}
        page = (await client.get("/metrics")).text
        requests, errors = totals(page, "requests"), totals(page, "errors")
        assert sum(errors.values()) == sum(requests.values()) == sum(statuses.values())
        for status, count in statuses.items():
            ending = f'status="{status}"'
            counted = (value for labels, value in requests.items() if labels.endswith(ending))
            assert sum(counted) == count, status
        assert errors['code="method_not_allowed"'] == statuses["405"]

    run(test, toy_model, max_body_bytes=100_000)


def test_rerankers_errors_are_counted(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for body in ({"query": "墨", "documents": ["a"]}, {"query": "墨", "texts": ["a"]}):
            assert (await client.post("/rerank", json=body)).status_code in (404, 424)
        page = (await client.get("/metrics")).text
        assert totals(page, "errors") == {'code="task_not_served"': 2}

    run(test, toy_model)


def test_requests_without_an_endpoint_share_one_label(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for path in ("/nowhere", "/v1/nowhere", "/api/nowhere", "/else/where"):
            assert (await client.get(path)).status_code == 404
        for path in ("/embed", "/v1/embeddings", "/vectors", "/info"):
            assert (await client.put(path)).status_code == 405
        page = (await client.get("/metrics")).text
        assert totals(page, "requests") == {
            'route="(none)",status="404"': 4,
            'route="(none)",status="405"': 4,
        }
        assert totals(page, "errors") == {'code="not_found"': 4, 'code="method_not_allowed"': 4}

    run(test, toy_model)


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
        # After all of these, a correct request is still answered.
        for form in FORMS:
            assert vectors_of(form, await client.post(form.path, json=form.body(["墨池"]))).size

    run(test, toy_model, max_body_bytes=100_000)


@pytest.mark.parametrize("kind", BROKEN_BODIES)
def test_broken_json_is_the_callers_error_in_every_form(toy_model: Model, kind: str) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for form in FORMS:
            content = BROKEN_BODIES[kind].replace(b"KEY", form.key.encode())
            response = await client.post(form.path, content=content, headers=AS_JSON)
            # If the body cannot be parsed, its form is unknown, and the native shape is used.
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
    """Serve with a blocked lane and a full queue."""
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
        # The app has not been started, so it has no engine.
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
        # Without a body no content-type is needed.
        assert (await client.get("/health")).status_code == 200
        assert (await client.delete("/documents/a")).status_code != 415

    run(test, toy_model)
