"""What is forgiven in a body, what is refused, and what the refusal says."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from server.api.body import decode
from server.api.dialects.native import EmbedRequest
from server.api.json_size import UNCOUNTED_BYTES
from server.app import every_operation
from server.config import Config
from server.errors import LONGEST_MESSAGE, InvalidRequest, StoreDamaged, StoreError, shown
from server.inference.model import Model
from server.messages.message import Message
from server.telemetry.metrics import Metrics
from tests.support.clients import ask, run
from tests.support.dialects import AS_JSON, FORMS, check_error, vectors_of

UNKNOWN: list[tuple[str, dict[str, Any], str, str]] = [
    ("/search", {"query": "a", "topk": 3}, "'topk'", "'top_k'"),
    ("/search", {"query": "a", "topK": 3}, "'topK'", "'top_k'"),
    ("/search", {"query": "a", "filters": {}}, "'filters'", "'filter'"),
    ("/search", {"query": "a", "weights": {"vector": 1}}, "'vector' in weights", "'lexical'"),
    ("/documents", {"documents": [], "replaced": True}, "'replaced'", "'replace'"),
    (
        "/documents",
        {"documents": [{"text": "a"}, {"text": "a", "year": 1}]},
        "'year' in documents[1]",
        "'metadata'",
    ),
    ("/documents", {"documents": [{"txt": "a"}]}, "'txt' in documents[0]", "'text'"),
    ("/documents/delete", {"id": "a"}, "'id'", "'ids'"),
    ("/documents/count", {"where": {}}, "'where'", "'ids', 'filter'"),
    ("/collections", {"name": "a", "chunk": None}, "'chunk'", "'chunks'"),
    ("/collections", {"name": "a", "chunks": {"size": 40, "overlaps": 1}}, "chunks", "'overlap'"),
    ("/reindex", {"chunk_size": 40}, "'chunk_size'", "'chunks'"),
    ("/embed", {"texts": ["a"], "dimension": 32}, "'dimension'", "'dimensions'"),
    ("/embed", {"texts": ["a"], "a` - at `$.x": 1}, "is not known", ""),
    ("/embed", {"texts": ["a"], "x" * 5_000_000: 1}, "5000000 characters", "'texts'"),
]


def test_unknown_keys_of_native_routes_are_refused_with_the_nearest(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for path, body, key, near in UNKNOWN:
            said = check_error("native", await client.post(path, json=body), 400, "invalid_request")
            assert key in said and near in said, said
            assert len(said) <= LONGEST_MESSAGE + 50
        # Nothing was stored or created on the way.
        assert (await client.get("/stats")).json()["documents"] == 0
        said = check_error("native", await client.get("/documents?limits=3"), 400)
        assert "'limits'" in said and "'limit'" in said

    run(test, toy_model)


def test_every_native_body_refuses_unknown_keys() -> None:
    for each in every_operation(Config(), Metrics()):
        if each.dialect.name == "native" and each.request:
            kind = each.request[0]
            assert kind.__struct_config__.forbid_unknown_fields, (each.path, kind)


NULLS: list[tuple[str, dict[str, Any]]] = [
    ("/embed", {"texts": ["a"], "inputs": None, "model": None, "truncate": None}),
    ("/embed", {"texts": ["a"], "input_type": None, "dimensions": None, "encoding_format": None}),
    ("/embed", {"inputs": ["a"], "texts": None, "normalize": None, "truncate": None}),
    ("/embed", {"inputs": ["a"], "truncation_direction": None, "model": None}),
    ("/v1/embeddings", {"input": "a", "model": None, "encoding_format": None, "user": None}),
    ("/v1/embeddings", {"input": "a", "task": None, "truncate": None, "normalized": None}),
    ("/api/embed", {"input": None, "model": None, "truncate": None}),
    ("/api/show", {"model": None, "name": None}),
    ("/vectors", {"text": "a", "texts": None, "config": {"pooling_strategy": None}}),
    ("/vectors", {"text": "a", "config": {"task_type": None, "dimensions": None}}),
    ("/v1/embed", {"texts": ["a"], "embedding_types": None, "truncate": None}),
    (
        "/documents",
        {"documents": [{"text": "a", "title": None, "metadata": None}], "replace": None},
    ),
    ("/search", {"query": "a", "top_k": None, "mode": None, "weights": {"dense": None}}),
    ("/search", {"query": "a", "fusion": None, "highlight": None, "filter": None}),
    ("/documents/count", {"filter": None}),
    ("/reindex", {"model": None}),
]


def test_null_counts_as_left_out_everywhere(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for path, body in NULLS:
            answer = await client.post(path, json=body)
            assert answer.status_code in (200, 202), (path, body, answer.text)
        needed: dict[str, dict[str, Any]] = {
            "/embed": {"texts": None},
            "/v1/embeddings": {"input": None},
            "/search": {"query": None},
            "/documents": {"documents": [{"text": None}]},
        }
        for path, body in needed.items():
            assert (await client.post(path, json=body)).status_code == 400, path

    run(test, toy_model)


def test_null_stays_a_value_where_it_is_one(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        body = {"name": "whole", "chunks": None, "model": None}
        made = await client.post("/collections", json=body)
        assert (made.status_code, made.json()["chunks"]) == (201, None)
        document = {"text": "a", "id": "a", "title": None, "metadata": {"year": None}}
        await client.post("/documents", json={"documents": [document], "replace": None})
        assert (await client.get("/documents/a")).json()["metadata"] == {"year": None}

    run(test, toy_model)


@pytest.mark.parametrize("size", ["32.0", "3.2e1"])
def test_whole_numbers_may_be_written_with_a_fraction(toy_model: Model, size: str) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for form in FORMS:
            content = json.dumps(form.body(["a"], dimensions=0)).replace(": 0", f": {size}")
            answer = await client.post(form.path, content=content, headers=AS_JSON)
            assert vectors_of(form, answer).shape == (1, 32)
        body = {"query": "a", "top_k": 3.0}
        assert (await client.post("/search", json=body)).status_code == 200
        for wrong in (3.5, 1e300):
            refused = await client.post("/search", json={"query": "a", "top_k": wrong})
            check_error("native", refused, 400, param=None)

    run(test, toy_model)


def test_byte_order_mark_is_skipped(toy_model: Model) -> None:
    body = b'\xef\xbb\xbf{"texts": ["a"]}'
    assert ask(toy_model, "POST", "/embed", content=body, headers=AS_JSON).status_code == 200
    many = b"\xef\xbb\xbf" * 100_000 + body
    assert ask(toy_model, "POST", "/embed", content=many, headers=AS_JSON).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        '{"texts": ["a"]}'.encode("utf-16"),
        '{"texts": ["a"]}'.encode("utf-16-le"),
        '{"texts": ["a"]}'.encode("utf-32-be"),
        '{"texts": ["天气"]}'.encode("gb18030"),
        b'{"texts": ["a", "\xff"]}',
    ],
)
def test_body_that_is_not_utf8_is_refused_for_that_reason(toy_model: Model, body: bytes) -> None:
    answer = ask(toy_model, "POST", "/embed", content=body, headers=AS_JSON)
    assert "send JSON in UTF-8" in check_error("native", answer, 400)


@pytest.mark.parametrize("half", ["\\ud800", "a\\udc00b", "\\uD83D\\ud83d"])
def test_half_of_a_surrogate_pair_is_refused_for_that_reason(toy_model: Model, half: str) -> None:
    content = f'{{"texts": ["a", "{half}"]}}'
    answer = ask(toy_model, "POST", "/embed", content=content, headers=AS_JSON)
    assert "UTF-8 cannot hold" in check_error("native", answer, 400)
    whole = '{"texts": ["\\ud83d\\ude80"], "dimensions": 1.2.3}'
    answer = ask(toy_model, "POST", "/embed", content=whole, headers=AS_JSON)
    assert "pair" not in check_error("native", answer, 400)


LONG = "x" * 5_000_000
LONG_VALUES: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/embeddings", {"input": "a", "model": LONG}, "'toy'"),
    ("/api/embed", {"input": "a", "model": LONG}, "not found"),
    ("/v1/embeddings", {"input": "a", "encoding_format": LONG}, "'base64'"),
    ("/v1/embeddings", {"input": "a", "truncate": LONG}, "'NONE'"),
    ("/embed", {"inputs": "a", "prompt_name": LONG}, "passage"),
    ("/vectors", {"text": "a", "config": {"pooling_strategy": LONG}}, "'cls'"),
    ("/search", {"query": "a", "mode": LONG}, "'hybrid'"),
    ("/documents", {"documents": [{"id": LONG, "text": "a"}]}, "documents[0].id"),
    ("/search", {"query": "a", "filter": {"n": {LONG: 1}}}, "$"),
]


def test_refusals_are_short_and_keep_what_is_wrong_and_what_to_do(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for path, body, kept in LONG_VALUES:
            answer = await client.post(path, json=body)
            assert answer.status_code in (400, 404, 422)
            assert len(answer.content) < 4 * LONGEST_MESSAGE, (path, len(answer.content))
            assert kept in answer.text, answer.text

    run(test, toy_model, max_body_bytes=1 << 24)


def test_values_and_messages_are_cut_in_the_right_place() -> None:
    assert shown("it's") == '"it\'s"'
    assert shown("x" * 101) == f"'{'x' * 100}'... (101 characters)"
    whole = "y" * LONGEST_MESSAGE
    assert InvalidRequest(whole).message == whole
    cut = InvalidRequest("begins " + "z" * 10_000 + " ends").message
    assert cut.startswith("begins ") and cut.endswith(" ends") and len(cut) < LONGEST_MESSAGE + 60


def test_missing_content_type_is_answered_with_what_curl_needs(toy_model: Model) -> None:
    for headers in ({}, {"content-type": "application/x-www-form-urlencoded"}):
        answer = ask(toy_model, "POST", "/embed", content=b"{}", headers=headers)
        assert "-H 'Content-Type: application/json'" in check_error("native", answer, 415)


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key"])
def test_content_type_may_be_missing_beside_a_key(toy_model: Model, header: str) -> None:
    body = json.dumps({"input": "a"}).encode()
    value = "Bearer any" if header == "authorization" else "any"

    async def test(client: httpx.AsyncClient) -> None:
        async def status(headers: dict[str, str]) -> int:
            answer = await client.post("/v1/embeddings", content=body, headers=headers)
            return answer.status_code

        assert await status({header: value}) == 200
        assert await status({header: value, "content-type": ""}) == 200
        # A page can send these without a preflight, or a browser adds them by itself.
        assert await status({header: value, "content-type": "text/plain"}) == 415
        assert await status({header: ""}) == 415
        assert await status({"authorization": "Basic YTpi"}) == 415
        assert await status({"authorization": "Negotiate YTpi"}) == 415
        preflight = {"origin": "http://evil.example", "access-control-request-headers": header}
        answer = await client.request("OPTIONS", "/v1/embeddings", headers=preflight)
        assert answer.status_code == 405
        assert not [name for name in answer.headers if name.startswith("access-control")]

    run(test, toy_model)


def test_messages_for_clients_have_no_folder_of_this_machine() -> None:
    path = Path("/srv/inkwell data/collections/laws/documents.sqlite3")
    inner = Message("{path} cannot be read", path=path)
    for error in (
        StoreDamaged("{path}: {error}; restore it", path=path, error="disk I/O error"),
        StoreDamaged("{path}: {error}", path=str(path).replace(" ", "-"), error=inner),
        StoreError("{several}; see", several=(inner, path)),
        StoreError("{error}", error=OSError(5, "Input/output error", "/srv/a/b")),
    ):
        assert "/srv" in error.message
        assert "/srv" not in error.public and "collections" not in error.public
    damaged = StoreDamaged("{path}: {error}", path=path, error="x").public
    assert damaged == "laws/documents.sqlite3: x"
    assert InvalidRequest("no such path: /srv/a/b").public == "no such path: /srv/a/b"


@pytest.mark.parametrize(
    "body",
    [b'{"texts": ["' + b"[" * 8_000_000, b'{"' + b"k" * 8_000_000 + b'": 1}'],
    ids=["unfinished", "long key"],
)
def test_refusing_a_large_body_does_not_hold_the_interpreter(body: bytes) -> None:
    started = time.thread_time()
    with pytest.raises(InvalidRequest):
        decode(body, EmbedRequest)
    assert time.thread_time() - started < 0.05


def test_no_route_decodes_a_large_body_on_the_loop(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_loop: list[str] = []
    decoding, asked = msgspec.json.decode, ""

    def noted(body: bytes, **given: Any) -> Any:
        if len(body) > UNCOUNTED_BYTES and threading.current_thread() is threading.main_thread():
            on_loop.append(asked)
        return decoding(body, **given)

    async def test(client: httpx.AsyncClient) -> None:
        nonlocal asked
        paths = (await client.get("/openapi.json")).json()["paths"]
        body = b'{"texts": ["a"], "x": "%s"}' % (b"x" * UNCOUNTED_BYTES)
        monkeypatch.setattr(msgspec.json, "decode", noted)
        for path, methods in paths.items():
            if "post" in methods:
                asked = path.format(collection="default", model="toy")
                await client.post(asked, content=body, headers=AS_JSON)

    run(test, toy_model)
    assert not on_loop
